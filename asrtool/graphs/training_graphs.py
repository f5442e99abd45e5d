"""Graphs that training sums over: what an utterance says, and what could be said, as arcs that read a frame each.

A graph over units (`UnitGraph`) becomes one over frames (`Arcs`) by a topology, which says how many frames a unit takes
and where blanks are. Both are small, or made once, so they are plain arrays; graphs for decoding are compile.py's.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Topology = Literal["ctc", "modified"]
Units = tuple[int, ...]
Counts = list[list]  # [history, [[unit, how often], ...]] of each history
BLANK, START, END = 0, -1, -2  # of these only the blank is a unit


@dataclass(frozen=True)
class Arcs:
    """A graph over frames: S states, A arcs without epsilons. Weights are natural logs, -inf where there is no way."""

    start: np.ndarray  # (S,) float64
    final: np.ndarray  # (S,) float64
    label: np.ndarray  # (S,) int64: the column of a frame's log-probabilities that is read on entering
    source: np.ndarray  # (A,) int64
    target: np.ndarray  # (A,) int64
    weight: np.ndarray  # (A,) float64
    place: np.ndarray  # (S,) int64: the state of the graph over units that it belongs to

    @property
    def states(self) -> int:
        """S."""
        return len(self.start)


@dataclass(frozen=True)
class UnitGraph:
    """A graph over units, which starts in state 0. `final[q]` is the log weight of ending in q, where it may."""

    arcs: Sequence[tuple[int, int, int, float]]  # source, unit (never the blank), target, log weight
    final: dict[int, float]
    word: dict[int, int] = field(default_factory=dict)  # of `said`: which word, from 0, leads to a state


def said(words: Iterable[Sequence[Sequence[int]]], silence: int | None = None) -> UnitGraph:
    """What an utterance says: the pronunciations of each word, all alike, and `silence` wherever no word is.

    Raises ValueError for a word without a pronunciation, or with an empty one.
    """
    arcs: list[tuple[int, int, int, float]] = []
    states = 1  # so far, the start

    def follow(begins: list[int], units: Sequence[int], end: int | None = None) -> int:
        """Add a way that reads `units` from any of `begins`, to `end` or a new state; returns where it ends."""
        nonlocal states
        for place, unit in enumerate(units):
            last = place == len(units) - 1 and end is not None
            target = end if last else states
            states += not last
            arcs.extend((begin, unit, target, 0.0) for begin in begins)
            begins = [target]
        return begins[0]

    ends = [0]
    word: dict[int, int] = {}
    for number, ways in enumerate(words):
        if not ways or not all(ways):
            raise ValueError("a word without a pronunciation")
        if silence is not None:
            ends = [*ends, follow(ends, [silence])]
        before = states
        end = follow(ends, ways[0])
        for way in ways[1:]:
            follow(ends, way, end)
        word |= dict.fromkeys(range(before, states), number)
        ends = [end]
    if silence is not None:
        ends = [*ends, follow(ends, [silence])]
    return UnitGraph(arcs, dict.fromkeys(ends, 0.0), word)


def over_frames(graph: UnitGraph, topology: Topology = "ctc") -> Arcs:
    """Every way in which the frames of an utterance may read the units of `graph`.

    "ctc" (Graves et al. 2006): a unit takes one frame or more; blanks may be anywhere, and must be between equal units.
    "modified": between equal units, too, they need not be, as in k2's ctc_topo(modified=True).

    A state of the graph over frames is a place in the graph over units, with what was read last: the blank, or a unit
    that leads there.
    """
    places = {(0, BLANK)} | {(target, last) for _, unit, target, _ in graph.arcs for last in (BLANK, unit)}
    number = {place: index for index, place in enumerate(sorted(places))}
    lasts: dict[int, list[int]] = {}
    for q, last in number:
        lasts.setdefault(q, []).append(last)
    arcs = [(index, index, 0.0) for index in number.values()]
    arcs += [(index, number[q, BLANK], 0.0) for (q, last), index in number.items() if last != BLANK]
    for source, unit, target, weight in graph.arcs:
        into = number[target, unit]
        free = [last for last in lasts[source] if last != unit or topology == "modified"]
        arcs += [(number[source, last], into, weight) for last in free]
    start = np.full(len(number), -np.inf)
    start[number[0, BLANK]] = 0.0
    final = np.array([graph.final.get(q, -np.inf) for q, _ in number])
    place, label = map(np.array, zip(*number, strict=True))
    source, target, weight = map(np.array, zip(*arcs, strict=True))
    return Arcs(start, final, label, source, target, weight, place)


class UnitNgram:
    """What units follow each other: an n-gram for the denominator of MMI, as a graph without back-off arcs.

    As for Kaldi's chain models (Povey et al. 2016, section 3.2) it is not smoothed: after a history comes only what
    came after it in training, so that the graph stays small. A history is the longest part of the last `order` - 1
    units that came `least` times; one unit is always kept.
    """

    def __init__(self, order: int, counts: Counts):
        """Raises ValueError for counts without the empty history, at which every search for a history ends."""
        self.order = order
        self._after = {tuple(history): dict(seen) for history, seen in counts}
        self._total = {history: sum(seen.values()) for history, seen in self._after.items()}
        if () not in self._after:
            raise ValueError("the n-gram of units lacks the empty history []")
        if not all(seen and min(seen.values()) > 0 for seen in self._after.values()):
            raise ValueError("the n-gram of units has a history that nothing follows, or a count that is not above 0")

    @staticmethod
    def count(sentences: Iterable[Sequence[int]], order: int = 4, least: int = 3) -> Counts:
        """What came after each history that is kept, as plain lists; empty where there are no sentences."""
        counts: dict[Units, Counter[int]] = {}
        for sentence in sentences:
            units = (START, *sentence, END)
            for place in range(1, len(units)):
                for begin in range(max(0, place - order + 1), place + 1):
                    counts.setdefault(units[begin:place], Counter())[units[place]] += 1
        kept = ((h, seen) for h, seen in counts.items() if len(h) <= 1 or seen.total() >= least)
        return [[list(history), [list(pair) for pair in seen.items()]] for history, seen in kept]

    def next(self, history: Units, unit: int) -> Units:
        """The history that `unit` after `history` leads to."""
        units = (*history, unit)[-(self.order - 1) :] if self.order > 1 else ()
        while units not in self._after:
            units = units[1:]
        return units

    def logprob(self, history: Units, unit: int) -> float:
        """ln P(unit | history). What never came after it, as happens outside of training, is taken after less of it."""
        while unit not in self._after[history] and history:
            history = history[1:] if history[1:] in self._after else self.next((), history[-1])[1:]
        return math.log(self._after[history].get(unit, 0.5) / self._total[history])

    def graph(self) -> UnitGraph:
        """All that could be said."""
        start = self.next((), START)
        number, arcs, final, waiting = {start: 0}, [], {}, [start]
        while waiting:
            history = waiting.pop()
            for unit in sorted(self._after[history]):
                weight = self.logprob(history, unit)
                if unit == END:
                    final[number[history]] = weight
                    continue
                target = self.next(history, unit)
                if target not in number:
                    number[target] = len(number)
                    waiting.append(target)
                arcs.append((number[history], unit, number[target], weight))
        return UnitGraph(arcs, final)

    def weighted(self, graph: UnitGraph) -> UnitGraph:
        """`graph` with the weights of this n-gram added, so that it is a part of what could be said."""
        leaving: dict[int, list[tuple[int, int, float]]] = {}
        for source, unit, target, weight in graph.arcs:
            leaving.setdefault(source, []).append((unit, target, weight))
        start = (0, self.next((), START))
        number, arcs, final, waiting = {start: 0}, [], {}, [start]
        while waiting:
            q, history = place = waiting.pop()
            if q in graph.final:
                final[number[place]] = graph.final[q] + self.logprob(history, END)
            for unit, target, weight in leaving.get(q, ()):
                after = (target, self.next(history, unit))
                if after not in number:
                    number[after] = len(number)
                    waiting.append(after)
                arcs.append((number[place], unit, number[after], weight + self.logprob(history, unit)))
        return UnitGraph(arcs, final)
