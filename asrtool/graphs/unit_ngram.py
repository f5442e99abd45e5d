"""The unsmoothed n-gram model over units that is the denominator graph of LF-MMI."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from asrtool.graphs.training_graphs import UnitArc, UnitGraph

Units = tuple[int, ...]
# [history, [[unit, count], ...]] of each history; counts are not whole numbers where silence is optional
UnitCounts = list[list]
START = -1  # begins the history of a sentence; not a unit
END = -2  # follows the last unit of a sentence; not a unit
COUNT_DIGITS = 6  # of weighted counts, so that 3 times a factor near 1 is not less than 3
UNSEEN_COUNT = 0.5  # of a unit that never followed the empty history, as happens outside of the training data


class UnitNgram:
    """An n-gram over units, as a graph without back-off arcs.

    As for Kaldi's chain models (Povey et al. 2016, section 3.2) it is not smoothed: a history is followed only by the
    units that followed it in the training data, so that the graph stays small. The history is the longest suffix of the
    last `order` - 1 units that was counted at least `min_count` times, or else the last unit.
    """

    def __init__(self, order: int, counts: UnitCounts):
        """Raises ValueError for counts without the empty history, at which every search for a history ends."""
        self.order = order
        self._counts: dict[Units, dict[int, int]] = {tuple(history): dict(counted) for history, counted in counts}
        self._total = {history: sum(counted.values()) for history, counted in self._counts.items()}
        if () not in self._counts:
            raise ValueError("the n-gram of units lacks the empty history []")
        if not all(counted and min(counted.values()) > 0 for counted in self._counts.values()):
            raise ValueError("the n-gram of units has a history that nothing follows, or a count that is not above 0")

    @staticmethod
    def count(sentences: Iterable[Sequence[int]], order: int = 4, min_count: int = 3) -> UnitCounts:
        """The counts of the units after each history, as plain lists; empty where there are no sentences.

        Histories of several units that were counted less than `min_count` times are left out.
        """
        return UnitNgram.count_words(([sentence] for sentence in sentences), order, min_count)

    @staticmethod
    def count_words(
        sentences: Iterable[Sequence[Sequence[int]]],
        order: int = 4,
        min_count: int = 3,
        silence: int | None = None,
        probability: float = 0.5,
    ) -> UnitCounts:
        """As `count`, of sentences of words of units, with optional `silence` before each word and behind the last.

        With silence of this `probability`, independent at each place, the counts are expected ones: exact sums over all
        ways to place it.
        """
        counter = _UnitCounter(order)
        for words in sentences:
            counter.begin()
            if silence is not None:
                counter.add_optional(silence, probability)
            for units in words:
                for unit in units:
                    counter.add(unit)
                if silence is not None:
                    counter.add_optional(silence, probability)
            counter.add(END)
        return _pruned(counter.counts, min_count)

    @staticmethod
    def mixed_counts(corpora: Sequence[UnitCounts], factors: Sequence[float], min_count: int) -> UnitCounts:
        """The sum of the counts of several corpora, each multiplied by its factor.

        Histories of several units whose sum is less than `min_count` are left out: count each corpus with 0.
        """
        total: dict[Units, Counter[int]] = {}
        for counts, factor in zip(corpora, factors, strict=True):
            for history, counted in counts:
                of_history = total.setdefault(tuple(history), Counter())
                for unit, number in counted:
                    of_history[unit] += factor * number
        rounded = {
            history: Counter({unit: round(number, COUNT_DIGITS) for unit, number in counted.items()})
            for history, counted in total.items()
        }
        return _pruned(rounded, min_count)

    def next_history(self, history: Units, unit: int) -> Units:
        """The history that `unit` after `history` leads to."""
        units = (*history, unit)[-(self.order - 1) :] if self.order > 1 else ()
        while units not in self._counts:
            units = units[1:]
        return units

    def log_prob(self, history: Units, unit: int) -> float:
        """ln P(unit | history). A unit that never followed the history is taken after a shorter one."""
        while unit not in self._counts[history] and history:
            history = history[1:] if history[1:] in self._counts else self.next_history((), history[-1])[1:]
        return math.log(self._counts[history].get(unit, UNSEEN_COUNT) / self._total[history])

    def denominator_graph(self) -> UnitGraph:
        """All unit sequences that the n-gram allows, with their probabilities: a state for each history."""
        start = self.next_history((), START)
        number = {start: 0}
        arcs: list[UnitArc] = []
        final: dict[int, float] = {}
        queue = [start]
        while queue:
            history = queue.pop()
            for unit in sorted(self._counts[history]):
                log_prob = self.log_prob(history, unit)
                if unit == END:
                    final[number[history]] = log_prob
                    continue
                target = self.next_history(history, unit)
                if target not in number:
                    number[target] = len(number)
                    queue.append(target)
                arcs.append(UnitArc(number[history], unit, number[target], log_prob))
        return UnitGraph(arcs, final)

    def compose(self, graph: UnitGraph) -> UnitGraph:
        """`graph` with the log-probabilities of this n-gram added to its weights.

        A numerator composed with the n-gram is a part of the denominator graph. A state of the result is a state of
        `graph` with a history.
        """
        leaving: dict[int, list[UnitArc]] = {}
        for arc in graph.arcs:
            leaving.setdefault(arc.source, []).append(arc)
        start = (0, self.next_history((), START))
        number = {start: 0}
        arcs: list[UnitArc] = []
        final: dict[int, float] = {}
        queue = [start]
        while queue:
            state = queue.pop()
            unit_state, history = state
            if unit_state in graph.final:
                final[number[state]] = graph.final[unit_state] + self.log_prob(history, END)
            for arc in leaving.get(unit_state, ()):
                target = (arc.target, self.next_history(history, arc.unit))
                if target not in number:
                    number[target] = len(number)
                    queue.append(target)
                log_weight = arc.log_weight + self.log_prob(history, arc.unit)
                arcs.append(UnitArc(number[state], arc.unit, number[target], log_weight))
        return UnitGraph(arcs, final)


def _pruned(counts: dict[Units, Counter[int]], min_count: int) -> UnitCounts:
    """Counts as plain lists, without histories of several units that were counted less than `min_count` times."""
    return [
        [list(history), [list(pair) for pair in counted.items()]]
        for history, counted in counts.items()
        if len(history) <= 1 or counted.total() >= min_count
    ]


class _UnitCounter:
    """Adds up expected counts of units after their histories, sentence by sentence, unit by unit."""

    def __init__(self, order: int):
        self.order = order
        self.counts: dict[Units, Any] = {}  # Counters; their values are whole numbers without optional units
        self._histories: dict[Units, float] = {}  # the last units of the sentence so far -> their probability

    def begin(self) -> None:
        """Begins a sentence."""
        self._histories = {((START,) if self.order > 1 else ()): 1}

    def add(self, unit: int) -> None:
        """Adds the next unit of the sentence."""
        self._histories = self._after(unit, self._histories)

    def add_optional(self, unit: int, probability: float) -> None:
        """Adds a unit that is there with a probability."""
        with_unit = {history: probability * weight for history, weight in self._histories.items()}
        without_unit = {history: (1 - probability) * weight for history, weight in self._histories.items()}
        self._histories = without_unit
        for history, weight in self._after(unit, with_unit).items():
            self._histories[history] = self._histories.get(history, 0.0) + weight

    def _after(self, unit: int, histories: dict[Units, float]) -> dict[Units, float]:
        """Counts `unit` after each history; returns the histories that it leads to."""
        following: dict[Units, float] = {}
        for history, weight in histories.items():
            for begin in range(len(history) + 1):
                self.counts.setdefault(history[begin:], Counter())[unit] += weight
            longer = (*history, unit)[-(self.order - 1) :] if self.order > 1 else ()
            following[longer] = following.get(longer, 0) + weight
        return following
