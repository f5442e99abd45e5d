"""Lattices: many hypotheses of an utterance in one acyclic graph, their n best word sequences, and other LM scores.

An arc has an input label (unit + 1; 0: it takes no frame), an output label (word; 0: none), a graph cost (language
model, lexicon, topology, word insertion penalty) and an acoustic cost, all natural logarithms with the sign changed.
"""

import heapq
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from asrtool.lm.ngram import LanguageModel


NEVER = math.inf


class Path(NamedTuple):
    """A way through a lattice: labels arc by arc, and the costs of all arcs and of the final state."""

    inputs: list[int]
    outputs: list[int]
    graph: float
    acoustic: float

    @property
    def cost(self) -> float:
        """Graph and acoustic cost together."""
        return self.graph + self.acoustic

    @property
    def words(self) -> list[int]:
        """The output labels that are words."""
        return [label for label in self.outputs if label]


@dataclass
class Lattice:
    """Arcs in arrays of A, sorted by source; states are numbered in topological order, and state 0 is the start.

    source, target, inputs, outputs: (A,) int64; graph, acoustic: (A,) float64. final: (S, 2) float64, the graph and
    acoustic cost of ending in a state, inf where it is not final.
    """

    source: np.ndarray
    target: np.ndarray
    inputs: np.ndarray
    outputs: np.ndarray
    graph: np.ndarray
    acoustic: np.ndarray
    final: np.ndarray

    @classmethod
    def of_arcs(cls, arcs: Sequence[tuple], final: np.ndarray, start: int = 0) -> "Lattice":
        """From (source, target, input, output, graph, acoustic), in any order and of states in any order.

        Raises ValueError for a cycle.
        """
        table = np.array(arcs, dtype=np.float64).reshape(-1, 6)
        numbers = table[:, :4].astype(np.int64)
        order = _topological_order(numbers[:, :2], len(final), start)
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        source, target = place[numbers[:, 0]], place[numbers[:, 1]]
        kept = np.argsort(source, kind="stable")
        kept = kept[target[kept] > 0]  # what leads to the start is on no path
        columns = source[kept], target[kept], numbers[kept, 2], numbers[kept, 3], table[kept, 4], table[kept, 5]
        return cls(*columns, final[order])

    @classmethod
    def of_kaldi(cls, lattice) -> "Lattice":
        """From a kaldifst.Lattice, such as the raw ones of kaldi-decoder."""
        weights = [lattice.final(state) for state in range(lattice.num_states)]
        arcs = [arc for state in range(lattice.num_states) for arc in kaldi_arcs(lattice, state)]
        final = np.array([(weight.value1, weight.value2) for weight in weights]).reshape(-1, 2)
        return cls.of_arcs(arcs, final, lattice.start)

    @classmethod
    def of_text(cls, text: str) -> "Lattice":
        """From the lines of `to_text`, or of Kaldi's text archives (without the utterance's name)."""
        arcs, ends = [], {}
        for fields in map(str.split, text.splitlines()):
            graph, acoustic = map(float, fields[-1].split(",")[:2]) if "," in fields[-1] else (0.0, 0.0)
            labels = [int(field) for field in fields if "," not in field]
            if len(labels) == 4:
                arcs.append((*labels, graph, acoustic))
            else:
                ends[labels[0]] = graph, acoustic
        final = np.full((1 + max([*ends, *(state for arc in arcs for state in arc[:2])]), 2), NEVER)
        for state, costs in ends.items():
            final[state] = costs
        return cls.of_arcs(arcs, final)

    def to_text(self) -> str:
        """A line an arc, `source target input output graph,acoustic`, and a line a final state, as Kaldi writes them.

        Kaldi takes the first line's state for the start: it is 0 here too.
        """
        columns = (self.source, self.target, self.inputs, self.outputs, self.graph, self.acoustic)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        lines = [f"{s} {t} {i} {o} {g:.7g},{a:.7g}\n" for s, t, i, o, g, a in rows]
        ends = [f"{s} {g:.7g},{a:.7g}\n" for s, (g, a) in enumerate(self.final.tolist()) if g + a < NEVER]
        return "".join(lines + ends)

    @property
    def states(self) -> int:
        """Their number."""
        return len(self.final)

    @property
    def costs(self) -> np.ndarray:
        """(A,): of the arcs, graph and acoustic together."""
        return self.graph + self.acoustic

    def leaving(self) -> list[range]:
        """For each state its arcs."""
        ends = np.searchsorted(self.source, np.arange(self.states + 1)).tolist()
        return [range(first, last) for first, last in itertools.pairwise(ends)]

    def path(self, arcs: Sequence[int], end: int) -> Path:
        """Labels and costs along `arcs`, which lead to the final state `end`."""
        chosen = np.array(arcs, dtype=np.int64)
        labels = self.inputs[chosen].tolist(), self.outputs[chosen].tolist()
        graph, acoustic = self.final[end].tolist()
        costs = float(self.graph[chosen].sum() + graph), float(self.acoustic[chosen].sum() + acoustic)
        return Path(*labels, *costs)


