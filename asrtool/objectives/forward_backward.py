"""Sums over all paths of a graph through log-probabilities, with exact gradients: forward-backward in log space.

A graph is states and arcs without epsilons (`asrtool.graphs.training.Arcs`); whoever enters a state reads a frame. With
alpha_0 = start and, for each frame t,

    alpha_t+1(s) = log_probs_t(label s) + log sum over arcs a into s of exp(alpha_t(source a) + weight a)

an utterance of T frames has the score log sum_s exp(alpha_T(s) + final(s)). Its gradient by log_probs_t(v) is the share
of all paths, by their probability, that read v at t: the sum of exp(alpha_t+1(s) + beta_t+1(s) - score) over the states
of label v, where beta is the same recursion from the right (Rabiner 1989, section III). Only alpha is kept, so that
memory is frames x states.

Arcs of a state are laid out as rows of equal width, padded with arcs of weight -inf, in a few widths: dense sums are
much faster than scattered ones, on CPU and GPU alike. Utterances that share one graph are columns beside each other;
utterances with a graph each are one graph without arcs between its parts.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from asrtool.graphs.training import Arcs


@dataclass(frozen=True)
class Rows:
    """Arcs by the state at one of their ends: `sums` adds up, for each state, what the states at the other ends have.

    Row after row, first those of `widths[0]` arcs, of the states `states[0]`, and so on.
    """

    others: Tensor  # (E,) int64: the state at the other end
    weights: Tensor  # (E, 1) or, of columns, (E, C)
    widths: list[int]
    states: list[Tensor]

    @classmethod
    def of(cls, keys: Tensor, others: Tensor, weights: Tensor) -> "Rows":
        """Of arcs between the states `keys`, which are added up for, and `others`; all (A,)."""
        order, degree = keys.argsort(stable=True), keys.bincount()
        first, widths, states, index = degree.cumsum(0) - degree, [], [], []
        width = 1
        while width < 2 * int(degree.max()):
            chosen = ((degree > width // 2) & (degree <= width)).nonzero()[:, 0]
            if len(chosen):
                place = torch.arange(width, device=keys.device).expand(len(chosen), width)
                arcs = order[(first[chosen, None] + place).clamp(max=len(keys) - 1)]
                index.append(torch.where(place < degree[chosen, None], arcs, len(keys)).flatten())
                widths.append(width)
                states.append(chosen)
            width *= 2
        index = torch.cat(index)  # the arc behind the last one is the padding
        others, weights = torch.cat([others, others[:1]]), torch.cat([weights, weights.new_full((1,), -torch.inf)])
        return cls(others[index], weights[index, None], widths, states)

    def beside(self, columns: int) -> "Rows":
        """The same with the weights of so many columns: adding them up is quick where they lie side by side."""
        return replace(self, weights=self.weights.expand(-1, columns).contiguous())

    def sums(self, values: Tensor) -> Tensor:
        """(S, C), in the log domain, from `values` (S, C); -inf for a state without arcs."""
        sums = torch.full_like(values, -torch.inf)
        sizes = [len(states) * width for states, width in zip(self.states, self.widths, strict=True)]
        parts = values.index_select(0, self.others).add_(self.weights).split(sizes)
        for states, width, part in zip(self.states, self.widths, parts, strict=True):
            sums[states] = part.view(len(states), width, -1).logsumexp(1) if width > 1 else part
        return sums

    def best(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """(S, C), the best of what `sums` adds up, and the state at the other end that it comes from."""
        best, source = torch.full_like(values, -torch.inf), torch.zeros_like(values, dtype=torch.int64)
        at = 0
        for states, width in zip(self.states, self.widths, strict=True):
            rows = slice(at, at := at + len(states) * width)
            others = self.others[rows].view(-1, width)
            scores = (values[self.others[rows]] + self.weights[rows]).view(len(states), width, -1)
            best[states], place = scores.max(1)
            source[states] = others.gather(1, place)
        return best, source


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

    def of_utterances(self, values: Tensor) -> Tensor:
        """Values of utterances (N,) as they stand beside scores of states, (1, N) or (S, 1)."""
        return values[None] if self.shared else values[self.owner, None]

    def total(self, scores: Tensor) -> Tensor:
        """The log of the sum over the states of each utterance, (N,); scores (S, columns)."""
        if self.shared:
            return scores.logsumexp(0)
        scores = scores[:, 0]
        most = scores.new_full((self.count,), -torch.inf).scatter_reduce(0, self.owner, scores, "amax")
        most = most.nan_to_num(neginf=0.0)
        return torch.zeros_like(most).index_add(0, self.owner, (scores - most[self.owner]).exp()).log() + most

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
    peaks = log_probs.detach().amax(2, keepdim=True)  # kept apart: sums over many frames stay small, and exact
    inside = torch.arange(log_probs.shape[1], device=lens.device) < lens[:, None]
    offset = (peaks[:, :, 0].double() * inside).sum(1).to(log_probs.dtype)
    return _PathSum.apply(log_probs - peaks, lens, graphs, None if leak is None else leak[:, None]) + offset


class _PathSum(torch.autograd.Function):
    @staticmethod
    def forward(context, log_probs: Tensor, lens: Tensor, graphs: GraphBatch, leak: Tensor | None) -> Tensor:
        (frames, lines), all_alive = graphs.frames(log_probs), int(lens.min())
        alpha = graphs.start.expand(-1, frames.shape[2]).contiguous()
        kept, entering = [], graphs.entering.beside(frames.shape[2])
        for time, frame in enumerate(frames):
            before = alpha
            if leak is not None and time:
                before = torch.logaddexp(alpha, alpha.logsumexp(0, keepdim=True) + leak)
            after = entering.sums(before).add_(frame[lines])
            alpha = after if time < all_alive else torch.where(graphs.of_utterances(lens > time), after, alpha)
            kept.append(alpha)
        total = graphs.total(alpha + graphs.final)
        context.graphs, context.leak, context.shape = graphs, leak, log_probs.shape
        context.save_for_backward(frames, lines, lens, total, *kept)
        return total

    @staticmethod
    def backward(context, gradient: Tensor):
        graphs, leak = context.graphs, context.leak
        frames, lines, lens, total, *kept = context.saved_tensors
        all_alive, leaving = int(lens.min()), graphs.leaving.beside(frames.shape[2])
        total = graphs.of_utterances(total.masked_fill(total == -torch.inf, torch.inf))  # no path: no share of any
        beta = graphs.final.expand(-1, frames.shape[2])
        shares = torch.zeros_like(frames)
        for time in range(len(frames) - 1, -1, -1):
            shares[time].index_add_(0, lines, (kept[time] + beta - total).exp_())
            before = leaving.sums(beta + frames[time][lines])
            if leak is not None and time:
                before = torch.logaddexp(before, (before + leak).logsumexp(0, keepdim=True))
            beta = before if time < all_alive else torch.where(graphs.of_utterances(lens > time), before, beta)
        beyond = torch.arange(len(frames), device=lens.device) >= lens[:, None]
        shares = graphs.unframed(shares, context.shape).masked_fill(beyond[:, :, None], 0.0)
        return shares * gradient[:, None, None], None, None, None


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
        alive = graphs.of_utterances(lens > time)
        stay = torch.arange(len(alpha), device=alpha.device)[:, None]
        came.append(torch.where(alive, source, stay))
        alpha = torch.where(alive, best + frame[lines], alpha)
    scores, state = graphs.best(alpha + graphs.final)
    path = []
    for time in range(len(frames) - 1, -1, -1):
        path.append(torch.where((lens > time) & scores.isfinite(), state - graphs.first, -1))
        state = came[time][state, torch.arange(columns, device=state.device) if graphs.shared else 0]
    return scores, torch.stack(path[::-1], 1)
