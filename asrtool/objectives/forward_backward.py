"""Sums over all paths of a graph through log-probabilities, with exact gradients: forward-backward in log space.

A graph is states and arcs without epsilons; each arc reads one frame. With alpha_0 = start and, for each frame t,

    alpha_t+1(s) = log sum over arcs a into s of exp(alpha_t(source a) + weight a + log_probs_t(label a))

an utterance of T frames has the score log sum_s exp(alpha_T(s) + final(s)). Its gradient by log_probs_t(v) is the share
of all paths, by their probability, that read v at t; it comes from the same recursion from the right, beta, so that
only alpha is kept: memory is frames x states (Rabiner 1989, section III; Povey et al. 2016, section 2 for the use).

Arcs into a state are laid out as rows of equal width, padded with arcs of weight -inf, in a few widths: dense sums are
much faster than scattered ones, on CPU and GPU alike. Utterances that share one graph are columns beside each other;
utterances with a graph each are one graph without arcs between its parts.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from asrtool.graphs.training import Arcs


@dataclass(frozen=True)
class Rows:
    """All arcs, those of one state side by side.

    The rows of `widths[i]` arcs are those of the states `states[i]`; `arcs` names the arcs of one row after the other.
    """

    arcs: Tensor  # (E,) int64; the arc behind the last one is the padding
    widths: list[int]
    states: list[Tensor]

    @classmethod
    def of(cls, keys: Tensor) -> "Rows":
        """Of arcs by their state, which `keys` (A,) names."""
        order, degree = keys.argsort(stable=True), keys.bincount()
        first, widths, states, arcs = degree.cumsum(0) - degree, [], [], []
        width = 1
        while width < 2 * int(degree.max()):
            chosen = ((degree > width // 2) & (degree <= width)).nonzero()[:, 0]
            if len(chosen):
                place = torch.arange(width, device=keys.device).expand(len(chosen), width)
                real = place < degree[chosen, None]
                index = order[(first[chosen, None] + place).clamp(max=len(keys) - 1)]
                arcs.append(torch.where(real, index, len(keys)).flatten())
                widths.append(width)
                states.append(chosen)
            width *= 2
        return cls(torch.cat(arcs), widths, states)

    def split(self, values: Tensor) -> list[tuple[Tensor, Tensor]]:
        """`values` (E, C) as (states (n,), values of their arcs (n, width, C)) for each width."""
        parts = values.split([len(s) * w for s, w in zip(self.states, self.widths, strict=True)])
        return [(s, part.view(len(s), -1, part.shape[1])) for s, part in zip(self.states, parts, strict=True)]


class GraphBatch:
    """Graphs on a device: one that all utterances share, or one for each utterance in their order.

    Raises ValueError for a graph without arcs.
    """

    def __init__(self, graphs: Arcs | list[Arcs], device: torch.device | str = "cpu"):
        self.shared = isinstance(graphs, Arcs)
        parts = [graphs] if self.shared else graphs
        if not all(len(part.label) for part in parts):
            raise ValueError("a graph has no arcs")
        sizes = torch.tensor([part.states for part in parts])
        first = (sizes.cumsum(0) - sizes).tolist()
        self.owner = torch.arange(len(parts)).repeat_interleave(sizes).to(device)

        def joined(name: str, dtype: torch.dtype, shift: bool = False) -> Tensor:
            values = [torch.from_numpy(getattr(part, name)).to(dtype) for part in parts]
            return torch.cat([v + f if shift else v for v, f in zip(values, first, strict=True)]).to(device)

        self.start, self.final = joined("start", torch.float64), joined("final", torch.float64)
        self.source, self.target = joined("source", torch.int64, True), joined("target", torch.int64, True)
        self.label, self.weight = joined("label", torch.int64), joined("weight", torch.float64)

    @cached_property
    def entering(self) -> Rows:
        """Arcs by the state that they enter."""
        return Rows.of(self.target)

    @cached_property
    def leaving(self) -> Rows:
        """Arcs by the state that they leave."""
        return Rows.of(self.source)

    def along(self, rows: Rows, end: Tensor, units: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Of the arcs in the order of `rows`: the states `end` says, the lines of a frame they read, their weights."""
        line = self.label if self.shared else self.label + self.owner[self.source] * units
        none = line.new_zeros(1)
        weight = torch.cat([self.weight, self.weight.new_full((1,), -torch.inf)]).to(dtype)
        pick = (torch.cat([values, none])[rows.arcs] for values in (end, line))
        return *pick, weight[rows.arcs, None]

    def frames(self, log_probs: Tensor) -> Tensor:
        """log_probs (N, T, V) as (T, lines, columns): arcs read lines; utterances that share a graph are columns."""
        count, total, _ = log_probs.shape
        if self.shared:
            return log_probs.permute(1, 2, 0).contiguous()
        if count != int(self.owner[-1]) + 1:
            raise ValueError(f"{count} utterances, but {int(self.owner[-1]) + 1} graphs")
        return log_probs.transpose(0, 1).reshape(total, -1, 1)

    def unframed(self, values: Tensor, shape: torch.Size) -> Tensor:
        """What `frames` made of (N, T, V), back in that shape."""
        return values.permute(2, 0, 1) if self.shared else values.view(shape[1], shape[0], shape[2]).transpose(0, 1)

    def of_utterances(self, values: Tensor) -> Tensor:
        """Values of utterances (..., N) as they stand beside the states, (..., S or 1, columns)."""
        return values[..., None, :] if self.shared else values[..., self.owner, None]

    def summed(self, scores: Tensor) -> Tensor:
        """The log of the sum over the states of each utterance, (N,); scores (S, columns)."""
        if self.shared:
            return scores.logsumexp(0)
        scores = scores[:, 0]
        most = scores.new_full((int(self.owner[-1]) + 1,), -torch.inf)
        most = most.scatter_reduce(0, self.owner, scores, "amax").nan_to_num(neginf=0.0)
        shares = (scores - most[self.owner]).exp()
        return torch.zeros_like(most).index_add(0, self.owner, shares).log() + most


