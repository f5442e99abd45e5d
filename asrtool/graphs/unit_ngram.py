"""The unsmoothed n-gram model over units that is the denominator graph of LF-MMI."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from asrtool.graphs.training_graphs import UnitArc, UnitGraph

Units = tuple[int, ...]
UnitCounts = list[list]  # [history, [[unit, count], ...]] of each history
START = -1  # begins the history of a sentence; not a unit
END = -2  # follows the last unit of a sentence; not a unit
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
        counts: dict[Units, Counter[int]] = {}
        for sentence in sentences:
            units = (START, *sentence, END)
            for position in range(1, len(units)):
                for begin in range(max(0, position - order + 1), position + 1):
                    counts.setdefault(units[begin:position], Counter())[units[position]] += 1
        return [
            [list(history), [list(pair) for pair in counted.items()]]
            for history, counted in counts.items()
            if len(history) <= 1 or counted.total() >= min_count
        ]

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
