"""Hypotheses of an utterance before its end, and the times at which its words appeared."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from asrtool.decoding.hypothesis import Hypothesis


@dataclass(frozen=True)
class PartialHypothesis:
    """The best hypothesis of a search after a chunk.

    words: the words of the best hypothesis for `frames` output frames so far. trailing: the number of frames at the end
    that are blank or silence. relative_cost: a function, valid until the next chunk, that returns how much more the
    best path to a final state of the graph costs than the best path; inf if none reaches one, or if there is no graph.
    word_frames: for each word the frame in which it begins; with a graph, in which it was emitted. num_final: this many
    words, from the first on, cannot change any more.
    """

    words: list[str]
    frames: int
    trailing: int
    relative_cost: Callable[[], float] = lambda: math.inf
    word_frames: list[int] = field(default_factory=list)
    num_final: int = 0


class StreamingSearch(Protocol):
    """The search of one utterance, chunk by chunk. The sizes of the chunks do not change the result."""

    def advance(self, log_probs: np.ndarray) -> PartialHypothesis:
        """Searches the log-probs of further frames, (T, V) float32; T may be 0."""

    def finish(self) -> Hypothesis:
        """Returns the result, which equals the offline search on all frames."""


class WordEmission(NamedTuple):
    """A word of the final result, and when it appeared, in the time unit of `EmissionTracker.update`.

    first: when it first stood at its place, with the words of the final result before it. final: since when it and all
    words before it have not changed any more.
    """

    word: str
    first: float
    final: float


class EmissionTracker:
    """Records when each word sequence first began a result, and since when all results begin with it."""

    def __init__(self) -> None:
        # (beginning, next word) -> number of the longer beginning, and when it first appeared; the empty one is 0
        self._beginnings: dict[tuple[int, str], tuple[int, float]] = {}
        self._words: list[str] = []  # of the last result
        self._numbers: list[int] = []  # of its beginnings of 1, 2, ... words
        self._since: list[float] = []  # when these began to be in every result

    def update(self, words: Sequence[str], time: float) -> None:
        """Records a new result at `time`."""
        numbers = []
        number = 0
        for word in words:
            number, _ = self._beginnings.setdefault((number, word), (len(self._beginnings) + 1, time))
            numbers.append(number)
        kept = 0  # words at the beginning that did not change
        while kept < min(len(numbers), len(self._numbers)) and numbers[kept] == self._numbers[kept]:
            kept += 1
        self._since = self._since[:kept] + [time] * (len(numbers) - kept)
        self._words = list(words)
        self._numbers = numbers

    def emissions(self) -> list[WordEmission]:
        """Returns one emission for each word of the last result."""
        first_times = dict(self._beginnings.values())
        rows = zip(self._words, self._numbers, self._since, strict=True)
        return [WordEmission(word, first_times[number], since) for word, number, since in rows]
