"""The recursion of scaled.py as CUDA graphs, so that launching its operations does not dominate.

A frame is about ten small operations for each direction: to launch them one by one takes longer than to compute them.
A CUDA graph is a recorded sequence of operations on tensors that stay where they are, launched as a whole. Here it is
the recursion over BLOCK frames: the tensors of a block are copied into the graph's, and the results back.

A graph has fixed sizes. So batches are padded to sizes of a coarse scale, and few graphs serve all batches: with
utterances without frames, with frames of no utterance, and, where each utterance has a graph of its own, with states
and arcs that no path reaches. Where a GPU cannot record them, a warning says so, and each operation is launched.
"""

import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Hashable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from asrtool.device import is_out_of_memory
from asrtool.graphs.training_graphs import FrameGraph
from asrtool.objectives.graph_batch import GraphBatch
from asrtool.objectives.scaled import Frames, PathSums, Recursion, backward_block, forward_block, scaled_sums

logger = logging.getLogger(__name__)

BLOCK = 16  # frames of a graph: a launch for about 200 operations, and at most 15 frames that are padding
MAX_GRAPHS = 32  # that are kept, the latest used: each has tensors of BLOCK frames
STEPS_OF_SCALE = 4  # sizes for each power of two: at most a quarter of a size is padding

Call = Callable[[], object]


