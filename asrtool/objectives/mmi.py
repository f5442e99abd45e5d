"""Lattice-free maximum mutual information (Povey et al. 2016), on the sums of forward_backward.py."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from asrtool.config import ObjectiveConfig
from asrtool.data.batch import Batch
from asrtool.graphs.context import add_context, phone_graph
from asrtool.graphs.training_graphs import FrameGraph, expand_topology
from asrtool.graphs.unit_ngram import UnitNgram
from asrtool.objectives.ce import CrossEntropy
from asrtool.objectives.cuda_graphs import CudaGraphs
from asrtool.objectives.forward_backward import WeightedGraphs, path_sums
from asrtool.objectives.full_sum import (
    IMPOSSIBLE_GRAPH,
    FullSum,
    topology_min_frames,
    transcript_sum,
    usable_loss,
)
from asrtool.objectives.graph_batch import GraphBatch
from asrtool.objectives.objective import Objective
from asrtool.text.tokenizer import Tokenizer

OCCUPANCY_STEPS = 100  # of a random walk through the denominator graph, as in Kaldi; it forgets where it started
MIN_OCCUPANCY = 1e-30  # of a state that the walk never visits


class Mmi(Objective):
    """Lattice-free MMI: the denominator log-likelihood minus the numerator log-likelihood of each utterance, in nats.

    The denominator graph is an n-gram over units, or over phones if units are phones in context. The numerator graph
    is the transcript, with all pronunciations that the tokenizer's lexicon has, and optional silence if
    `config.optional_silence` is above 0, under the same n-gram weights: a part of the denominator, so that the loss is
    never negative. (Only a pronunciation that is never the usual one of a word may be missing there.)
    `config.leaky_hmm` is the leaky-HMM coefficient of the denominator (section 3.4): between two frames, a path may go
    to any state, with a weight of this coefficient times the state's occupancy. `config.ctc_weight` and
    `config.ce_weight` are the weights of `transcript_sum` and of `cross_entropy`, which are added.
    """

    def __init__(
        self,
        config: ObjectiveConfig,
        tokenizer: Tokenizer,
        ngram: UnitNgram,
        device: torch.device,
        cross_entropy: CrossEntropy | None = None,
    ):
        self.config = config
        self.tokenizer = tokenizer
        self.ngram = ngram
        self.denominator = expand_topology(add_context(ngram.denominator_graph(), tokenizer), config.topology)
        self.denominator_batch = GraphBatch(self.denominator, device)
        self.cuda_graphs = CudaGraphs() if device.type == "cuda" else None
        self.leaky_weights: Tensor | None = None  # (S,) natural logs
        if config.leaky_hmm:
            occupancy = state_occupancy(self.denominator)
            self.leaky_weights = torch.from_numpy(np.log(config.leaky_hmm * occupancy)).float().to(device)
        self.added: list[tuple[float, Objective]] = []
        self.full_sums: list[tuple[float, FullSum]] = []  # added as well, but computed with the other sums over paths
        if config.ctc_weight:
            objective = transcript_sum(config, tokenizer)
            if isinstance(objective, FullSum):
                self.full_sums.append((config.ctc_weight, objective))
            else:
                self.added.append((config.ctc_weight, objective))
        if config.ce_weight:
            if cross_entropy is None:
                raise ValueError("objective.ce_weight needs a CrossEntropy")
            self.added.append((config.ce_weight, cross_entropy))

    def __str__(self) -> str:
        graph = self.denominator
        return f"mmi: the denominator graph has {graph.num_states:,} states and {graph.num_arcs:,} arcs"

    def min_frames(self, units: Sequence[int]) -> int:
        """The fewest output frames to which `units` can be aligned."""
        return topology_min_frames(units, self.config.topology)

    def __call__(self, log_probs: Tensor, out_lens: Tensor, batch: Batch) -> Tensor:
        """(N,) nats; 0 for an utterance without units, or with fewer frames than `min_frames`."""
        with torch.autocast(log_probs.device.type, enabled=False):
            log_probs = log_probs.float()
            device = log_probs.device
            terms = [
                WeightedGraphs(self.denominator_batch, self.leaky_weights),
                WeightedGraphs(self.numerators(batch, device)),
                *(WeightedGraphs(full_sum.graphs(batch, device)) for _, full_sum in self.full_sums),
            ]
            denominator, numerator, *scores = path_sums(log_probs, out_lens, terms, self.cuda_graphs)
            loss = usable_loss(denominator - numerator, numerator)
            for (weight, _), score in zip(self.full_sums, scores, strict=True):
                loss = loss + weight * usable_loss(-score, score)
        return loss + sum(weight * objective(log_probs, out_lens, batch) for weight, objective in self.added)

    def numerators(self, batch: Batch, device: torch.device) -> GraphBatch:
        """The numerator graph of each utterance."""
        graphs = [
            self._numerator(text) if num_units else IMPOSSIBLE_GRAPH
            for text, num_units in zip(batch.texts, batch.target_lens.tolist(), strict=True)
        ]
        return GraphBatch(graphs, device)

    def _numerator(self, text: str) -> FrameGraph:
        transcript = phone_graph(self.tokenizer, text, silence=self.config.optional_silence > 0)
        graph = add_context(self.ngram.compose(transcript), self.tokenizer)
        return expand_topology(graph, self.config.topology)


def state_occupancy(graph: FrameGraph) -> np.ndarray:
    """The share of time that a random walk of OCCUPANCY_STEPS steps spends in each state of `graph`, (S,), sum 1.

    In each state, arcs are taken in proportion to their weights.
    """
    from scipy.sparse import csr_array

    weight = np.exp(graph.weight)
    leaving = np.bincount(graph.source, weight, graph.num_states)
    probability = weight / leaving[graph.source]
    transitions = csr_array((probability, (graph.target, graph.source)), shape=(graph.num_states, graph.num_states))
    occupancy = np.exp(graph.start) / np.exp(graph.start).sum()
    total = np.zeros_like(occupancy)
    for _ in range(OCCUPANCY_STEPS):
        occupancy = transitions @ occupancy
        total += occupancy
    return np.maximum(total / total.sum(), MIN_OCCUPANCY)