def _topological_order(arcs: np.ndarray, states: int, start: int) -> list[int]:
    """The states, `start` first, then each after those with arcs to it; arcs (A, 2)."""
    if start == 0 and (arcs[:, 0] < arcs[:, 1]).all():
        return list(range(states))
    before: dict[int, list[int]] = {state: [] for state in range(states)}
    for source, target in arcs.tolist():
        before[target].append(source)
    before[start] = []
    try:
        order = list(TopologicalSorter(before).static_order())
    except CycleError as error:
        raise ValueError("the lattice has a cycle") from error
    order.remove(start)
    return [start, *order]


def kaldi_arcs(lattice, state: int) -> Iterator[tuple]:
    """(source, target, input, output, graph cost, acoustic cost) of each arc that leaves a state of a kaldifst.Lattice.

    kaldifst's public iterators refuse lattices; its library has one for them.
    """
    from kaldifst.lib._kaldifst import _ArcIteratorLattice

    arcs = _ArcIteratorLattice(lattice, state)
    while not arcs.done:
        arc = arcs.value
        weight = arc.weight
        yield state, arc.nextstate, arc.ilabel, arc.olabel, weight.value1, weight.value2
        arcs.next()


def nbest(lattice: Lattice, count: int) -> Iterator[Path]:
    """The best paths of the `count` best different word sequences, best first; fewer if there are no more.

    A* search with the exact cost to the end as its estimate. A state is left once for each word sequence that leads to
    it, by the best path, so that other alignments of the same words cost nothing further (determinisation on the fly).
    Of equal estimates the one that was added last comes first: homophones in a graph without a language model have
    equal costs, and all 2^n combinations of n of them would be begun before the first one was complete.
    """
    costs, targets, outputs = lattice.costs.tolist(), lattice.target.tolist(), lattice.outputs.tolist()
    to_end, leaving, ends = _costs_to_end(lattice), lattice.leaving(), lattice.final.sum(axis=1).tolist()
    histories, tie, seen, found = {}, itertools.count(0, -1), set(), 0
    # (estimate of the whole, tie, cost so far, state or None behind the end, word history, (arc, what was before))
    heap = [(to_end[0], next(tie), 0.0, 0, 0, None)] if lattice.states and to_end[0] < NEVER else []
    while heap and found < count:
        _, _, cost, state, history, trail = heapq.heappop(heap)
        if (state, history) in seen:
            continue
        seen.add((state, history))
        if state is None:
            found += 1
            yield _follow(lattice, trail)
            continue
        if ends[state] < NEVER:
            heapq.heappush(heap, (cost + ends[state], next(tie), cost, None, history, (state, trail)))
        for arc in reversed(leaving[state]):  # so that of equal ones the first arc is followed first
            far = cost + costs[arc]
            whole = far + to_end[targets[arc]]
            if whole < NEVER:
                key = (history, outputs[arc])
                longer = histories.setdefault(key, len(histories) + 1) if outputs[arc] else history
                heapq.heappush(heap, (whole, next(tie), far, targets[arc], longer, (arc, trail)))


def _costs_to_end(lattice: Lattice) -> list[float]:
    """For each state the cost of the best way to the end, final cost included."""
    best = lattice.final.sum(axis=1).tolist()
    arcs = zip(lattice.source.tolist(), lattice.target.tolist(), lattice.costs.tolist(), strict=True)
    for source, target, cost in reversed(list(arcs)):
        best[source] = min(best[source], cost + best[target])
    return best


def _follow(lattice: Lattice, trail: tuple) -> Path:
    """The path whose end, and arcs from the last to the first, `trail` links."""
    end, trail = trail
    arcs = []
    while trail is not None:
        arc, trail = trail
        arcs.append(arc)
    return lattice.path(arcs[::-1], end)


