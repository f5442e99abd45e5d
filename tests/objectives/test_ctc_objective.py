"""CTC compared with its definition: the sum over all paths that collapse to the targets."""

from itertools import groupby, product

import pytest
import torch

from asrtool.objectives.ctc import ctc_loss, min_frames

TARGETS = [list(units) for length in range(4) for units in product([1, 2], repeat=length)]


def collapse(path):
    return [unit for unit, _ in groupby(path) if unit != 0]


def brute_force(log_probs, units):
    """-log of the probability of all CTC alignments of `units`, in float64; 0 when there is none."""
    paths = [path for path in product(range(log_probs.shape[1]), repeat=len(log_probs)) if collapse(path) == units]
    scores = [sum(log_probs[t, unit] for t, unit in enumerate(path)) for path in paths]
    return -torch.stack(scores).logsumexp(0) if scores else torch.tensor(0.0).double()


@pytest.mark.parametrize("units", TARGETS[1:], ids=str)
def test_min_frames_is_the_fewest_frames_with_an_alignment(units):
    reachable = (T for T in range(1, 9) if any(collapse(path) == units for path in product(range(3), repeat=T)))
    assert min_frames(units) == next(reachable)


def test_no_units_need_no_frames():
    assert min_frames([]) == 0


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
def test_the_loss_is_the_sum_over_all_paths(frames):
    log_probs = torch.randn(frames, 3, generator=torch.Generator().manual_seed(frames)).log_softmax(-1)
    batch = log_probs.expand(len(TARGETS), -1, -1)
    targets = torch.nn.utils.rnn.pad_sequence([torch.tensor(units, dtype=torch.int64) for units in TARGETS], True)
    lens = torch.tensor([len(units) for units in TARGETS])
    losses = ctc_loss(batch, torch.full((len(TARGETS),), frames), targets, lens)
    expected = torch.stack([brute_force(log_probs.double(), units) for units in TARGETS])
    torch.testing.assert_close(losses.double(), expected, rtol=1e-5, atol=1e-5)
    assert (losses == 0).tolist() == [frames < min_frames(units) for units in TARGETS]


def test_padding_of_log_probs_and_targets_has_no_influence():
    log_probs = torch.randn(2, 9, 4).log_softmax(-1)
    targets, lens = torch.tensor([[1, 2, 3], [3, 0, 0]]), torch.tensor([3, 1])
    before = ctc_loss(log_probs, torch.tensor([9, 5]), targets, lens)
    log_probs[1, 5:], targets[1, 1:] = -7.0, 2
    torch.testing.assert_close(ctc_loss(log_probs, torch.tensor([9, 5]), targets, lens), before)


def test_the_loss_is_float32_under_autocast():
    log_probs = torch.randn(1, 6, 4).log_softmax(-1)
    arguments = torch.tensor([6]), torch.tensor([[1, 2]]), torch.tensor([2])
    with torch.autocast("cpu", torch.bfloat16):
        loss = ctc_loss(log_probs, *arguments)
    assert loss.dtype == torch.float32 and torch.equal(loss, ctc_loss(log_probs, *arguments))
