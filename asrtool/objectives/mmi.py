"""Lattice-free maximum mutual information (Povey et al. 2016), on the sums of forward_backward.py."""

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor

from asrtool.config import Config, Integer, Objective
from asrtool.data.inspection import MOST_CUTS, transcript
from asrtool.data.loading import Batch
from asrtool.data.shards import entries_with_trees
from asrtool.errors import UserError
from asrtool.files import read_json, write_json
from asrtool.graphs.training import END, START, Arcs, Counts, UnitNgram, over_frames, said
from asrtool.objectives.ce import CrossEntropy
from asrtool.objectives.ctc import Ctc
from asrtool.objectives.forward_backward import GraphBatch, path_sum
from asrtool.progress import progress
from asrtool.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    import k2

UNIT_COUNTS = "unit_ngram.json"  # in an experiment's folder: what its training transcripts have
Occurrences = Annotated[Integer, Field(gt=0, lt=2**53)]  # float64 counts so far
COUNTS = TypeAdapter(list[tuple[list[Integer], list[tuple[Integer, Occurrences]]]])  # as Counts
STEPS = 100  # of a walk through the graph, as many as Kaldi takes: it forgets where it started


class Mmi:
    """-ln of what was said beside all that could be said: the share of its paths in those of a unit n-gram.

    What was said allows all pronunciations that the tokenizer's lexicon has, if it has one, and carries the n-gram's
    weights, so that it is a part of what could be said and the loss is not negative. `config.leak` is the weight of
    a jump from any state to any other between two frames, spread as a walk through the graph spreads (section 3.4);
    `config.ctc` adds so much of the CTC loss, which keeps units in their places, `config.ce` of `cross_entropy`.
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
        if config.engine == "k2":
            from asrtool import k2_engine

            self.batch, self.sum = k2_engine.training_graphs, k2_engine.path_sum
        self.could = self.batch(could, device)
        self.leak = None
        if config.leak:
            self.leak = torch.from_numpy(np.log(config.leak * visits(could))).float().to(device)
        self.ctc = Ctc()
        others = (config.ctc, self.ctc), (config.ce, cross_entropy)
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


def unit_counts(config: Config, tokenizer: Tokenizer, kept: Path) -> Counts:
    """What units follow each other in the training transcripts, for UnitNgram; counted once, then read from `kept`.

    Of a long manifest the first MOST_CUTS count, as in the look through it (asrtool/data/inspection.py). UserError
    when `kept` is there, and has no such counts.
    """
    if kept.is_file():
        return read_counts(kept, tokenizer.size)
    cuts = islice(entries_with_trees(config.data.train), MOST_CUTS)
    texts = (transcript(tree) for _, tree in cuts)
    units = (tokenizer.encode(text) for text in texts if text and not tokenizer.unknown(text))
    found = UnitNgram.count(progress(units, "counting units"), config.objective.order, config.objective.least)
    if not found:
        raise UserError(f"no transcript of {config.data.train} has units of the tokenizer; look at both")
    write_json(kept, found)
    return found


def read_counts(path: Path, size: int) -> Counts:
    """The counts that `unit_counts` has written, of units below `size`. UserError for anything else."""
    hint = "delete it, and the training counts again"
    counts = read_json(path, "unit counts", hint)
    try:
        COUNTS.validate_python(counts)
        histories = [tuple(history) for history, _ in counts]
        units = {unit for history in histories for unit in history[1:]}
        units |= {unit for history in histories for unit in history[:1] if unit != START}
        units |= {unit for _, seen in counts for unit, _ in seen if unit != END}
        if not all(0 < unit < size for unit in units):
            raise ValueError(f"units that are not 1 to {size - 1}")
        if () not in histories or len(set(histories)) < len(histories):
            raise ValueError("no empty history, or a history twice")
        if not all(seen for _, seen in counts):
            raise ValueError("a history that nothing follows")
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise UserError(f"{path} has no unit counts (at {place}: {error.errors()[0]['msg']}); {hint}") from error
    except ValueError as error:
        raise UserError(f"{path} has no unit counts ({error}); {hint}") from error
    return counts


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
