"""Lattices: many hypotheses of an utterance in one acyclic graph, and their n best word sequences.

An arc has an input label (unit + 1; 0: it reads no frame), an output label (word; 0: none), a graph cost (language
model, lexicon, topology, word insertion penalty) and an acoustic cost. Costs are negative natural logarithms.
"""

import heapq
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

POS_INF = math.inf  # the cost of what is impossible


# source, target, input label, output label, graph cost, acoustic cost
LatticeArc = tuple[int, int, int, int, float, float]


class LatticePath(NamedTuple):
    """A path through a lattice: the labels of its arcs, and their summed costs, with those of its final state.

    graph, acoustic: the two costs, as of an arc.
    """

    inputs: list[int]
    outputs: list[int]
    graph: float
    acoustic: float

    @property
    def cost(self) -> float:
        """The sum of graph and acoustic cost."""
        return self.graph + self.acoustic

    @property
    def words(self) -> list[int]:
        """The output labels that are words."""
        return [label for label in self.outputs if label]


@dataclass
class Lattice:
    """Arcs in arrays of A, sorted by source; states are numbered in topological order, and state 0 is the start.

    source, target, inputs, outputs: (A,) int64; graph, acoustic: (A,) float64, the costs of the arcs. final: (S, 2)
    float64, the graph and acoustic cost of ending in each of the S states, inf where the state is not final.
    """

    source: np.ndarray
    target: np.ndarray
    inputs: np.ndarray
    outputs: np.ndarray
    graph: np.ndarray
    acoustic: np.ndarray
    final: np.ndarray

    @classmethod
    def from_arcs(cls, arcs: Sequence[LatticeArc] | np.ndarray, final: np.ndarray, start: int = 0) -> "Lattice":
        """Returns the lattice of `arcs`, a list or an array (A, 6), in any order and with any numbering of states.

        The costs of `final` (S, 2) are in the same numbering. Arcs to the start are left out, even where
        they close a cycle. Raises ValueError for any other cycle.
        """
        table = np.array(arcs, dtype=np.float64).reshape(-1, 6)
        numbers = table[:, :4].astype(np.int64)
        order = _topological_order(numbers[:, :2], len(final), start)
        new_number = np.empty(len(order), dtype=np.int64)
        new_number[order] = np.arange(len(order))
        source, target = new_number[numbers[:, 0]], new_number[numbers[:, 1]]
        kept = np.argsort(source, kind="stable")
        kept = kept[target[kept] > 0]  # state 0 is the start
        return cls(
            source=source[kept],
            target=target[kept],
            inputs=numbers[kept, 2],
            outputs=numbers[kept, 3],
            graph=table[kept, 4],
            acoustic=table[kept, 5],
            final=final[order],
        )

    @classmethod
    def from_kaldi(cls, lattice: Any) -> "Lattice":
        """Returns the lattice of a kaldifst.Lattice, such as the raw ones of kaldi-decoder."""
        weights = [lattice.final(state) for state in range(lattice.num_states)]
        arcs = [arc for state in range(lattice.num_states) for arc in kaldi_arcs(lattice, state)]
        final = np.array([(weight.value1, weight.value2) for weight in weights]).reshape(-1, 2)
        return cls.from_arcs(arcs, final, lattice.start)

    def to_text(self) -> str:
        """Returns a line for each arc, `source target input output graph,acoustic`, and for each final state.

        This is Kaldi's text format, in which the first line's state is the start: it is 0 here too.
        """
        columns = (self.source, self.target, self.inputs, self.outputs, self.graph, self.acoustic)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        lines = [f"{s} {t} {i} {o} {g:.7g},{a:.7g}\n" for s, t, i, o, g, a in rows]
        ends = [f"{s} {g:.7g},{a:.7g}\n" for s, (g, a) in enumerate(self.final.tolist()) if g + a < POS_INF]
        return "".join(lines + ends)

    @property
    def num_states(self) -> int:
        """The number of states."""
        return len(self.final)

    @property
    def costs(self) -> np.ndarray:
        """(A,): the sum of graph and acoustic cost of each arc."""
        return self.graph + self.acoustic

    def outgoing_arcs(self) -> list[range]:
        """Returns the indices of the arcs that leave each state."""
        bounds = np.searchsorted(self.source, np.arange(self.num_states + 1)).tolist()
        return [range(first, last) for first, last in itertools.pairwise(bounds)]

    def costs_to_end(self) -> list[float]:
        """Returns for each state the cost of the best path from it to a final state, final cost included."""
        best = self.final.sum(axis=1).tolist()
        arcs = zip(self.source.tolist(), self.target.tolist(), self.costs.tolist(), strict=True)
        for source, target, cost in reversed(list(arcs)):
            best[source] = min(best[source], cost + best[target])
        return best

    def frames_to_states(self) -> list[int]:
        """Returns for each state the number of frames on a path to it, which is the same for all paths."""
        frames = [0] * self.num_states
        arcs = zip(self.source.tolist(), self.target.tolist(), self.inputs.tolist(), strict=True)
        for source, target, label in arcs:
            frames[target] = frames[source] + (label > 0)
        return frames

    def path(self, arcs: Sequence[int], end: int) -> LatticePath:
        """Returns the path along the arcs with these indices, which lead to the final state `end`."""
        chosen = np.array(arcs, dtype=np.int64)
        end_graph, end_acoustic = self.final[end].tolist()
        return LatticePath(
            inputs=self.inputs[chosen].tolist(),
            outputs=self.outputs[chosen].tolist(),
            graph=float(self.graph[chosen].sum() + end_graph),
            acoustic=float(self.acoustic[chosen].sum() + end_acoustic),
        )


