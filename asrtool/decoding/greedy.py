"""CTC greedy search, also called best path decoding (Graves et al., ICML 2006, section 3.2)."""

import torch

from asrtool.decoding.hypothesis import Hypothesis


def ctc_greedy(log_probs: torch.Tensor, lens: torch.Tensor, blank: int = 0) -> list[Hypothesis]:
    """Returns the best token of each frame, with repeats collapsed and then blanks removed, for each utterance.

    log_probs (N, T, V) float, any device; lens (N,) valid frames. `frames` holds the first frame of each token's run;
    `score` is the log-probability of the single best path, not of the token sequence (which sums over its paths).
    """
    if log_probs.size(1) == 0:
        return [Hypothesis([], [], 0.0) for _ in range(log_probs.size(0))]
    best, path = log_probs.max(dim=-1)
    valid = torch.arange(path.size(1), device=path.device) < lens.to(path.device)[:, None]
    # where, not a product: padding may hold -inf or NaN. Double, so that long utterances keep their digits.
    scores = torch.where(valid, best, 0.0).sum(dim=1, dtype=torch.float64).tolist()

    starts = valid & (path != blank)
    starts[:, 1:] &= path[:, 1:] != path[:, :-1]
    starts, path = starts.cpu(), path.cpu()
    frames = [row.nonzero().squeeze(1) for row in starts]
    return [
        Hypothesis(row[row_frames].tolist(), row_frames.tolist(), score)
        for row, row_frames, score in zip(path, frames, scores, strict=True)
    ]
