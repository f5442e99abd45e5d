"""The learning rate at the corners of every schedule."""

import pytest
import torch

from asrtool.config import TrainingConfig
from asrtool.training.schedule import describe_learning_rate, learning_rate, reference_scale, seconds_per_step

DECAYS = ["linear", "cosine", "inverse_sqrt", "none"]


def schedule(decay, warmup=10, steps=110, lr=2.0):
    training = TrainingConfig(lr=lr, schedule=decay, warmup_steps=warmup, max_steps=steps)
    return lambda step: learning_rate(training, step, dim=256)


@pytest.mark.parametrize("decay", DECAYS)
def test_warmup_is_linear_from_nothing_to_the_peak(decay):
    rate = schedule(decay)
    assert [rate(step) for step in (1, 5, 10)] == pytest.approx([0.2, 1.0, 2.0])


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("warmup", [0, 10])
def test_the_rate_never_rises_after_the_peak_and_no_step_is_wasted(decay, warmup):
    rates = [schedule(decay, warmup)(step) for step in range(max(warmup, 1), 111)]
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] <= rates[0] <= 2.0 and rates[0] > 1.9


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_linear_and_cosine_are_half_way_in_the_middle_and_zero_after_the_last_step(decay):
    rate = schedule(decay, steps=109)
    assert rate(60) == pytest.approx(1.0)
    assert rate(110) == pytest.approx(0.0, abs=1e-12) and rate(1000) == pytest.approx(0.0, abs=1e-12)


def test_inverse_sqrt_halves_at_four_times_the_warmup():
    assert [schedule("inverse_sqrt")(step) for step in (40, 90)] == pytest.approx([1.0, 2 / 3])


def test_without_decay_the_rate_stays():
    assert {schedule("none")(step) for step in (10, 11, 110, 1000)} == {2.0}


def test_without_decay_the_warmup_may_outlast_the_training():
    assert schedule("none", warmup=100, steps=50)(50) == pytest.approx(1.0)


def test_noam_is_inverse_sqrt_with_a_peak_that_depends_on_the_width():
    training = TrainingConfig(lr=2.0, schedule="noam", warmup_steps=25, max_steps=100)
    by_hand = [2.0 * 64**-0.5 * min(step**-0.5, step * 25**-1.5) for step in (1, 25, 100)]
    assert [learning_rate(training, step, dim=64) for step in (1, 25, 100)] == pytest.approx(by_hand)


def test_one_cycle_is_torchs():
    training = TrainingConfig(lr=2.0, schedule="one_cycle", warmup_steps=30, max_steps=100)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    torchs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2.0, total_steps=101, pct_start=31 / 101)
    for step in range(1, 101):
        optimizer.step()
        torchs.step()
        assert learning_rate(training, step, dim=256) == pytest.approx(torchs.get_last_lr()[0], abs=2e-5)


@pytest.mark.parametrize("world_size, accumulate, expected", [(1, 1, 0.5), (2, 1, 1.0), (2, 3, 3.0)])
def test_with_lr_reference_seconds_the_rate_is_proportional_to_the_audio_in_a_step(world_size, accumulate, expected):
    training = TrainingConfig(lr=1.0, lr_reference_seconds=200, warmup_steps=0, schedule="none")
    scale = reference_scale(training, seconds_per_step(100, accumulate, world_size))
    assert learning_rate(training, 1, dim=256, scale=scale) == pytest.approx(expected)


def test_the_log_line_has_the_peak_rate_and_the_audio_in_a_step():
    training = TrainingConfig(lr=1e-3, warmup_steps=10, accumulate_grad_batches=2)
    assert describe_learning_rate(training, dim=256, batch_seconds=100, world_size=4) == (
        "at most 800 s of audio per step (100 s x 2 batches x 4 ranks); peak learning rate 0.001, "
        "1.25e-06 per second of audio"
    )
