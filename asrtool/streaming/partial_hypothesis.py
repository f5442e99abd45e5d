"""What is known of an utterance before its end, and when each word was known."""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from asrtool.decoding.hypothesis import Hypothesis


@dataclass(frozen=True)
class PartialHypothesis:
    """What a search knows after a chunk.

    words: the best hypothesis' so far, of `frames` output frames in all. trailing: how many of the last frames are
    blank or silence. relative_cost: asked before the next chunk, says how much worse the best path to a final state of
    the graph is; inf if none is reached, or if there is no graph. word_frames: for each word the frame in which it
    begins; of a graph, in which it was put out. final: so many of the words, from the first on, will never change
    whatever comes.
    """

    words: list[str]
    frames: int
    trailing: int
    relative_cost: Callable[[], float] = lambda: math.inf
    word_frames: list[int] = field(default_factory=list)
    final: int = 0


class StreamingSearch(Protocol):
    """The search of one utterance, chunk by chunk: the chunks' sizes make no difference to the result."""

    def advance(self, log_probs: np.ndarray) -> PartialHypothesis:
        """Take in the log-probs of further frames, (T, V) float32; T may be 0."""

    def finish(self) -> Hypothesis:
        """The result, that of the offline search on all frames."""


class WordEmission(NamedTuple):
    """A word and when it was there, in the units of `EmissionTracker.note`.

    first: when it was at its place for the first time, with the words of the final result before it. final: since when
    it and all words before it have not changed any more.
    """

    word: str
    first: float
    final: float


class EmissionTracker:
    """For each beginning that a result ever had, when it was first there; for that of the last one, since when."""

    def __init__(self) -> None:
        self._first: dict[tuple[int, Hashable], tuple[int, float]] = {}  # (beginning, next word) -> (its number, time)
        self._words: list = []  # of the last result
        self._nodes: list[int] = []  # its beginnings of 1, 2, ... words
        self._since: list[float] = []

    def note(self, words: Sequence[Hashable], time: float) -> None:
        """A new result at `time`."""
        nodes, node = [], 0
        for word in words:
            node, _ = self._first.setdefault((node, word), (len(self._first) + 1, time))
            nodes.append(node)
        kept = next((n for n, pair in enumerate(zip(nodes, self._nodes)) if pair[0] != pair[1]), None)  # noqa: B905
        kept = min(len(nodes), len(self._nodes)) if kept is None else kept
        self._since = self._since[:kept] + [time] * (len(nodes) - kept)
        self._words, self._nodes = list(words), nodes

    def emissions(self) -> list[WordEmission]:
        """One for each word of the last result."""
        when = dict(self._first.values())
        first = [when[node] for node in self._nodes]
        return [WordEmission(*times) for times in zip(self._words, first, self._since, strict=True)]
