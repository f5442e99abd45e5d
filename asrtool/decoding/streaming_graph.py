"""Graph search chunk by chunk: partial results, when each word was there, and when the speaker has ended.

step -> log-probs of a chunk -> StreamingGraphSearch.advance -> Partial -> Endpointing.ended: finish, and begin anew
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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


class Emission(NamedTuple):
    """A word and the numbers of frames that had been taken in when it was there: its latency.

    first: when it was at its place for the first time, with the words of the final result before it. final: since when
    it and all words before it have not changed any more.
    """

    word: str
    first: int
    final: int


@dataclass(frozen=True)
class Partial:
    """What is known after a chunk.

    words: the best path's so far, of `frames` frames in all. trailing: how many of the last frames are blank (or
    silence) on it. relative_cost: how much worse the best path to a final state is; inf if none is reached.
    """

    words: list[str]
    frames: int
    trailing: int
    relative_cost: float


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

    `priors` as in GraphSearch; `silences`: outputs of the model that count as silence at the end beside blank.
    """

    def __init__(self, graph: StreamingGraph, priors: np.ndarray | None = None, silences: Sequence[int] = ()):
        self.graph, self.options, self.priors, self.silences = graph, graph.options, priors, {0, *silences}
        self.decoder, self.open = new_decoder(graph.fst, graph.options), new_decoder(graph.open, graph.options)
        self.frames = 0
        self.path = Path([], [], 0.0, 0.0)  # the best one to any state, for as long as there was one
        self.history = _History()

    def advance(self, log_probs: np.ndarray) -> Partial:
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
        labels, _ = words(self.path)
        self.history.note(labels, self.frames)
        return Partial(self._spell(labels), self.frames, self._trailing(), self._relative_cost())

    def finish(self) -> tuple[Hypothesis, list[Emission]]:
        """The result with final states' costs, as offline, and when each of its words was there.

        Where no path has reached a final state it is the best partial one, and not `complete`.
        """
        found, path = self.decoder.get_best_path()
        complete = found and self.decoder.reached_final()
        path = read_path(path) if found else self.path
        labels, when = words(path)
        self.history.note(labels, self.frames)
        emissions = map(Emission, self._spell(labels), *self.history.times())
        tokens, frames = units(path, self.graph.meta["topology"])
        return Hypothesis(tokens, frames, -path.cost, self._spell(labels), when, complete), list(emissions)

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


class _History:
    """For each beginning that a result ever had, when it was first there; for that of the last one, since when."""

    def __init__(self) -> None:
        self.first: dict[tuple[int, int], tuple[int, int]] = {}  # (beginning, next label) -> (their number, frame)
        self.nodes: list[int] = []  # the last result's beginnings of 1, 2, ... words
        self.since: list[int] = []

    def note(self, labels: list[int], frame: int) -> None:
        """A new result after `frame` frames."""
        nodes, node = [], 0
        for label in labels:
            node, _ = self.first.setdefault((node, label), (len(self.first) + 1, frame))
            nodes.append(node)
        kept = next((n for n, pair in enumerate(zip(nodes, self.nodes)) if pair[0] != pair[1]), None)  # noqa: B905
        kept = min(len(nodes), len(self.nodes)) if kept is None else kept
        self.since = self.since[:kept] + [frame] * (len(nodes) - kept)
        self.nodes = nodes

    def times(self) -> tuple[list[int], list[int]]:
        """For each word of the last result when it was first there, and since when for good."""
        when = dict(self.first.values())
        return [when[node] for node in self.nodes], self.since


@dataclass(frozen=True)
class EndpointRule:
    """An utterance has ended when all of this holds; times in seconds, the cost in natural logarithms."""

    needs_words: bool = False
    trailing: float = 0.0  # of silence or blank at least, at the end
    relative_cost: float = math.inf  # of the best final state at most
    length: float = 0.0  # of the utterance at least

    def holds(self, partial: Partial, frame_seconds: float) -> bool:
        """Whether it does, for output frames of `frame_seconds`."""
        return (
            (bool(partial.words) or not self.needs_words)
            and partial.trailing * frame_seconds >= self.trailing
            and partial.relative_cost <= self.relative_cost
            and partial.frames * frame_seconds >= self.length
        )


@dataclass(frozen=True)
class Endpointing:
    """Rules of which one is enough: those of Kaldi's online2/online-endpoint.h, and its values.

    The more likely the words are to be a whole sentence, the shorter the silence has to be.
    """

    rules: tuple[EndpointRule, ...] = (
        EndpointRule(trailing=5.0),  # nobody says anything
        EndpointRule(needs_words=True, trailing=0.5, relative_cost=2.0),  # it sounds finished
        EndpointRule(needs_words=True, trailing=1.0, relative_cost=8.0),  # it may be finished
        EndpointRule(needs_words=True, trailing=2.0),  # whatever was said
        EndpointRule(length=20.0),  # too long to wait: results and memory must come to an end
    )

    def ended(self, partial: Partial, frame_seconds: float) -> bool:
        """Whether the utterance has ended with this partial result."""
        return any(rule.holds(partial, frame_seconds) for rule in self.rules)