def path_sum(log_probs: Tensor, lens: Tensor, graphs: GraphBatch, leak: Tensor | None = None) -> Tensor:
    """The score of each utterance's graph, (N,) nats; -inf, and no gradient, where no path has so many frames.

    log_probs (N, T, V) in float32 or float64, which is what is computed in; lens (N,) int64. `leak` (S,), natural logs,
    lets a path go from any state to state s with this weight before every frame but the first (the leaky HMM of Povey
    et al. 2016, section 3.4), for graphs that all utterances share.
    """
    peaks = log_probs.detach().amax(2, keepdim=True)  # kept apart: sums over many frames stay small, and exact
    inside = torch.arange(log_probs.shape[1], device=lens.device) < lens[:, None]
    offset = (peaks[:, :, 0].double() * inside).sum(1).to(log_probs.dtype)
    return _PathSum.apply(log_probs - peaks, lens, graphs, leak) + offset


class _PathSum(torch.autograd.Function):
    @staticmethod
    def forward(context, log_probs: Tensor, lens: Tensor, graphs: GraphBatch, leak: Tensor | None) -> Tensor:
        frames, rows = graphs.frames(log_probs), graphs.entering
        source, line, weight = graphs.along(rows, graphs.source, log_probs.shape[2], frames.dtype)
        alpha = graphs.start.to(frames.dtype)[:, None].expand(-1, frames.shape[2]).contiguous()
        kept, least = [alpha], int(lens.min())
        leak = None if leak is None else leak.to(frames.dtype)[:, None]
        for time, frame in enumerate(frames):
            before = _leaked(alpha, leak) if time else alpha
            scores = before[source].add_(frame[line]).add_(weight)
            after = torch.full_like(alpha, -torch.inf)
            for states, values in rows.split(scores):
                after[states] = values.logsumexp(1)
            alpha = after if time < least else torch.where(graphs.of_utterances(lens > time), after, alpha)
            kept.append(alpha)
        total = graphs.summed(alpha + graphs.final.to(alpha.dtype)[:, None])
        context.graphs, context.leak, context.shape = graphs, leak, log_probs.shape
        context.save_for_backward(frames, lens, total, *kept)
        return total

    @staticmethod
    def backward(context, gradient: Tensor):
        graphs, leak = context.graphs, context.leak
        frames, lens, total, *kept = context.saved_tensors
        rows, least = graphs.leaving, int(lens.min())
        target, line, weight = graphs.along(rows, graphs.target, context.shape[2], frames.dtype)
        total = graphs.of_utterances(total.masked_fill(total == -torch.inf, torch.inf))  # no path: no share of any
        beta = graphs.final.to(frames.dtype)[:, None].expand(-1, frames.shape[2]).contiguous()
        shares = torch.zeros_like(frames)
        for time in range(len(frames) - 1, -1, -1):
            scores = beta[target].add_(frames[time][line]).add_(weight)
            before = _leaked(kept[time], leak) if time else kept[time]
            after = torch.full_like(beta, -torch.inf)
            for states, values in rows.split(scores):
                after[states] = values.logsumexp(1)
                values += (before[states] - (total if graphs.shared else total[states]))[:, None]
            shares[time].index_add_(0, line, scores.exp_())
            if leak is not None and time:
                after = torch.logaddexp(after, (after + leak).logsumexp(0, keepdim=True))
            beta = after if time < least else torch.where(graphs.of_utterances(lens > time), after, beta)
        shares = graphs.unframed(shares, context.shape)
        beyond = torch.arange(len(frames), device=lens.device) >= lens[:, None]
        return shares.masked_fill_(beyond[:, :, None], 0.0) * gradient[:, None, None], None, None, None


def _leaked(alpha: Tensor, leak: Tensor | None) -> Tensor:
    return alpha if leak is None else torch.logaddexp(alpha, alpha.logsumexp(0, keepdim=True) + leak)
