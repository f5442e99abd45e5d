"""Sums over all paths of a graph through log-probabilities, with exact gradients: forward-backward in log space.

A graph is states and arcs without epsilons (`asrtool.graphs.training.Arcs`); whoever enters a state reads a frame. With
alpha_0 = start and, for each frame t,

    alpha_t+1(s) = log_probs_t(label s) + log sum over arcs a into s of exp(alpha_t(source a) + weight a)

an utterance of T frames has the score log sum_s exp(alpha_T(s) + final(s)). Its gradient by log_probs_t(v) is the share
of all paths, by their probability, that read v at t: the sum of exp(alpha_t+1(s) + beta_t+1(s) - score) over the states
of label v, where beta is the same recursion from the right (Rabiner 1989, section III). Only alpha is kept, so that
memory is frames x states, and only till the gradient is there, which is found at once.

Most batches go by scaled.py, without logs; it also finds the few for which that would not be exact, and these go by
the recursion above. Utterances that share one graph are columns beside each other; utterances with a graph each are one
graph without arcs between its parts.
"""

import warnings
from functools import cached_property

import torch
from torch import Tensor

from asrtool.graphs.training import Arcs
from asrtool.objectives.rows import Rows
from asrtool.objectives.scaled import Sums, scaled_sums


class GraphBatch:
    """Graphs on a device: one that all utterances share, or one for each utterance in their order.

    Raises ValueError for a graph without arcs.
    """

    def __init__(self, graphs: Arcs | list[Arcs], device: torch.device | str = "cpu", dtype=torch.float32):
        self.shared = isinstance(graphs, Arcs)
        parts = [graphs] if self.shared else graphs
        if not all(len(part.source) for part in parts):
            raise ValueError("a graph has no arcs")
        sizes = torch.tensor([part.states for part in parts])
        first = (sizes.cumsum(0) - sizes).tolist()
        self.count, self.dtype = len(parts), dtype
        self.first = torch.tensor([0] if self.shared else first, device=device)  # state of each graph
        self.owner = torch.arange(self.count).repeat_interleave(sizes).to(device)  # of a state: which graph

        def joined(name: str, dtype: torch.dtype, shift: bool = False) -> Tensor:
            values = [torch.from_numpy(getattr(part, name)).to(dtype) for part in parts]
            return torch.cat([v + f if shift else v for v, f in zip(values, first, strict=True)]).to(device)

        self.start, self.final = joined("start", dtype)[:, None], joined("final", dtype)[:, None]
        self.begins, self.ends = self.start.double().exp(), self.final.double().exp()
        self.label = joined("label", torch.int64)
        self._arcs = joined("source", torch.int64, True), joined("target", torch.int64, True), joined("weight", dtype)

    @cached_property
    def entering(self) -> Rows:
        """Arcs by the state that they enter."""
        source, target, weight = self._arcs
        return Rows.of(target, source, weight)

    @cached_property
    def leaving(self) -> Rows:
        """Arcs by the state that they leave."""
        source, target, weight = self._arcs
        return Rows.of(source, target, weight)

    @cached_property
    def matrices(self) -> tuple[Tensor, Tensor]:
        """The arcs' probabilities as sparse matrices (S, S), by the state that they enter and by that they leave."""
        source, target, weight = self._arcs
        size = (len(self.label),) * 2

        def matrix(rows: Tensor, columns: Tensor) -> Tensor:
            with warnings.catch_warnings(action="ignore"):  # that this layout is in beta
                values = torch.sparse_coo_tensor(torch.stack([rows, columns]), weight.double().exp(), size)
                return values.coalesce().to_sparse_csr()

        return matrix(target, source), matrix(source, target)

    def frames(self, log_probs: Tensor) -> tuple[Tensor, Tensor]:
        """log_probs (N, T, V) as (T, lines, columns), and the line of each state (S,).

        Utterances that share a graph are columns; the lines of others are those of all utterances.
        """
        count, total, units = log_probs.shape
        if self.shared:
            return log_probs.permute(1, 2, 0).contiguous(), self.label
        if count != self.count:
            raise ValueError(f"{count} utterances, but {self.count} graphs")
        return log_probs.transpose(0, 1).reshape(total, -1, 1), self.label + self.owner * units

    def unframed(self, values: Tensor, shape: torch.Size) -> Tensor:
        """What `frames` made of (N, T, V), back in that shape."""
        return values.permute(2, 0, 1) if self.shared else values.view(shape[1], shape[0], shape[2]).transpose(0, 1)

    def beside(self, values: Tensor) -> Tensor:
        """Values of utterances (N,) as they stand beside scores of states, (1, N) or (S, 1)."""
        return values[None] if self.shared else values[self.owner, None]

    def summed(self, values: Tensor) -> Tensor:
        """The sum over the states of each utterance, (N,); values (S, columns)."""
        if self.shared:
            return values.sum(0)
        return values.new_zeros(self.count).index_add_(0, self.owner, values[:, 0])

    def total(self, scores: Tensor) -> Tensor:
        """The log of the sum over the states of each utterance, (N,); scores (S, columns)."""
        if self.shared:
            return scores.logsumexp(0)
        most = scores.new_full((self.count,), -torch.inf).scatter_reduce(0, self.owner, scores[:, 0], "amax")
        most = most.nan_to_num(neginf=0.0)
        return self.summed((scores - self.beside(most)).exp()).log() + most

    def best(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """The best of what `total` adds up, (N,), and its state."""
        if self.shared:
            return scores.max(0)
        parts = scores[:, 0].split(self.owner.bincount().tolist())
        best = [part.max(0) for part in parts]
        return torch.stack([b.values for b in best]), torch.stack([b.indices for b in best]) + self.first


def path_sum(log_probs: Tensor, lens: Tensor, graphs: GraphBatch, leak: Tensor | None = None) -> Tensor:
    """The score of each utterance's graph, (N,) nats; -inf, and no gradient, where no path has so many frames.

    log_probs (N, T, V) of the graphs' dtype; lens (N,) int64, at least 1. `leak` (S,), natural logs, lets a path go
    from any state to state s with this weight before every frame but the first (the leaky HMM of Povey et al. 2016,
    section 3.4), in a graph that all utterances share.
    """
    return _PathSum.apply(log_probs, lens, graphs, None if leak is None else leak[:, None])


class _PathSum(torch.autograd.Function):
    @staticmethod
    def forward(context, log_probs: Tensor, lens: Tensor, graphs: GraphBatch, leak: Tensor | None) -> Tensor:
        peaks = log_probs.amax(2, keepdim=True)  # kept apart: sums over many frames stay small, and exact
        frames, lines = graphs.frames(log_probs - peaks)
        sums = scaled_sums(frames, lines, lens, graphs, None if leak is None else leak.double().exp())
        if not sums.exact.all():
            sums = log_sums(frames, lines, lens, graphs, leak)
        beyond = torch.arange(len(frames), device=lens.device) >= lens[:, None]
        shares = graphs.unframed(sums.shares, log_probs.shape).to(log_probs.dtype)
        context.save_for_backward(shares.masked_fill(beyond[:, :, None], 0.0))
        return (sums.total + peaks[:, :, 0].double().masked_fill(beyond, 0.0).sum(1)).to(log_probs.dtype)

    @staticmethod
    def backward(context, gradient: Tensor):
        (shares,) = context.saved_tensors
        return shares * gradient[:, None, None], None, None, None


def log_sums(frames: Tensor, lines: Tensor, lens: Tensor, graphs: GraphBatch, leak: Tensor | None) -> Sums:
    """What `scaled_sums` finds, in log space; `leak` (S, 1), natural logs."""
    all_alive, columns = int(lens.min()), frames.shape[2]
    alpha = graphs.start.expand(-1, columns).contiguous()
    kept, entering = [], graphs.entering.beside(columns)
    for time, frame in enumerate(frames):
        before = alpha
        if leak is not None and time:
            before = torch.logaddexp(alpha, alpha.logsumexp(0, keepdim=True) + leak)
        after = entering.sums(before).add_(frame[lines])
        alpha = after if time < all_alive else torch.where(graphs.beside(lens > time), after, alpha)
        kept.append(alpha)
    total = graphs.total(alpha + graphs.final)
    least = graphs.beside(total.masked_fill(total == -torch.inf, torch.inf))  # no path: no share of any
    beta, leaving = graphs.final.expand(-1, columns), graphs.leaving.beside(columns)
    shares = torch.zeros_like(frames)
    for time in range(len(frames) - 1, -1, -1):
        shares[time].index_add_(0, lines, kept.pop().add_(beta).sub_(least).exp_())
        before = leaving.sums(beta + frames[time][lines])
        if leak is not None and time:
            before = torch.logaddexp(before, (before + leak).logsumexp(0, keepdim=True))
        beta = before if time < all_alive else torch.where(graphs.beside(lens > time), before, beta)
    return Sums(total, shares, torch.ones_like(total, dtype=torch.bool))


@torch.no_grad()
def best_path(log_probs: Tensor, lens: Tensor, graphs: GraphBatch) -> tuple[Tensor, Tensor]:
    """The most likely path of each utterance: its score (N,) nats, and the state behind each frame (N, T).

    States are numbered as in the utterance's own graph, -1 behind its last frame and where no path has so many frames,
    whose score is -inf.
    """
    (frames, lines), columns = graphs.frames(log_probs), 1 if not graphs.shared else len(log_probs)
    entering, alpha, came = graphs.entering.beside(columns), graphs.start.expand(-1, columns).contiguous(), []
    for time, frame in enumerate(frames):
        best, source = entering.best(alpha)
        alive = graphs.beside(lens > time)
        stay = torch.arange(len(alpha), device=alpha.device)[:, None]
        came.append(torch.where(alive, source, stay))
        alpha = torch.where(alive, best + frame[lines], alpha)
    scores, state = graphs.best(alpha + graphs.final)
    path = []
    for time in range(len(frames) - 1, -1, -1):
        path.append(torch.where((lens > time) & scores.isfinite(), state - graphs.first, -1))
        state = came[time][state, torch.arange(columns, device=state.device) if graphs.shared else 0]
    return scores, torch.stack(path[::-1], 1)
