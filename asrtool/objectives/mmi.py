"""Lattice-free maximum mutual information (Povey et al. 2016), on the sums of forward_backward.py."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from asrtool.config import Objective
from asrtool.data.batch import Batch
from asrtool.graphs.training_graphs import Arcs, UnitNgram, over_frames, said
from asrtool.objectives.ce import CrossEntropy
from asrtool.objectives.ctc import Ctc
from asrtool.objectives.forward_backward import path_sum
from asrtool.objectives.graph_batch import GraphBatch
from asrtool.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    import k2

STEPS = 100  # of a walk through the graph, as many as Kaldi takes: it forgets where it started


class Mmi:
    """-ln of what was said beside all that could be said: the share of its paths in those of a unit n-gram.

    What was said allows all pronunciations that the tokenizer's lexicon has, if it has one, and carries the n-gram's
    weights, so that it is a part of what could be said and the loss is not negative. `config.leaky_hmm` is the weight of
    a jump from any state to any other between two frames, spread as a walk through the graph spreads (section 3.4);
    `config.ctc_weight` adds so much of the CTC loss, which keeps units in their places, `config.ce_weight` of `cross_entropy`.
    """

    intermediate = 0.0  # see asrtool/objectives/objective.py

    def __init__(
        self,
        config: Objective,
        tokenizer: Tokenizer,
        ngram: UnitNgram,
        device: torch.device,
        cross_entropy: CrossEntropy | None = None,
    ):
        self.config, self.tokenizer, self.ngram = config, tokenizer, ngram
        could = over_frames(ngram.graph(), config.topology)
        self.batch, self.sum, self.size = GraphBatch, path_sum, (could.states, len(could.source))
        self.could = self.batch(could, device)
        self.leak = None
        if config.leaky_hmm:
            self.leak = torch.from_numpy(np.log(config.leaky_hmm * visits(could))).float().to(device)
        self.ctc = Ctc()
        others = (config.ctc_weight, self.ctc), (config.ce_weight, cross_entropy)
        self.others = [(weight, objective) for weight, objective in others if weight]

    def __str__(self) -> str:
        return "mmi: what could be said has {:,} states and {:,} arcs".format(*self.size)

    def frames_needed(self, units: list[int]) -> int:
        """The fewest output frames that can spell `units`."""
        return len(units) if self.config.topology == "modified" else self.ctc.frames_needed(units)

    def __call__(self, log_probs: Tensor, out_lens: Tensor, batch: Batch) -> Tensor:
        """(N,) nats; 0 for an utterance that has no units, or more than its frames can spell."""
        with torch.autocast(log_probs.device.type, enabled=False):
            log_probs = log_probs.float()
            loss = self.sum(log_probs, out_lens, self.could, self.leak)
            loss = loss - self.sum(log_probs, out_lens, self.spoken(batch, log_probs.device))
            loss = torch.where(loss.isinf(), 0.0, loss)
        return loss + sum(weight * objective(log_probs, out_lens, batch) for weight, objective in self.others)

    def spoken(self, batch: Batch, device: torch.device) -> "GraphBatch | k2.Fsa":
        """What was said, of each utterance."""
        rows = zip(batch.texts, batch.targets.tolist(), batch.target_lens.tolist(), strict=True)
        return self.batch([self._spoken(text, units[:count]) for text, units, count in rows], device)

    def _spoken(self, text: str, units: list[int]) -> Arcs:
        if not units:
            return UNSPEAKABLE
        return over_frames(self.ngram.weighted(said(self.tokenizer.alternatives(text))), self.config.topology)


# A graph that no utterance goes through.
UNSPEAKABLE = Arcs(
    *(np.full(1, -np.inf) for _ in "se"),
    *(np.zeros(1, np.int64) for _ in "lst"),
    np.full(1, -np.inf),
    np.zeros(1, np.int64),
)


def visits(graph: Arcs) -> np.ndarray:
    """How often a walk through `graph` is in each state, (S,), adding up to 1: its first STEPS steps, on average.

    Arcs are taken by their weights, which are made to add up to 1 in each state.
    """
    from scipy.sparse import csr_array

    chance = np.exp(graph.weight)
    leaving = np.bincount(graph.source, chance, graph.states)
    step = csr_array((chance / leaving[graph.source], (graph.target, graph.source)), shape=(graph.states,) * 2)
    at = np.exp(graph.start) / np.exp(graph.start).sum()
    total = np.zeros_like(at)
    for _ in range(STEPS):
        at = step @ at
        total += at
    return np.maximum(total / total.sum(), 1e-30)  # a state that is never visited stays nearly so
