"""Log-sums over the arcs of each state.

Arcs are laid out as table rows of equal width, padded with arcs of weight -inf, in a few widths: dense sums are much
faster than scattered ones, on CPU and GPU alike.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class ArcTable:
    """E arcs, padding included, grouped by the state at one end.

    The first `len(states[0])` rows have `widths[0]` arcs each and belong to the states `states[0]`, and so on.
    """

    other_state: Tensor  # (E,) int64: the state at the other end
    weight: Tensor  # (E, 1), or (E, C) after `with_columns`
    widths: list[int]
    states: list[Tensor]

    @classmethod
    def group(cls, state: Tensor, other_state: Tensor, weight: Tensor) -> "ArcTable":
        """The table of arcs (A,) by `state`, with `other_state` at the other end."""
        order = state.argsort(stable=True)
        degree = state.bincount()
        first = degree.cumsum(0) - degree
        widths: list[int] = []
        states: list[Tensor] = []
        indices: list[Tensor] = []
        width = 1
        while width < 2 * int(degree.max()):
            chosen = ((degree > width // 2) & (degree <= width)).nonzero()[:, 0]
            if len(chosen):
                column = torch.arange(width, device=state.device).expand(len(chosen), width)
                arcs = order[(first[chosen, None] + column).clamp(max=len(state) - 1)]
                padding = len(state)  # the arc behind the last one
                indices.append(torch.where(column < degree[chosen, None], arcs, padding).flatten())
                widths.append(width)
                states.append(chosen)
            width *= 2
        index = torch.cat(indices)
        other_state = torch.cat([other_state, other_state[:1]])
        weight = torch.cat([weight, weight.new_full((1,), -torch.inf)])
        return cls(other_state=other_state[index], weight=weight[index, None], widths=widths, states=states)

    def with_columns(self, num_columns: int) -> "ArcTable":
        """The same table with its weights repeated in each column: adding contiguous tensors is faster."""
        return replace(self, weight=self.weight.expand(-1, num_columns).contiguous())

    def logsumexp(self, scores: Tensor) -> Tensor:
        """For each state, log sum exp of weight + score of the state at the other end; -inf for a state without arcs.

        scores (S, C); returns (S, C).
        """
        sums = torch.full_like(scores, -torch.inf)
        sizes = [len(states) * width for states, width in zip(self.states, self.widths, strict=True)]
        parts = scores.index_select(0, self.other_state).add_(self.weight).split(sizes)
        for states, width, part in zip(self.states, self.widths, parts, strict=True):
            if width > 1:
                part = part.view(len(states), width, -1).logsumexp(1)  # (rows, W, C) -> (rows, C)
            sums[states] = part
        return sums
