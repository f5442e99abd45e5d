"""Forward-backward with scaled probabilities instead of their logs, and a bound on its error.

What forward_backward.py adds up state by state is here one product with a sparse matrix for each frame, which is five
times as fast on a CPU. Alpha and beta of each frame are divided by their sums over the states, as in Kaldi's chain
training (Povey et al. 2016), in double precision. Values below FLOOR are then raised to it: this replaces values that
underflowed to 0, so that the scaled a_t(s) and b_t(s) are upper bounds.

The error has a bound. Raising values adds paths that do not exist, with a weight of at most FLOOR in each state of
frame t. Since a_t and b_t sum to 1, they are at most a share 2 FLOOR c_t of all paths, with
c_t = 1 / sum_s a_t(s) b_t(s). The sum of these shares over the frames is a bound of the relative error of the score and
the posteriors: the result is exact where it is less than TOLERANCE. It is large where the most probable states by alpha
are hundreds of nats improbable by beta, or where there is no path: such utterances need log space.

The recursion runs over blocks of frames, by functions that write all their results into tensors they are given. A CPU
runs them directly; on a GPU they are CUDA graphs (cuda_graphs.py).
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from asrtool.device import to_device
from asrtool.objectives.graph_batch import GraphBatch

MIN_SUM = 1e-50  # smallest sum of a frame: a value that underflows, below 1e-308, is then less than FLOOR of the sum
FLOOR = 1e-250  # of a frame's sum
TOLERANCE = 1e-12  # largest bound of the relative error; rounding errors are as large


class PathSums(NamedTuple):
    """Sums over the paths of a batch of N utterances."""

    score: Tensor  # (N,) nats
    posteriors: Tensor  # (T, R, C), as `GraphBatch.emissions`: probability of a label at a frame; ignore it at padding
    is_exact: Tensor  # (N,) bool


class Recursion(NamedTuple):
    """What all frames of a batch have in common."""

    graphs: GraphBatch
    state_row: Tensor  # (S,) row of a state in the emissions
    leaky_probs: Tensor | None  # (S, 1) probability of a jump to each state before every frame except the first


class Frames(NamedTuple):
    """The tensors of K frames, from frame t on. Views of these are the tensors of some of the frames."""

    probs: Tensor  # (K, R, C) exp of the emissions
    is_active: Tensor | None  # (K, N) bool: the frames of each utterance; None where all utterances go on
    alphas: Tensor  # (K + 1, S, C) before and after each frame
    sums: Tensor  # (K, N) of alpha after each frame, before it was scaled
    posteriors: Tensor  # (K, R, C), zero at first
    inverse_sums: Tensor  # (K, N) c_t behind each frame

    def part(self, first: int, end: int, all_active: bool = False) -> "Frames":
        """The frames from `first` up to `end`."""
        return Frames(
            self.probs[first:end],
            None if all_active or self.is_active is None else self.is_active[first:end],
            self.alphas[first : end + 1],
            self.sums[first:end],
            self.posteriors[first:end],
            self.inverse_sums[first:end],
        )


class BlockRunner(Protocol):
    """Runs the recursion over blocks of frames."""

    def blocks(self, frames: Frames, shortest: int) -> list[Frames]:
        """The frames in blocks, of which the first has one frame. No utterance ends before frame `shortest`."""

    def forward(self, recursion: Recursion, block: Frames) -> None:
        """`forward_block`."""

    def backward(self, recursion: Recursion, block: Frames, beta: Tensor) -> Tensor:
        """`backward_block`."""


class DirectRunner:
    """Runs the functions as they are."""

    def blocks(self, frames: Frames, shortest: int) -> list[Frames]:
        """The first frame, the rest up to the end of the shortest utterance, and the rest."""
        size = len(frames.probs)
        parts = [frames.part(0, 1, all_active=True)]
        if shortest > 1:
            parts.append(frames.part(1, shortest, all_active=True))
        if size > shortest:
            parts.append(frames.part(shortest, size))
        return parts

    def forward(self, recursion: Recursion, block: Frames) -> None:
        """`forward_block`."""
        forward_block(recursion, block)

    def backward(self, recursion: Recursion, block: Frames, beta: Tensor) -> Tensor:
        """`backward_block`."""
        return backward_block(recursion, block, beta)


def scaled_sums(
    emissions: Tensor,
    state_row: Tensor,
    lens: Tensor,
    graphs: GraphBatch,
    leaky_probs: Tensor | None,
    runner: BlockRunner | None = None,
) -> PathSums:
    """Sums over all paths; emissions (T, R, C) and state_row (S,) come from `GraphBatch.emissions`.

    lens (N,) on the host, at least 1. leaky_probs (S, 1): probability of a jump to each state before every frame except
    the first (leaky HMM).
    """
    runner = runner or DirectRunner()
    num_frames, _, num_columns = emissions.shape
    is_active = to_device(torch.arange(num_frames)[:, None] < lens, emissions.device)  # (T, N)
    frames = _allocate(emissions.double().exp(), is_active, graphs)
    frames.alphas[0] = graphs.start_prob
    start_sum = _scale(frames.alphas[0], graphs)  # (N,)
    blocks = runner.blocks(frames, int(lens.min()))
    recursions = [Recursion(graphs, state_row, None)]
    recursions += [Recursion(graphs, state_row, leaky_probs)] * (len(blocks) - 1)
    for recursion, block in zip(recursions, blocks, strict=True):
        runner.forward(recursion, block)
    beta = graphs.final_prob.repeat(1, num_columns)  # (S, C)
    log_sums = torch.where(is_active, frames.sums.log(), 0.0).sum(0)  # (N,)
    score = start_sum.log() + log_sums + graphs.sum_states(frames.alphas[-1] * beta).log()
    _scale(beta, graphs)
    for recursion, block in zip(reversed(recursions), reversed(blocks), strict=True):
        beta = runner.backward(recursion, block, beta)
    inverse_sums = frames.inverse_sums.sum(0) + graphs.sum_states(frames.alphas[0] * beta).reciprocal()
    # A sum below MIN_SUM is NaN, and what is computed from it: then the comparison is False.
    return PathSums(score=score, posteriors=frames.posteriors, is_exact=2 * FLOOR * inverse_sums < TOLERANCE)


def _allocate(probs: Tensor, is_active: Tensor, graphs: GraphBatch) -> Frames:
    """The tensors of all frames; probs (T, R, C), is_active (T, N)."""
    num_frames, _, num_columns = probs.shape
    return Frames(
        probs=probs,
        is_active=is_active,
        alphas=probs.new_empty(num_frames + 1, len(graphs.label), num_columns),
        sums=probs.new_empty(is_active.shape),
        posteriors=torch.zeros_like(probs),
        inverse_sums=probs.new_empty(is_active.shape),
    )


def forward_block(recursion: Recursion, block: Frames) -> None:
    """Computes the alphas of a block from its first one."""
    graphs = recursion.graphs
    for time, frame in enumerate(block.probs):
        previous = block.alphas[time]
        if recursion.leaky_probs is not None:
            # a jump comes from any state: leaky_probs times the sum of alpha, 1
            previous = previous + recursion.leaky_probs
        emission = frame.index_select(0, recursion.state_row)  # (S, C)
        alpha = torch.mul(graphs.incoming_matrix @ previous, emission, out=block.alphas[time + 1])
        block.sums[time] = _scale(alpha, graphs)
        if block.is_active is not None:
            alpha.copy_(torch.where(graphs.per_state(block.is_active[time]), alpha, block.alphas[time]))


def backward_block(recursion: Recursion, block: Frames, beta: Tensor) -> Tensor:
    """Computes the posteriors of a block from beta (S, C) after its last frame; returns beta before its first frame.

    All alphas but the first are overwritten: nothing needs them any more.
    """
    graphs = recursion.graphs
    for time in range(len(block.probs) - 1, -1, -1):
        product = block.alphas[time + 1].mul_(beta)
        norm = torch.reciprocal(graphs.sum_states(product), out=block.inverse_sums[time])  # (N,) c_t
        block.posteriors[time].index_add_(0, recursion.state_row, product.mul_(graphs.per_state(norm)))
        emission = block.probs[time].index_select(0, recursion.state_row)  # (S, C)
        previous = graphs.outgoing_matrix @ emission.mul_(beta)
        if recursion.leaky_probs is not None:
            previous += recursion.leaky_probs.T @ previous
        _scale(previous, graphs)
        if block.is_active is not None:
            previous = torch.where(graphs.per_state(block.is_active[time]), previous, beta)
        beta = previous
    return beta


def _scale(values: Tensor, graphs: GraphBatch) -> Tensor:
    """Divides `values` (S, C), in place, by their sum in each utterance, and raises them to FLOOR; returns the sums.

    A sum (N,) of MIN_SUM or less becomes NaN, which marks the utterance as not exact.
    """
    sums = graphs.sum_states(values)
    sums = torch.where(sums > MIN_SUM, sums, torch.nan)
    values.div_(graphs.per_state(sums)).clamp_(min=FLOOR)
    return sums
