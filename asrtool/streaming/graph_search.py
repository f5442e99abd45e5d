"""Graph search chunk by chunk."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from asrtool.decoding.graph_search import (
    GraphOptions,
    check_outputs,
    new_decoder,
    penalise_words,
    read_path,
    units,
    words,
)
from asrtool.decoding.hypothesis import Hypothesis
from asrtool.decoding.lattice import Path
from asrtool.streaming.partial_hypothesis import PartialHypothesis


class StreamingGraph:
    """A graph made ready for any number of streams.

    FasterDecoder shows the best path to a final state as soon as there is one, however bad. A partial result should be
    the best path to any state, so a second decoder searches the same graph without final states. Their difference is
    what endpointing wants to know. Costs: twice the search, and twice the graph's memory.
    """

    def __init__(self, graph: Any, options: GraphOptions):
        self.words, self.meta, self.options = graph.words, graph.meta, options
        self.fst = penalise_words(graph.fst, options.insertion_penalty, len(graph.words))
        self.open = self.fst.copy()
        for state in range(self.open.num_states):
            self.open.set_final(state, math.inf)


class StreamingGraphSearch:
    """The search of one utterance, chunk by chunk: the same result as offline, however it is cut into chunks.

    `priors` as in GraphSearch; `silences`: outputs of the model that count as silence at the end beside blank. No word
    is called final before the end: kaldi-decoder shows its best path alone, not what all its paths have in common.
    """

    def __init__(self, graph: StreamingGraph, priors: np.ndarray | None = None, silences: Sequence[int] = ()):
        self.graph, self.options, self.priors, self.silences = graph, graph.options, priors, {0, *silences}
        self.decoder, self.open = new_decoder(graph.fst, graph.options), new_decoder(graph.open, graph.options)
        self.frames = 0
        self.path = Path([], [], 0.0, 0.0)  # the best one to any state, for as long as there was one

    def advance(self, log_probs: np.ndarray) -> PartialHypothesis:
        """Take in the log-probs of further frames, (T, V) float; T may be 0."""
        import kaldi_decoder

        check_outputs(log_probs.shape[1], self.graph.meta["outputs"])
        scaled = self.options.costs(log_probs, self.priors)
        if len(scaled):
            frames = kaldi_decoder.DecodableCtc(scaled, self.frames)
            self.decoder.advance_decoding(frames)
            self.open.advance_decoding(frames)
            self.frames += len(scaled)
        found, path = self.open.get_best_path()
        if found:
            self.path = read_path(path)
        labels, when = words(self.path)
        return PartialHypothesis(self._spell(labels), self.frames, self._trailing(), self._relative_cost, when)

    def finish(self) -> Hypothesis:
        """The result with final states' costs, as offline.

        Where no path has reached a final state it is the best partial one, and not `complete`.
        """
        found, path = self.decoder.get_best_path()
        complete = found and self.decoder.reached_final()
        path = read_path(path) if found else self.path
        labels, when = words(path)
        tokens, frames = units(path, self.graph.meta["topology"])
        return Hypothesis(tokens, frames, -path.cost, self._spell(labels), when, complete)

    def _spell(self, labels: list[int]) -> list[str]:
        return [self.graph.words[label] for label in labels]

    def _trailing(self) -> int:
        count = 0
        for label in reversed([label for label in self.path.inputs if label]):
            if label - 1 not in self.silences:
                break
            count += 1
        return count

    def _relative_cost(self) -> float:
        if not self.decoder.reached_final():
            return math.inf
        return max(0.0, read_path(self.decoder.get_best_path()[1]).cost - self.path.cost)
