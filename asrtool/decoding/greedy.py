"""Greedy search, also called best path decoding (Graves et al., ICML 2006, section 3.2)."""

import torch

from asrtool.decoding.hypothesis import Hypothesis, Search
from asrtool.text.tokenizer import BLANK


def greedy_search(topology: str) -> Search:
    """Returns the greedy search for the outputs of a topology."""
    return hmm_greedy if topology == "hmm" else ctc_greedy


def ctc_greedy(log_probs: torch.Tensor, lens: torch.Tensor, blank: int = 0) -> list[Hypothesis]:
    """Returns the best token of each frame, with repeats collapsed and then blanks removed, for each utterance.

    log_probs (N, T, V) float, any device; lens (N,) valid frames. `frames` holds the first frame of each token's run;
    `score` is the log-probability of the single best path, not of the token sequence (which sums over its paths).
    """
    if log_probs.size(1) == 0:
        return _empty_hypotheses(log_probs)
    best, path = log_probs.max(dim=-1)
    starts = path != blank
    starts[:, 1:] &= path[:, 1:] != path[:, :-1]
    return _hypotheses(path, starts, best, lens)


def hmm_greedy(log_probs: torch.Tensor, lens: torch.Tensor) -> list[Hypothesis]:
    """As `ctc_greedy`, for the two-state topology: outputs 2 u and 2 u + 1 are unit u; silence is a unit like others.

    A token begins where the best unit changes, and where the first output of a unit follows its second one.
    """
    if log_probs.size(1) == 0:
        return _empty_hypotheses(log_probs)
    best, path = log_probs.max(dim=-1)
    units = path // 2
    starts = units != BLANK
    starts[:, 1:] &= (units[:, 1:] != units[:, :-1]) | (path[:, 1:] < path[:, :-1])
    return _hypotheses(units, starts, best, lens)


def _empty_hypotheses(log_probs: torch.Tensor) -> list[Hypothesis]:
    return [Hypothesis([], [], 0.0) for _ in range(log_probs.size(0))]


def _hypotheses(units: torch.Tensor, starts: torch.Tensor, best: torch.Tensor, lens: torch.Tensor) -> list[Hypothesis]:
    """Returns the hypotheses of `units` (N, T) where `starts` (N, T) is True; `best` (N, T) are their log-probs."""
    valid = torch.arange(units.size(1), device=units.device) < lens.to(units.device)[:, None]
    # where, not a product: padding may hold -inf or NaN. Double, so that long utterances keep their digits.
    scores = torch.where(valid, best, 0.0).sum(dim=1, dtype=torch.float64).tolist()
    starts, units = (starts & valid).cpu(), units.cpu()
    frames = [row.nonzero().squeeze(1) for row in starts]
    return [
        Hypothesis(row[row_frames].tolist(), row_frames.tolist(), score)
        for row, row_frames, score in zip(units, frames, scores, strict=True)
    ]
