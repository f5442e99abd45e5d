"""Graphs over which training sums: numerators, denominators and CTC alignments, as plain arrays.

A graph over units (`UnitGraph`) becomes a graph over frames (`FrameGraph`) by a topology (`expand_topology`), which
says how many frames a unit takes, which outputs of the model they read, and where blanks may be. The denominator comes
from `unit_ngram.py`. Graphs for decoding are different: see `compile.py`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from asrtool.text.outputs import Topology, hmm_outputs
from asrtool.text.tokenizer import BLANK


@dataclass(frozen=True, kw_only=True)
class FrameGraph:
    """An acceptor of frames with S states and A arcs, without epsilons: each arc consumes one frame.

    Weights are natural logs; -inf where a path may not start, end, or pass.
    """

    start: np.ndarray  # (S,) float64: weight of starting in a state, before the first frame
    final: np.ndarray  # (S,) float64: weight of ending in a state, after the last frame
    label: np.ndarray  # (S,) int64: all arcs into a state read this output of the model, a column of the log-probs
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


def numerator_graph(words: Iterable[Sequence[Sequence[int]]], silence: int | None = None) -> UnitGraph:
    """The transcript of an utterance with all pronunciations of each word, all with log weight 0.

    `words` has the pronunciations of each word, as units. `silence` is a unit that may be before each word and behind
    the last one, with log weight 0 as well: as in Kaldi's lexicon, in which both choices have the probability 0.5.
    Raises ValueError for a word without a pronunciation, or with an empty one.
    """
    builder = _NumeratorBuilder(silence)
    for index, pronunciations in enumerate(words):
        builder.add_word(index, pronunciations)
    return UnitGraph(builder.arcs, dict.fromkeys(builder.ends, 0.0), builder.word)


class _NumeratorBuilder:
    """Builds a numerator graph word by word. `ends` are the states in which the words so far may end."""

    def __init__(self, silence: int | None):
        self.silence = silence
        self.arcs: list[UnitArc] = []
        self.word: dict[int, int] = {}
        self.num_states = 1
        self.ends = [0]
        self._add_silence()

    def add_word(self, index: int, pronunciations: Sequence[Sequence[int]]) -> None:
        """Adds all pronunciations of the word number `index`."""
        if not pronunciations or not all(pronunciations):
            raise ValueError("a word without a pronunciation")
        word_end = None  # the first pronunciation ends in a new state, the others in the same one
        for units in pronunciations:
            sources = self.ends
            for position, unit in enumerate(units, 1):
                if position == len(units) and word_end is not None:
                    target = word_end
                else:
                    target = self._new_state()
                    self.word[target] = index
                self.arcs += [UnitArc(source, unit, target, 0.0) for source in sources]
                sources = [target]
            word_end = target
        self.ends = sources
        self._add_silence()

    def _add_silence(self) -> None:
        if self.silence is not None:
            (end,) = self.ends
            self.ends = [end, self._new_state()]
            self.arcs.append(UnitArc(end, self.silence, self.ends[1], 0.0))

    def _new_state(self) -> int:
        self.num_states += 1
        return self.num_states - 1


def expand_topology(graph: UnitGraph, topology: Topology = "ctc") -> FrameGraph:
    """The frame graph of all alignments of the unit sequences of `graph` to frames.

    "ctc" (Graves et al. 2006): a unit takes one frame or more; blanks may be anywhere, and must be between equal units.
    "modified": equal units may follow each other without a blank, as in k2's ctc_topo(modified=True).
    "hmm" (Povey et al. 2016, section 2.4): unit u takes one frame of output 2 u, and then any number of frames of
    output 2 u + 1, without a blank.

    A state of the frame graph is a state of `graph` with the output of the last frame: the blank, or an output of a
    unit on an arc into that state.
    """
    units = {(arc.target, arc.unit) for arc in graph.arcs}
    states = {(0, BLANK)}  # "no frame yet"; in "hmm" no arc leads there, since the blank is not a unit
    if topology == "hmm":
        states |= {(unit_state, output) for unit_state, unit in units for output in hmm_outputs(unit)}
    else:
        states |= units | {(unit_state, BLANK) for unit_state, _ in units}
    index_of = {state: index for index, state in enumerate(sorted(states))}
    arcs = _hmm_arcs(graph, index_of) if topology == "hmm" else _ctc_arcs(graph, topology, index_of)
    start = np.full(len(index_of), -np.inf)
    start[index_of[0, BLANK]] = 0.0
    return FrameGraph(
        start=start,
        final=np.array([graph.final.get(unit_state, -np.inf) for unit_state, _ in index_of]),
        label=np.array([label for _, label in index_of]),
        source=np.array([source for source, _, _ in arcs], np.int64),
        target=np.array([target for _, target, _ in arcs], np.int64),
        weight=np.array([weight for _, _, weight in arcs]),
        unit_state=np.array([unit_state for unit_state, _ in index_of]),
    )


# (state of a `UnitGraph`, output of the last frame) -> state of a `FrameGraph`
FrameStates = dict[tuple[int, int], int]
FrameArc = tuple[int, int, float]  # source, target, log weight


def _ctc_arcs(graph: UnitGraph, topology: Topology, index_of: FrameStates) -> list[FrameArc]:
    """Returns the arcs of the frame graph in the topologies with a blank."""
    arcs = [(index, index, 0.0) for index in index_of.values()]  # a unit or blank goes on for another frame
    for (unit_state, label), index in index_of.items():
        if label != BLANK:
            arcs.append((index, index_of[unit_state, BLANK], 0.0))  # a blank after the unit
    frame_states = _by_unit_state(index_of)
    for arc in graph.arcs:
        target = index_of[arc.target, arc.unit]
        for label, source in frame_states[arc.source]:
            if label != arc.unit or topology == "modified":
                arcs.append((source, target, arc.log_weight))
    return arcs


def _hmm_arcs(graph: UnitGraph, index_of: FrameStates) -> list[FrameArc]:
    """Returns the arcs of the frame graph in topology "hmm"."""
    arcs = []
    for (_, label), index in index_of.items():
        is_further = label % 2 == 1
        if is_further:
            arcs.append((index, index, 0.0))
        elif label != BLANK:
            arcs.append((index, index + 1, 0.0))  # the states are sorted: the next one has the output `label` + 1
    frame_states = _by_unit_state(index_of)
    for arc in graph.arcs:
        target = index_of[arc.target, hmm_outputs(arc.unit)[0]]
        arcs += [(source, target, arc.log_weight) for _, source in frame_states[arc.source]]
    return arcs


def _by_unit_state(index_of: FrameStates) -> dict[int, list[tuple[int, int]]]:
    """Returns output and number of the frame states of each state of the `UnitGraph`."""
    frame_states: dict[int, list[tuple[int, int]]] = {}
    for (unit_state, label), index in index_of.items():
        frame_states.setdefault(unit_state, []).append((label, index))
    return frame_states


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
