"""The frame graphs of a batch as tensors, in one of two layouts.

One graph for all utterances: scores of states are (S, N), a column for each utterance.
A graph for each utterance: all graphs are one graph without arcs between its parts; scores of states are (S, 1), where
S counts the states of all graphs.

Both are (S, C) below, with C the number of columns.
"""

import warnings
from collections.abc import Iterable
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from asrtool.device import to_device
from asrtool.graphs.training_graphs import FrameGraph
from asrtool.objectives.arc_table import ArcTable


class GraphBatch:
    """Graphs on a device: one that all utterances share, or a list with one for each utterance in their order.

    The shapes have S states, A arcs, N utterances and V labels; the module describes C, and `emissions` R. Tensors are
    built on the host, and copied without waiting for the device. Raises ValueError for a graph without arcs.
    """

    def __init__(
        self,
        graphs: FrameGraph | list[FrameGraph],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        self.is_shared = isinstance(graphs, FrameGraph)
        parts = [graphs] if isinstance(graphs, FrameGraph) else graphs
        if not all(part.num_arcs for part in parts):
            raise ValueError("a graph has no arcs")
        self.parts = parts
        self.num_graphs = len(parts)
        self.device = torch.device(device)
        self.dtype = dtype
        num_states = np.array([part.num_states for part in parts])
        offsets = num_states.cumsum() - num_states  # the first state of each graph
        owners = np.arange(self.num_graphs).repeat(num_states)
        self.owner = to_device(torch.from_numpy(owners), self.device)  # (S,) graph that a state belongs to

        def joined(arrays: Iterable[np.ndarray], joined_dtype: torch.dtype) -> Tensor:
            return torch.from_numpy(np.concatenate(list(arrays))).to(joined_dtype)

        self.start = to_device(joined((part.start for part in parts), dtype)[:, None], self.device)  # (S, 1) logs
        self.final = to_device(joined((part.final for part in parts), dtype)[:, None], self.device)  # (S, 1)
        self.start_prob = self.start.double().exp()
        self.final_prob = self.final.double().exp()
        self.label = to_device(joined((part.label for part in parts), torch.int64), self.device)  # (S,)
        pairs = list(zip(parts, offsets, strict=True))
        # On the host
        self.source = joined((part.source + offset for part, offset in pairs), torch.int64)  # (A,)
        self.target = joined((part.target + offset for part, offset in pairs), torch.int64)  # (A,)
        self.weight = joined((part.weight for part in parts), dtype)  # (A,) natural logs

    @cached_property
    def incoming(self) -> ArcTable:
        """Arcs by the state that they enter."""
        return self._arc_table(self.target, self.source)

    @cached_property
    def outgoing(self) -> ArcTable:
        """Arcs by the state that they leave."""
        return self._arc_table(self.source, self.target)

    def _arc_table(self, state: Tensor, other_state: Tensor) -> ArcTable:
        arcs = (state, other_state, self.weight)
        return ArcTable.group(*(to_device(tensor, self.device) for tensor in arcs))

    @cached_property
    def incoming_matrix(self) -> Tensor:
        """The arcs' probabilities as a sparse matrix (S, S), a row for each target."""
        return self._matrix(self.target, self.source)

    @cached_property
    def outgoing_matrix(self) -> Tensor:
        """The arcs' probabilities as a sparse matrix (S, S), a row for each source."""
        return self._matrix(self.source, self.target)

    def _matrix(self, rows: Tensor, columns: Tensor) -> Tensor:
        size = (len(self.label), len(self.label))
        with warnings.catch_warnings(action="ignore"):  # torch warns that its CSR layout is in beta
            matrix = torch.sparse_coo_tensor(torch.stack([rows, columns]), self.weight.double().exp(), size)
            matrix = matrix.coalesce().to_sparse_csr()
            # int32, as the libraries for sparse products have them: int64 would be converted in each product
            crow_indices = to_device(matrix.crow_indices().int(), self.device)
            col_indices = to_device(matrix.col_indices().int(), self.device)
            return torch.sparse_csr_tensor(crow_indices, col_indices, to_device(matrix.values(), self.device), size)

    def emissions(self, log_probs: Tensor) -> tuple[Tensor, Tensor]:
        """log_probs (N, T, V) as emissions (T, R, C), and the row of each state, (S,).

        A shared graph: R = V rows, C = N columns. A graph for each utterance: R = N * V rows, one column.
        """
        count, frames, units = log_probs.shape
        if self.is_shared:
            return log_probs.permute(1, 2, 0).contiguous(), self.label  # (T, V, N)
        if count != self.num_graphs:
            raise ValueError(f"{count} utterances, but {self.num_graphs} graphs")
        emissions = log_probs.transpose(0, 1).reshape(frames, -1, 1)  # (T, N * V, 1)
        return emissions, self.label + self.owner * units

    def emissions_to_batch(self, values: Tensor, shape: torch.Size) -> Tensor:
        """Values in the layout of `emissions`, (T, R, C), back in `shape`, (N, T, V)."""
        if self.is_shared:
            return values.permute(2, 0, 1)  # (T, V, N) -> (N, T, V)
        count, frames, units = shape
        return values.view(frames, count, units).transpose(0, 1)  # (T, N * V, 1) -> (T, N, V) -> (N, T, V)

    def per_state(self, values: Tensor) -> Tensor:
        """Values of utterances (N,) so that they broadcast with scores of states: (1, N), or (S, 1)."""
        return values[None] if self.is_shared else values[self.owner, None]

    def sum_states(self, values: Tensor) -> Tensor:
        """The sum over the states of each utterance: (S, C) to (N,)."""
        if self.is_shared:
            return values.sum(0)
        return values.new_zeros(self.num_graphs).index_add_(0, self.owner, values[:, 0])

    def logsumexp_states(self, scores: Tensor) -> Tensor:
        """The log of the sum of exp over the states of each utterance: (S, C) to (N,)."""
        if self.is_shared:
            return scores.logsumexp(0)
        best = scores.new_full((self.num_graphs,), -torch.inf).scatter_reduce(0, self.owner, scores[:, 0], "amax")
        best = best.nan_to_num(neginf=0.0)
        return self.sum_states((scores - self.per_state(best)).exp()).log() + best