def _topological_order(arcs: np.ndarray, num_states: int, start: int) -> list[int]:
    """Returns the states in topological order, `start` first; arcs (A, 2) are pairs of source and target.

    Arcs to `start` are ignored. Raises ValueError for any other cycle.
    """
    if start == 0 and (arcs[:, 0] < arcs[:, 1]).all():
        return list(range(num_states))
    arcs = arcs[arcs[:, 1] != start]
    arcs = arcs[np.argsort(arcs[:, 0], kind="stable")]
    targets = arcs[:, 1].tolist()
    bounds = np.searchsorted(arcs[:, 0], np.arange(num_states + 1)).tolist()  # of the arcs that leave each state
    waiting = np.bincount(arcs[:, 1], minlength=num_states).tolist()  # arcs from states that are not in the order yet
    order = [start, *(state for state in range(num_states) if state != start and not waiting[state])]
    for state in order:  # it grows (Kahn 1962)
        for target in targets[bounds[state] : bounds[state + 1]]:
            waiting[target] -= 1
            if not waiting[target]:
                order.append(target)
    if len(order) < num_states:
        raise ValueError("the lattice has a cycle")
    return order


def kaldi_arcs(lattice: Any, state: int) -> Iterator[LatticeArc]:
    """Yields the arcs that leave a state of a kaldifst.Lattice.

    kaldifst's public iterators refuse lattices; its library has one for them.
    """
    from kaldifst.lib._kaldifst import _ArcIteratorLattice

    arcs = _ArcIteratorLattice(lattice, state)
    while not arcs.done:
        arc = arcs.value
        weight = arc.weight
        yield state, arc.nextstate, arc.ilabel, arc.olabel, weight.value1, weight.value2
        arcs.next()


def nbest_paths(lattice: Lattice, count: int) -> Iterator[LatticePath]:
    """Yields the best path of each of the `count` best word sequences, best first; fewer if there are no more.

    A* search with the exact cost to the end as its estimate. A state is expanded once for each word sequence that leads
    to it, by the best path, so that other alignments of the same words are not followed (determinisation on the fly).
    Of partial paths with equal estimates the one that was added last comes first: homophones in a graph without a
    language model have equal costs, and all 2^n combinations of n of them would be begun before one was complete.
    """
    return itertools.islice(_best_paths(lattice), count)


# A partial path in the queue: estimated cost of the whole path, tie breaker, cost so far, state, number of its word
# sequence, and its arcs as a linked list: (last arc, those before it). A path that has ended has the state None, and
# its list begins with the final state.
_Trail = tuple[int, Any] | None
_PartialPath = tuple[float, int, float, int | None, int, _Trail]


def _best_paths(lattice: Lattice) -> Iterator[LatticePath]:
    """Yields the best path of each word sequence, best first."""
    costs, targets, outputs = lattice.costs.tolist(), lattice.target.tolist(), lattice.outputs.tolist()
    to_end, outgoing, final = lattice.costs_to_end(), lattice.outgoing_arcs(), lattice.final.sum(axis=1).tolist()
    # Word sequences have numbers; the empty one is 0. (number of a sequence, next word) -> number of the longer one
    longer_sequences: dict[tuple[int, int], int] = {}
    expanded: set[tuple[int | None, int]] = set()  # (state, number of the word sequence)
    ties = itertools.count(0, -1)
    queue: list[_PartialPath] = []
    if lattice.num_states and to_end[0] < POS_INF:
        queue.append((to_end[0], next(ties), 0.0, 0, 0, None))
    while queue:
        _, _, cost, state, sequence, trail = heapq.heappop(queue)
        if (state, sequence) in expanded:
            continue
        expanded.add((state, sequence))
        if state is None:
            yield _trail_path(lattice, trail)
            continue
        if final[state] < POS_INF:
            heapq.heappush(queue, (cost + final[state], next(ties), cost, None, sequence, (state, trail)))
        for arc in reversed(outgoing[state]):  # so that of equal ones the first arc is followed first
            cost_so_far = cost + costs[arc]
            estimate = cost_so_far + to_end[targets[arc]]
            if estimate < POS_INF:
                word = outputs[arc]
                extended = sequence
                if word:
                    extended = longer_sequences.setdefault((sequence, word), len(longer_sequences) + 1)
                heapq.heappush(queue, (estimate, next(ties), cost_so_far, targets[arc], extended, (arc, trail)))


def _trail_path(lattice: Lattice, trail: _Trail) -> LatticePath:
    """Returns the path of a trail that begins with its final state."""
    assert trail is not None
    end, trail = trail
    arcs = []
    while trail is not None:
        arc, trail = trail
        arcs.append(arc)
    return lattice.path(arcs[::-1], end)
