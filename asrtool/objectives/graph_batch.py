"""Graphs of a batch, side by side, as tensors."""

import warnings
from functools import cached_property

import torch
from torch import Tensor

from asrtool.graphs.training_graphs import Arcs
from asrtool.objectives.rows import Rows


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
