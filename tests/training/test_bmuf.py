"""The mathematics of BMUF, without processes."""

import pytest
import torch

from asrtool.training.bmuf import BlockFilter, filtered_moment

MOMENTUM = 7 / 8  # of eight workers: 1 - 1 / 8


def one_weight(**options) -> BlockFilter:
    return BlockFilter([torch.zeros(1, dtype=torch.float64)], **options)


def blocks(filtered: BlockFilter, count: int, gradient: float = 1.0, steps: int = 4) -> list[float]:
    """The start of each block when the workers' mean always goes `gradient` further."""
    starts = []
    for _ in range(count):
        filtered.update([filtered.start[0] + gradient], steps)
        starts.append(filtered.start[0].item())
    return starts


def test_without_momentum_the_filter_returns_the_mean_of_the_workers():
    weights = [torch.randn(3, 2), torch.randn(4)]
    filtered = BlockFilter(weights, momentum=0.0)
    for _ in range(3):
        means = [torch.randn(3, 2), torch.randn(4)]
        assert filtered.update(means, 5) == 5
        for start, mean in zip(filtered.start, means, strict=True):
            torch.testing.assert_close(start, mean)


@pytest.mark.parametrize("momentum, rate", [(0.5, 1.0), (MOMENTUM, 1.0), (MOMENTUM, 0.5)])
@pytest.mark.parametrize("nesterov", [False, True])
def test_a_constant_gradient_moves_by_lr_over_one_minus_momentum(momentum, rate, nesterov):
    """The same for classical and Nesterov's momentum: eight times the gradient for eight workers."""
    filtered = one_weight(momentum=momentum, lr=rate, nesterov=nesterov)
    starts = blocks(filtered, 300)
    steady = rate / (1 - momentum)
    assert filtered.delta[0].item() == pytest.approx(steady)
    assert starts[-1] - starts[-2] == pytest.approx(steady)
    assert filtered.steps == pytest.approx(4 * steady)


def test_nesterov_look_ahead_does_not_accumulate():
    """It is momentum * Delta ahead of the weights in every block; taken for them, it would give 15 a block, not 8."""
    filtered = one_weight(momentum=MOMENTUM, nesterov=True)
    blocks(filtered, 300)
    assert (filtered.start[0] - filtered.weights[0]).item() == pytest.approx(MOMENTUM * 8)


def test_the_first_blocks_equal_a_calculation_by_hand():
    classical, nesterov = one_weight(momentum=0.5), one_weight(momentum=0.5, nesterov=True)
    assert blocks(classical, 3) == [1.0, 2.5, 4.25]
    # Delta 1, 1.5, 1.75; W 1, 2.5, 4.25; S = W + Delta / 2
    assert blocks(nesterov, 3) == [1.5, 3.25, 5.125]


@pytest.mark.parametrize("nesterov", [False, True])
def test_update_returns_how_many_steps_the_start_has_moved(nesterov):
    """With a gradient of one a step, so that a block of four steps goes four."""
    filtered = one_weight(momentum=0.75, nesterov=nesterov)
    before = 0.0
    for _ in range(20):
        way = filtered.update([filtered.start[0] + 4.0], 4)
        assert filtered.start[0].item() - before == pytest.approx(way)
        before = filtered.start[0].item()


@pytest.mark.parametrize("beta", [0.9, 0.98, 0.999])
@pytest.mark.parametrize("way", [4.0, 9.5, 32.0])
def test_a_filtered_moment_equals_that_many_steps_with_the_same_gradient(beta, way):
    gradient, before = torch.tensor([2.0, -1.0]).double(), torch.tensor([0.5, 3.0]).double()
    mean = before
    for _ in range(4):
        mean = beta * mean + (1 - beta) * gradient
    expected = beta**way * before + (1 - beta**way) * gradient
    torch.testing.assert_close(filtered_moment(beta, before, mean, 4, way), expected)


def test_without_momentum_a_filtered_moment_is_the_mean():
    before, mean = torch.randn(5).double(), torch.randn(5).double()
    torch.testing.assert_close(filtered_moment(0.9, before, mean, 6, 6.0), mean)
