"""Graphs over which training sums: numerators, denominators and CTC alignments, as plain arrays.

A graph over units (`UnitGraph`) becomes a graph over frames (`FrameGraph`) by a topology (`expand_topology`), which
says how many frames a unit takes and where blanks may be. The denominator comes from `unit_ngram.py`. Graphs for
decoding are different: see `compile.py`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from asrtool.text.tokenizer import BLANK

Topology = Literal["ctc", "modified"]


@dataclass(frozen=True, kw_only=True)
class FrameGraph:
    """An acceptor of frames with S states and A arcs, without epsilons: each arc consumes one frame.

    Weights are natural logs; -inf where a path may not start, end, or pass.
    """

    start: np.ndarray  # (S,) float64: weight of starting in a state, before the first frame
    final: np.ndarray  # (S,) float64: weight of ending in a state, after the last frame
    label: np.ndarray  # (S,) int64: all arcs into a state have its label, a column of the log-probabilities
    source: np.ndarray  # (A,) int64
    target: np.ndarray  # (A,) int64
    weight: np.ndarray  # (A,) float64
    unit_state: np.ndarray  # (S,) int64: the state of the `UnitGraph` that a state was expanded from

    @property
    def num_states(self) -> int:
        """S."""
        return len(self.start)

    @property
    def num_arcs(self) -> int:
        """A."""
        return len(self.source)


class UnitArc(NamedTuple):
    """An arc of a `UnitGraph`."""

    source: int
    unit: int  # never the blank
    target: int
    log_weight: float


@dataclass(frozen=True)
class UnitGraph:
    """An acceptor of units that starts in state 0."""

    arcs: Sequence[UnitArc]
    final: dict[int, float]  # log weight of ending in a state, for the states where a path may end
    word: dict[int, int] = field(default_factory=dict)  # of a numerator: the index of the word that a state belongs to


def numerator_graph(words: Iterable[Sequence[Sequence[int]]]) -> UnitGraph:
    """The transcript of an utterance with all pronunciations of each word, all with log weight 0.

    `words` has the pronunciations of each word, as units. Raises ValueError for a word without a pronunciation, or with
    an empty one.
    """
    arcs: list[UnitArc] = []
    word: dict[int, int] = {}
    num_states = 1
    word_start = 0
    for index, pronunciations in enumerate(words):
        if not pronunciations or not all(pronunciations):
            raise ValueError("a word without a pronunciation")
        word_end = None  # the first pronunciation ends in a new state, the others in the same one
        for units in pronunciations:
            source = word_start
            for position, unit in enumerate(units, 1):
                if position == len(units) and word_end is not None:
                    target = word_end
                else:
                    target = num_states
                    num_states += 1
                    word[target] = index
                arcs.append(UnitArc(source, unit, target, 0.0))
                source = target
            word_end = source
        word_start = source
    return UnitGraph(arcs, {word_start: 0.0}, word)


def expand_topology(graph: UnitGraph, topology: Topology = "ctc") -> FrameGraph:
    """The frame graph of all alignments of the unit sequences of `graph` to frames.

    "ctc" (Graves et al. 2006): a unit takes one frame or more; blanks may be anywhere, and must be between equal units.
    "modified": equal units may follow each other without a blank, as in k2's ctc_topo(modified=True).

    A state of the frame graph is a state of `graph` with the label of the last frame: the blank, or a unit on an arc
    into that state.
    """
    states = {(0, BLANK)}  # (state of `graph`, label)
    for arc in graph.arcs:
        states.add((arc.target, BLANK))
        states.add((arc.target, arc.unit))
    index_of = {state: index for index, state in enumerate(sorted(states))}
    arcs = _frame_arcs(graph, topology, index_of)
    start = np.full(len(index_of), -np.inf)
    start[index_of[0, BLANK]] = 0.0
    return FrameGraph(
        start=start,
        final=np.array([graph.final.get(unit_state, -np.inf) for unit_state, _ in index_of]),
        label=np.array([label for _, label in index_of]),
        source=np.array([source for source, _, _ in arcs]),
        target=np.array([target for _, target, _ in arcs]),
        weight=np.array([weight for _, _, weight in arcs]),
        unit_state=np.array([unit_state for unit_state, _ in index_of]),
    )


def _frame_arcs(
    graph: UnitGraph, topology: Topology, index_of: dict[tuple[int, int], int]
) -> list[tuple[int, int, float]]:
    """Returns (source, target, log weight) of each arc of the frame graph.

    `index_of` numbers its states: (state of `graph`, label) -> index.
    """
    labels: dict[int, list[int]] = {}  # state of `graph` -> the labels of its frame states
    for unit_state, label in index_of:
        labels.setdefault(unit_state, []).append(label)
    arcs = [(index, index, 0.0) for index in index_of.values()]  # a unit or blank goes on for another frame
    for (unit_state, label), index in index_of.items():
        if label != BLANK:
            arcs.append((index, index_of[unit_state, BLANK], 0.0))  # a blank after the unit
    for arc in graph.arcs:
        target = index_of[arc.target, arc.unit]
        for label in labels[arc.source]:
            if label != arc.unit or topology == "modified":
                arcs.append((index_of[arc.source, label], target, arc.log_weight))
    return arcs


def ctc_graph(units: Sequence[int], blank: int = BLANK) -> FrameGraph:
    """All CTC alignments of a unit sequence, with states in time order.

    This is the graph that `expand_topology` returns for the sequence, but built without a loop.

    States: blank, unit 0, blank, unit 1, ..., blank. The odd ones are units; a path starts in state 0, which stands for
    "no frame yet" as well.
    """
    label = np.full(2 * len(units) + 1, blank)
    label[1::2] = units
    states = np.arange(len(label))
    # The blank between two units may be skipped unless they are equal; two blanks are equal, too.
    skips = states[:-2][label[2:] != label[:-2]]
    start = np.full(len(label), -np.inf)
    start[0] = 0.0
    final = np.full(len(label), -np.inf)
    final[-2:] = 0.0
    num_arcs = len(states) + len(states) - 1 + len(skips)
    return FrameGraph(
        start=start,
        final=final,
        label=label,
        source=np.concatenate([states, states[:-1], skips]),
        target=np.concatenate([states, states[1:], skips + 2]),
        weight=np.zeros(num_arcs),
        unit_state=(states + 1) // 2,
    )
