import itertools

import pytest
import torch

from asrtool.decoding.ctc_align import ctc_align


def starts(path: tuple[int, ...], blank: int) -> list[int]:
    return [t for t, token in enumerate(path) if token != blank and (t == 0 or token != path[t - 1])]


def best_path(log_probs: torch.Tensor, tokens: list[int], blank: int) -> tuple[int, ...]:
    """The most probable of all V^T paths that collapse to `tokens`."""
    frames, vocabulary = log_probs.shape
    paths = itertools.product(range(vocabulary), repeat=frames)
    fitting = [path for path in paths if [path[t] for t in starts(path, blank)] == tokens]
    return max(fitting, key=lambda path: log_probs[range(frames), path].sum().item())


@pytest.mark.parametrize("tokens", [[], [1], [1, 1], [2, 1], [1, 2, 1], [2, 2, 1], [1, 2, 1, 2, 1]])
@pytest.mark.parametrize("seed", range(5))
def test_frames_are_those_of_the_best_path(tokens, seed):
    log_probs = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed)).log_softmax(-1)
    assert ctc_align(log_probs, tokens) == starts(best_path(log_probs, tokens, blank=0), blank=0)


def test_another_blank():
    log_probs = torch.randn(5, 3, generator=torch.Generator().manual_seed(9)).log_softmax(-1)
    assert ctc_align(log_probs, [0, 0], blank=2) == starts(best_path(log_probs, [0, 0], blank=2), blank=2)


@pytest.mark.parametrize("frames, tokens", [(0, [1]), (1, [1, 2]), (2, [1, 1])])
def test_too_few_frames_are_refused(frames, tokens):
    with pytest.raises(ValueError, match="no CTC path"):
        ctc_align(torch.zeros(frames, 3), tokens)
