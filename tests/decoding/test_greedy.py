import itertools

import pytest
import torch

from asrtool.decoding.greedy import ctc_greedy
from asrtool.decoding.hypothesis import Hypothesis


def one_hot_log_probs(path: list[int], vocabulary: int = 4) -> torch.Tensor:
    """(1, T, V) in which `path` has probability 0.7 a frame."""
    probs = torch.full((1, len(path), vocabulary), 0.3 / (vocabulary - 1), dtype=torch.float64)
    probs[0, range(len(path)), path] = 0.7
    return probs.log()


def reference(log_probs: torch.Tensor, blank: int) -> list[int]:
    path = log_probs.argmax(-1).tolist()
    return [token for token, _ in itertools.groupby(path) if token != blank]


def test_repeats_collapse_unless_a_blank_is_between():
    log_probs = one_hot_log_probs([0, 2, 2, 0, 2, 3, 3, 1, 0])
    (found,) = ctc_greedy(log_probs, torch.tensor([9]))
    assert found == Hypothesis([2, 2, 3, 1], [1, 4, 5, 7], pytest.approx(9 * torch.tensor(0.7).log().item()))


@pytest.mark.parametrize("blank", [0, 3])
def test_greedy_search_equals_the_two_line_reference(blank):
    torch.manual_seed(1)
    log_probs = torch.randn(16, 40, 4).log_softmax(-1)
    lens = torch.randint(0, 41, (16,))
    for row, length, found in zip(log_probs, lens, ctc_greedy(log_probs, lens, blank), strict=True):
        assert found.tokens == reference(row[:length], blank)
        assert found.score == pytest.approx(row[:length].max(-1).values.sum().item(), rel=1e-5)
        assert [row[frame].argmax().item() for frame in found.frames] == found.tokens


@pytest.mark.parametrize("padding", [0.0, float("nan"), float("-inf")])
def test_padding_has_no_influence(padding):
    short = one_hot_log_probs([1, 0, 2])
    padded = torch.cat([short, torch.full((1, 5, 4), padding, dtype=short.dtype)], dim=1)
    assert ctc_greedy(padded, torch.tensor([3])) == ctc_greedy(short, torch.tensor([3]))


def test_only_blanks_give_the_empty_hypothesis():
    (found,) = ctc_greedy(one_hot_log_probs([0, 0, 0]), torch.tensor([3]))
    assert (found.tokens, found.frames) == ([], [])


@pytest.mark.parametrize("frames", [0, 4])
def test_an_utterance_without_frames_gives_the_empty_hypothesis_with_certainty(frames):
    assert ctc_greedy(torch.zeros(2, frames, 3), torch.tensor([0, 0])) == [Hypothesis([], [], 0.0)] * 2
