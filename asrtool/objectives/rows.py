"""Sums over the arcs of each state, in log space.

Arcs are laid out as rows of equal width, padded with arcs of weight -inf, in a few widths: dense sums are much faster
than scattered ones, on CPU and GPU alike.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


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
