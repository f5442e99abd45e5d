"""Forward-backward with probabilities instead of their logs, scaled frame by frame, and how exact that was.

What forward_backward.py adds up state by state is here one product with a sparse matrix a frame, which is five times as
fast on a CPU. Alpha and beta of each frame are divided by their sums, as in Kaldi's chain training (Povey et al. 2016),
in double precision; what is below FLOOR then is raised to it, so that both are upper bounds, even of what was too small
for a double before. With the scaled a_t, b_t and c_t = 1 / sum_s a_t(s) b_t(s), paths that do not exist enter at frame
t with FLOOR each, so that of score and shares the sum over frames of 2 FLOOR c_t is more than all that was added. A
small sum is a proof that nothing was lost; it is large where the best beginnings and the best ends of paths are
hundreds of nats away from each other, or where there is no path. Those utterances are for log space.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from asrtool.objectives.graph_batch import GraphBatch

LEAST = 1e-50  # sum of a frame: what was too small for a double, 1e-308, is then far below FLOOR of it
FLOOR = 1e-250  # of a frame's sum
TOLERANCE = 1e-12  # share of all paths; rounding costs as much


class Sums(NamedTuple):
    """Of a batch of N utterances: scores (N,), shares of each line of the frames, and which of the N are exact."""

    total: Tensor
    shares: Tensor
    exact: Tensor


def scaled_sums(frames: Tensor, lines: Tensor, lens: Tensor, graphs: "GraphBatch", leak: Tensor | None) -> Sums:
    """`frames` (T, lines, columns) and `lines` (S,) as of `GraphBatch.frames`; `leak` (S, 1), probabilities."""
    read = frames.double().exp()
    logs, kept = _forward(read, lines, lens, graphs, leak)
    beta, leaving = graphs.ends.repeat(1, read.shape[2]), graphs.matrices[1]
    total = logs + graphs.summed(kept[-1] * beta).log()
    beta, _ = _scale(beta, graphs)
    all_alive, shares, lost = int(lens.min()), torch.zeros_like(read), torch.zeros_like(logs)
    for time in range(len(read) - 1, -1, -1):
        both = kept[time + 1].mul_(beta)
        norm = graphs.summed(both).reciprocal()
        shares[time].index_add_(0, lines, both.mul_(graphs.beside(norm)))
        lost += norm
        before = leaving @ read[time].index_select(0, lines).mul_(beta)
        if leak is not None and time:
            before += (before * leak).sum(0)
        before, _ = _scale(before, graphs)
        beta = before if time < all_alive else torch.where(graphs.beside(lens > time), before, beta)
    lost += graphs.summed(kept[0] * beta).reciprocal()
    return Sums(total, shares, 2 * FLOOR * lost < TOLERANCE)


def _forward(
    read: Tensor, lines: Tensor, lens: Tensor, graphs: "GraphBatch", leak: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The log of all scales of each utterance, (N,), and the scaled alpha before the first and behind each frame."""
    kept = read.new_empty(len(read) + 1, len(lines), read.shape[2])
    kept[0], scale = _scale(graphs.begins.repeat(1, read.shape[2]), graphs)
    logs, all_alive, entering = scale.log(), int(lens.min()), graphs.matrices[0]
    for time, frame in enumerate(read):
        before = kept[time] if leak is None or not time else kept[time] + leak  # alpha adds up to 1
        after = torch.mul(entering @ before, frame.index_select(0, lines), out=kept[time + 1])
        scale = _scale(after, graphs)[1]
        if time >= all_alive:
            after.copy_(torch.where(graphs.beside(lens > time), after, kept[time]))
        logs = logs + torch.where(lens > time, scale.log(), 0.0)
    return logs, kept


def _scale(values: Tensor, graphs: "GraphBatch") -> tuple[Tensor, Tensor]:
    """`values`, in place, by their sum in each utterance, and the sums (N,); NaN where that is less than LEAST."""
    sums = graphs.summed(values)
    sums = torch.where(sums > LEAST, sums, torch.nan)
    return values.div_(graphs.beside(sums)).clamp_(min=FLOOR), sums
