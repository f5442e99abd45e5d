"""Graph search chunk by chunk."""

import math
from collections.abc import Sequence

import numpy as np

from asrtool.decoding.graph_options import GraphOptions
from asrtool.decoding.hypothesis import Hypothesis
from asrtool.decoding.kaldi_search import (
    add_insertion_penalty,
    new_decoder,
    path_units,
    path_words,
    read_path,
    require_num_outputs,
)
from asrtool.decoding.lattice import LatticePath
from asrtool.graphs.folder import DecodingGraph
from asrtool.streaming.partial_hypothesis import PartialHypothesis


class StreamingGraph:
    """A graph prepared for any number of streams.

    FasterDecoder returns the best path to a final state as soon as there is one, however bad. A partial hypothesis
    should be the best path to any state, so a second decoder searches the same graph without final states. Endpointing
    uses the difference of their costs. This takes twice the search time, and twice the graph's memory.
    """

    def __init__(self, graph: DecodingGraph, options: GraphOptions):
        self.words = graph.words
        self.meta = graph.meta
        self.options = options
        self.fst = add_insertion_penalty(graph.fst, options.insertion_penalty, len(graph.words))
        self.fst_without_final = self.fst.copy()
        for state in range(self.fst_without_final.num_states):
            self.fst_without_final.set_final(state, math.inf)


class StreamingGraphSearch:
    """The search of one utterance, chunk by chunk. For any chunks the result equals the offline search.

    `priors` as in GraphSearch; `silences`: outputs of the model that count as silence at the end, besides blank. No
    word is final before the end: kaldi-decoder returns only its best path, not what all its paths have in common.
    """

    def __init__(self, graph: StreamingGraph, priors: np.ndarray | None = None, silences: Sequence[int] = ()):
        self.graph = graph
        self.options = graph.options
        self.priors = priors
        self.silences = {0, *silences}
        self.decoder = new_decoder(graph.fst, graph.options)
        self.partial_decoder = new_decoder(graph.fst_without_final, graph.options)
        self.frames = 0
        self.path = LatticePath([], [], 0.0, 0.0)  # the last best path to any state

    def advance(self, log_probs: np.ndarray) -> PartialHypothesis:
        """Searches the log-probs of further frames, (T, V) float; T may be 0."""
        import kaldi_decoder

        require_num_outputs(log_probs.shape[1], self.graph.meta["outputs"])
        scaled = self.options.scaled_log_likelihoods(log_probs, self.priors)
        if len(scaled):
            frames = kaldi_decoder.DecodableCtc(scaled, self.frames)
            self.decoder.advance_decoding(frames)
            self.partial_decoder.advance_decoding(frames)
            self.frames += len(scaled)
        has_path, path = self.partial_decoder.get_best_path()
        if has_path:
            self.path = read_path(path)
        labels, word_frames = path_words(self.path)
        return PartialHypothesis(
            words=self._word_strings(labels),
            frames=self.frames,
            trailing=self._num_trailing(),
            relative_cost=self._relative_cost,
            word_frames=word_frames,
        )

    def finish(self) -> Hypothesis:
        """Returns the result with the costs of final states, as offline.

        Where no path has reached a final state it is the best partial path, and not `complete`.
        """
        has_path, kaldi_path = self.decoder.get_best_path()
        path = read_path(kaldi_path) if has_path else self.path
        labels, word_frames = path_words(path)
        tokens, frames = path_units(path, self.graph.meta["topology"])
        return Hypothesis(
            tokens=tokens,
            frames=frames,
            score=-path.cost,
            words=self._word_strings(labels),
            word_frames=word_frames,
            complete=has_path and self.decoder.reached_final(),
        )

    def _word_strings(self, labels: list[int]) -> list[str]:
        return [self.graph.words[label] for label in labels]

    def _num_trailing(self) -> int:
        """Returns the number of frames at the end that are blank or silence."""
        count = 0
        for label in reversed([label for label in self.path.inputs if label]):
            if label - 1 not in self.silences:
                break
            count += 1
        return count

    def _relative_cost(self) -> float:
        """Returns how much more the best path to a final state costs than the best path to any state."""
        if not self.decoder.reached_final():
            return math.inf
        return max(0.0, read_path(self.decoder.get_best_path()[1]).cost - self.path.cost)
