"""The full sum over the alignments of a transcript: CTC with other topologies, all pronunciations, and silence."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from asrtool.config import ObjectiveConfig
from asrtool.data.batch import Batch
from asrtool.graphs.context import transcript_graph
from asrtool.graphs.training_graphs import FrameGraph, Topology, expand_topology
from asrtool.objectives.ctc import Ctc, min_frames
from asrtool.objectives.cuda_graphs import CudaGraphs
from asrtool.objectives.forward_backward import WeightedGraphs, path_sums
from asrtool.objectives.graph_batch import GraphBatch
from asrtool.objectives.objective import Objective
from asrtool.text.tokenizer import Tokenizer

IMPOSSIBLE_GRAPH = FrameGraph(  # accepts nothing: the numerator of an utterance without units
    start=np.full(1, -np.inf),
    final=np.full(1, -np.inf),
    label=np.zeros(1, np.int64),
    source=np.zeros(1, np.int64),
    target=np.zeros(1, np.int64),
    weight=np.full(1, -np.inf),
    unit_state=np.zeros(1, np.int64),
)


def topology_min_frames(units: Sequence[int], topology: Topology) -> int:
    """Returns the fewest output frames to which `units` can be aligned."""
    return min_frames(units) if topology == "ctc" else len(units)


def transcript_sum(config: ObjectiveConfig, tokenizer: Tokenizer) -> Objective:
    """Returns the objective that sums over the alignments of transcripts: CTC, or `FullSum` where CTC is not enough."""
    if config.topology == "hmm" or config.optional_silence:
        return FullSum(config, tokenizer)
    return Ctc()


def usable_loss(loss: Tensor, score: Tensor) -> Tensor:
    """Returns losses (N,) with 0, and no gradient, where the loss or the numerator's score (N,) is infinite.

    No path of the numerator, or of the denominator, has the frames of such an utterance.
    """
    return torch.where(loss.isinf() | score.isinf(), 0.0, loss)


class FullSum(Objective):
    """Negative log-likelihood of each utterance, summed over all alignments of its transcript, in nats.

    As CTC (Graves et al. 2006), but for any topology, with all pronunciations and optional silence: full-sum training
    of Zeyer et al. (2017), "CTC in the context of generalized full-sum HMM training". All alignments have the same
    weight.
    """

    def __init__(self, config: ObjectiveConfig, tokenizer: Tokenizer):
        self.topology: Topology = config.topology
        self.has_silence = config.optional_silence > 0
        self.tokenizer = tokenizer
        self.cuda_graphs = CudaGraphs()

    def __str__(self) -> str:
        silence = ", with optional silence" if self.has_silence else ""
        return f"ctc: full sum over the alignments of topology {self.topology}{silence}"

    def min_frames(self, units: Sequence[int]) -> int:
        """The fewest output frames to which `units` can be aligned."""
        return topology_min_frames(units, self.topology)

    def __call__(self, log_probs: Tensor, out_lens: Tensor, batch: Batch) -> Tensor:
        """(N,) nats; 0 for an utterance without units, or with fewer frames than any alignment has."""
        with torch.autocast(log_probs.device.type, enabled=False):
            log_probs = log_probs.float()
            terms = [WeightedGraphs(self.graphs(batch, log_probs.device))]
            (score,) = path_sums(log_probs, out_lens, terms, self.cuda_graphs if log_probs.is_cuda else None)
            return usable_loss(-score, score)

    def graphs(self, batch: Batch, device: torch.device) -> GraphBatch:
        """The graph of each transcript."""
        graphs = [
            self._graph(text) if num_units else IMPOSSIBLE_GRAPH
            for text, num_units in zip(batch.texts, batch.target_lens.tolist(), strict=True)
        ]
        return GraphBatch(graphs, device)

    def _graph(self, text: str) -> FrameGraph:
        graph = transcript_graph(self.tokenizer, text, self.has_silence)
        return expand_topology(graph, self.topology)