def record(function: Call) -> Call:
    """Returns a call that does on the GPU what `function` does, which must only use tensors that stay where they are.

    The function runs once before, so that libraries allocate what they need outside of the recording. Other threads,
    such as one that pins memory, may use the GPU meanwhile.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        function()
    return graph.replay


class CudaGraphs:
    """`scaled_sums` by recorded graphs, which are kept from batch to batch. `record` is replaced in tests alone."""

    def __init__(self, record: Callable[[Call], Call] = record):
        self.record = record
        self.kept: OrderedDict[Hashable, _RecordedBlock] = OrderedDict()
        self.is_broken = False

    def scaled_sums(
        self, emissions: Tensor, state_row: Tensor, lens: Tensor, graphs: GraphBatch, leaky_probs: Tensor | None
    ) -> PathSums:
        """As `scaled.scaled_sums`."""
        if not self.is_broken:
            try:
                return self._padded_sums(emissions, state_row, lens, graphs, leaky_probs)
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                self.is_broken = True
                self.kept.clear()
                logger.warning(f"no CUDA graphs: sums over paths launch each operation ({str(error).splitlines()[0]})")
        return scaled_sums(emissions, state_row, lens, graphs, leaky_probs)

    def _padded_sums(
        self, emissions: Tensor, state_row: Tensor, lens: Tensor, graphs: GraphBatch, leaky_probs: Tensor | None
    ) -> PathSums:
        num_frames, num_rows, num_columns = emissions.shape
        num_padded = padded_size(len(lens) + 1)
        padding_frames = -(num_frames - 1) % BLOCK
        if graphs.is_shared:
            emissions = pad(emissions, (0, num_padded - num_columns, 0, 0, 0, padding_frames))
        else:
            num_units = num_rows // len(lens)
            emissions = pad(emissions, (0, 0, 0, (num_padded - len(lens)) * num_units, 0, padding_frames))
            graphs = pad_graphs(graphs, num_padded)
            state_row = graphs.label + graphs.owner * num_units
        padded_lens = pad(lens, (0, num_padded - len(lens)))
        sums = scaled_sums(emissions, state_row, padded_lens, graphs, leaky_probs, runner=self)
        posteriors = sums.posteriors[:num_frames, :num_rows, :num_columns]
        return PathSums(sums.score[: len(lens)], posteriors, sums.is_exact[: len(lens)])

    def blocks(self, frames: Frames, shortest: int) -> list[Frames]:
        """The first frame, and blocks of BLOCK frames: the number of the others is a multiple."""
        first = frames.part(0, 1, all_active=True)
        return [first, *(frames.part(start, start + BLOCK) for start in range(1, len(frames.probs), BLOCK))]

    def forward(self, recursion: Recursion, block: Frames) -> None:
        """`forward_block`."""
        if len(block.probs) == 1:
            forward_block(recursion, block)
        else:
            self._recorded(recursion, block).forward(block)

    def backward(self, recursion: Recursion, block: Frames, beta: Tensor) -> Tensor:
        """`backward_block`."""
        if len(block.probs) == 1:
            return backward_block(recursion, block, beta)
        return self._recorded(recursion, block).backward(block, beta)

    def _recorded(self, recursion: Recursion, block: Frames) -> "_RecordedBlock":
        """The graph for the sizes of a block, which is recorded where there is none yet."""
        graphs = recursion.graphs
        sizes = (*block.probs.shape, len(graphs.label), graphs.incoming_matrix.values().numel(), graphs.num_graphs)
        # The kept block has a shared graph: no other has its id meanwhile.
        key = (sizes, recursion.leaky_probs is None, id(graphs) if graphs.is_shared else None)
        if key not in self.kept:
            self.kept[key] = _RecordedBlock(recursion, block, self.record)
            if len(self.kept) > MAX_GRAPHS:
                self.kept.popitem(last=False)
        self.kept.move_to_end(key)
        self.kept[key].use(recursion)
        return self.kept[key]


class _RecordedBlock:
    """The recursion over a block, in both directions, on tensors of its own."""

    def __init__(self, recursion: Recursion, block: Frames, record: Callable[[Call], Call]):
        self.current = recursion  # whose values the tensors have now
        self.recursion = _copy_recursion(recursion)
        assert block.is_active is not None  # see CudaGraphs.blocks
        self.is_active = torch.zeros_like(block.is_active)
        self.frames = Frames(
            probs=torch.zeros_like(block.probs),
            is_active=self.is_active,
            alphas=torch.zeros_like(block.alphas),
            sums=torch.zeros_like(block.sums),
            posteriors=torch.zeros_like(block.posteriors),
            inverse_sums=torch.zeros_like(block.inverse_sums),
        )
        self.beta = torch.zeros_like(block.alphas[0])
        self._forward = record(lambda: forward_block(self.recursion, self.frames))
        self._backward = record(self._run_backward)

    def _run_backward(self) -> None:
        self.frames.posteriors.zero_()
        self.beta.copy_(backward_block(self.recursion, self.frames, self.beta))

    def use(self, recursion: Recursion) -> None:
        """Copies the tensors of a recursion of the same sizes into those that the recording has."""
        if recursion is self.current:
            return
        for own, other in zip(_tensors(self.recursion), _tensors(recursion), strict=True):
            if own is not other:
                own.copy_(other)
        self.current = recursion

    def forward(self, block: Frames) -> None:
        """`forward_block`."""
        self._load(block)
        self.frames.alphas[0] = block.alphas[0]
        self._forward()
        block.alphas[1:] = self.frames.alphas[1:]
        block.sums.copy_(self.frames.sums)

    def backward(self, block: Frames, beta: Tensor) -> Tensor:
        """`backward_block`; the result is overwritten by the next block."""
        self._load(block)
        self.frames.alphas.copy_(block.alphas)
        self.beta.copy_(beta)
        self._backward()
        block.posteriors.copy_(self.frames.posteriors)
        block.inverse_sums.copy_(self.frames.inverse_sums)
        return self.beta

    def _load(self, block: Frames) -> None:
        assert block.is_active is not None
        self.frames.probs.copy_(block.probs)
        self.is_active.copy_(block.is_active)


def _tensors(recursion: Recursion) -> list[Tensor]:
    """The tensors of a recursion that may differ from batch to batch."""
    tensors = [] if recursion.leaky_probs is None else [recursion.leaky_probs]
    graphs = recursion.graphs
    if not graphs.is_shared:
        tensors += [recursion.state_row, graphs.owner]
        for matrix in (graphs.incoming_matrix, graphs.outgoing_matrix):
            tensors += [matrix.crow_indices(), matrix.col_indices(), matrix.values()]
    return tensors


def _copy_recursion(recursion: Recursion) -> Recursion:
    """The same recursion, whose `_tensors` are copies."""
    graphs = recursion.graphs
    leaky_probs = None if recursion.leaky_probs is None else recursion.leaky_probs.clone()
    if graphs.is_shared:
        return Recursion(graphs, recursion.state_row, leaky_probs)
    copy = GraphBatch(graphs.parts, graphs.device, graphs.dtype)
    return Recursion(copy, recursion.state_row.clone(), leaky_probs)


def padded_size(size: int) -> int:
    """The next size of a scale with STEPS_OF_SCALE sizes for each power of two."""
    step = max(1, (1 << (size.bit_length() - 1)) // STEPS_OF_SCALE)
    return -(-size // step) * step


def pad_graphs(graphs: GraphBatch, num_graphs: int) -> GraphBatch:
    """The graphs of utterances, followed by graphs that accept nothing, `num_graphs` in all, at least one more.

    The last one pads states and arcs to sizes of the scale. Arcs between the same states count as one: they are one
    value of the matrices.
    """
    num_states = sum(part.num_states for part in graphs.parts)
    pairs = graphs.source.numpy() * num_states + graphs.target.numpy()
    num_arcs = len(np.unique(pairs))
    num_single = num_graphs - len(graphs.parts) - 1  # padding graphs of one state, besides the last one
    num_padded_arcs = padded_size(num_arcs + num_single + 1) - num_arcs - num_single  # of the last graph, at least 1
    fewest_states = math.isqrt(num_padded_arcs - 1) + 1  # so many pairs of states there must be
    num_padded_states = padded_size(num_states + num_single + fewest_states) - num_states - num_single
    padding = [_impossible_graph(1, 1)] * num_single + [_impossible_graph(num_padded_states, num_padded_arcs)]
    return GraphBatch([*graphs.parts, *padding], graphs.device, graphs.dtype)


def _impossible_graph(num_states: int, num_arcs: int) -> FrameGraph:
    """A graph that accepts nothing, with arcs between different pairs of states."""
    arcs = np.arange(num_arcs)
    return FrameGraph(
        start=np.full(num_states, -np.inf),
        final=np.full(num_states, -np.inf),
        label=np.zeros(num_states, np.int64),
        source=arcs // num_states,
        target=arcs % num_states,
        weight=np.full(num_arcs, -np.inf),
        unit_state=np.zeros(num_states, np.int64),
    )