def rescore(
    lattice: Lattice, words: Sequence[str], old: "LanguageModel", new: "LanguageModel", beam: float = NEVER
) -> Lattice:
    """The lattice with the scores of `new` in the place of those of `old`, on the graph costs of all its paths.

    This composes the lattice with the difference of the two models, state by state: a state splits into as many as
    there are histories that the models tell apart. Exact for each path of the lattice: `old`'s whole ln probability of
    its words, sentence end included, goes out, and `new`'s comes in. (What the beam kept out of the lattice stays out.)
    `words[label]` is the word of an output label.

    Frame by frame, paths that are worse than the best by more than `beam` are left out, by the costs of `new` up to
    there and those of `old` behind it: a lattice of a model that is sure of little would outgrow all memory.
    """

    @cache
    def change(pair: tuple, label: int) -> tuple[float, tuple]:
        return _change(pair, words[label], old, new) if label else (0.0, pair)

    split = _Split(lattice, beam)
    split.enter(0, (old.start, new.start), 0.0)
    leaving, targets, outputs = lattice.leaving(), lattice.target.tolist(), lattice.outputs.tolist()
    costs, ends = lattice.costs.tolist(), (lattice.final.sum(axis=1) < NEVER).tolist()
    arcs, final = [], {}  # (arc, its new source, its new target, change of its cost); change of the final cost
    for state in split.order:
        for pair, number in split.alive(state):
            final[number] = _change(pair, "</s>", old, new)[0] if ends[state] else 0.0
            for arc in leaving[state]:
                more, after = change(pair, outputs[arc])
                target = split.enter(targets[arc], after, split.costs[number] + costs[arc] + more)
                if target is not None:
                    arcs.append((arc, number, target, more))
    return _of_split(lattice, split, arcs, final)


class _Split:
    """The states of a lattice, each as many times as it was entered with another pair of LM states."""

    def __init__(self, lattice: Lattice, beam: float):
        self.frames, self.beam = _frames(lattice), beam
        self.to_end = _costs_to_end(lattice)
        self.best = [NEVER] * (1 + max(self.frames))  # of each frame: the least cost of a path to it and on to the end
        self.numbers: list[dict[tuple, int]] = [{} for _ in range(lattice.states)]
        self.states: list[int] = []  # of a number: its state
        self.costs: list[float] = []  # and the cost of the best way there
        self.order = sorted(range(lattice.states), key=self.frames.__getitem__)  # topological still

    def enter(self, state: int, pair: tuple, cost: float) -> int | None:
        """The number of `state` with this pair; None if it costs too much to come here by this way."""
        frame, whole = self.frames[state], cost + self.to_end[state]
        self.best[frame] = min(self.best[frame], whole)
        if whole > self.best[frame] + self.beam:
            return None
        number = self.numbers[state].setdefault(pair, len(self.costs))
        if number == len(self.costs):
            self.states.append(state)
            self.costs.append(cost)
        self.costs[number] = min(self.costs[number], cost)
        return number

    def alive(self, state: int) -> Iterator[tuple[tuple, int]]:
        """The pairs of a state, and their numbers, that are in the beam still, now that all its frame was entered."""
        limit = self.best[self.frames[state]] + self.beam - self.to_end[state]
        return ((pair, number) for pair, number in self.numbers[state].items() if self.costs[number] <= limit)


def _of_split(lattice: Lattice, split: _Split, arcs: list[tuple], final: dict[int, float]) -> Lattice:
    """The states that are keys of `final`, in the order of those they come from, which is topological."""
    states = np.array(split.states, dtype=np.int64)
    kept = np.fromiter(final, dtype=np.int64)
    kept = kept[np.argsort(states[kept], kind="stable")]
    place = np.full(len(states), -1)
    place[kept] = np.arange(len(kept))
    table = np.array(arcs, dtype=np.float64).reshape(-1, 4)
    table = table[place[table[:, 2].astype(np.int64)] >= 0]
    arc, source, target = table[:, :3].T.astype(np.int64)
    columns = place[source], place[target], lattice.inputs[arc], lattice.outputs[arc]
    rows = np.stack([*columns, lattice.graph[arc] + table[:, 3], lattice.acoustic[arc]], axis=1)
    ends = lattice.final[states[kept]]
    ends[:, 0] += [final[number] for number in kept.tolist()]
    return Lattice.of_arcs(rows, ends)


def _frames(lattice: Lattice) -> list[int]:
    """For each state how many frames lead to it."""
    found = [0] * lattice.states
    arcs = zip(lattice.source.tolist(), lattice.target.tolist(), lattice.inputs.tolist(), strict=True)
    for source, target, label in arcs:
        found[target] = max(found[target], found[source] + (label > 0))
    return found


def _change(pair: tuple, word: str, old: "LanguageModel", new: "LanguageModel") -> tuple[float, tuple]:
    """What `word` adds to the graph cost, and the pair of states behind it."""
    out, old_state = old.score(pair[0], word)
    come, new_state = new.score(pair[1], word)
    return out - come, (old_state, new_state)
