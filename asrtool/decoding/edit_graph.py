"""The graph of a transcript that may be partly wrong: words may be missing in the audio, and audio in the transcript.

Between two words j - 1 and j, and at both ends, there are a blank state and a filler state. The filler takes any
audio; a frame of it costs what the best unit of the frame costs, and `inserted_unit` where a new unit begins. A jump
over words takes no frame and costs `deleted_unit` for each unit. So a transcript is aligned as by an edit distance over
units whose substitutions are weighed by the acoustic model; Kaldi's `make_biased_lms` and CTC segmentation (Kuerzinger
et al. 2020) serve the same end.

              .------------------ jump ------------------.
              |                                          v
    (blank j) --> unit --> (blank) --> unit --> (blank j+1) --> ...
    (filler j)                                  (filler j+1)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from asrtool.graphs.training_graphs import Topology
from asrtool.text.tokenizer import BLANK

Pronunciations = Sequence[Sequence[int]]  # the units of each pronunciation of a word


@dataclass(frozen=True)
class EditCosts:
    """Costs in nats of what a transcript and its audio do not share.

    A misrecognised unit costs about 5 nats in a forced alignment. Units have to be cheap, so that audio is not
    explained by words that fit it by chance, and a change expensive, so that a few misrecognised units do not cost a
    word. Chosen on an hour of read English with a tenth of its sentences removed and a tenth inserted
    (docs/alignment.md): results are the same for `open` from 12 to 16; at 8, right words are lost, and with 2 nats a
    unit, wrong sentences are accepted.
    """

    open: float = 12.0  # of each jump over words, and of each stretch of filler
    deleted_unit: float = 1.0  # of each unit of a word that is not in the audio
    inserted_unit: float = 1.0  # of each unit in the audio that is not in the transcript


class _Arc(NamedTuple):
    source: int
    target: int
    log_weight: float


@dataclass(frozen=True)
class EditGraph:
    """S emitting states in an order from left to right, and J + 1 places between J words.

    Nodes 0 .. S - 1 are the emitting states; node S + j is the end of a jump to the place before word j; node S + J + 1
    is never reached, and pads the tables.
    """

    label: np.ndarray  # (S,) int64 column of the log-probs; the filler has the column after the last unit
    word: (
        np.ndarray
    )  # (S,) int64 index of the word that a state belongs to; -1 for the blanks and fillers between words
    place: np.ndarray  # (S,) int64 place of blanks and fillers between words, else -1
    sources: np.ndarray  # (W, S) int64 nodes from which each state is entered
    weights: np.ndarray  # (W, S) float64, log
    ends: np.ndarray  # (E, J + 1) int64 states in which a path is at a place: its blank, its filler, last units
    deletion: np.ndarray  # (J + 1,) float64 cost of all words before a place
    costs: EditCosts
    num_labels: int  # V

    @property
    def num_states(self) -> int:
        """S."""
        return len(self.label)

    @property
    def num_words(self) -> int:
        """J."""
        return len(self.deletion) - 1


class _Builder:
    """Collects states and arcs; numbers of nodes other than states are negative until all states are known."""

    def __init__(self, topology: Topology, costs: EditCosts, num_labels: int):
        self.topology = topology
        self.costs = costs
        self.filler = num_labels
        self.label: list[int] = []
        self.word: list[int] = []
        self.place: list[int] = []
        self.arcs: list[_Arc] = []
        self.ends: list[list[int]] = []

    def add_state(self, label: int, word: int = -1, place: int = -1) -> int:
        state = len(self.label)
        self.label.append(label)
        self.word.append(word)
        self.place.append(place)
        self.arcs.append(_Arc(state, state, 0.0))
        return state

    def add_place(self, last_units: list[int]) -> None:
        """Adds the blank and the filler at the next place, after a word that ends in the states `last_units`."""
        place = len(self.ends)
        jump = -1 - place
        blank = self.add_state(BLANK, place=place)
        filler = self.add_state(self.filler, place=place)
        self.arcs += [_Arc(source, blank, 0.0) for source in (*last_units, filler, jump)]
        self.arcs += [_Arc(source, filler, -self.costs.open) for source in (*last_units, blank, jump)]
        self.ends.append([blank, filler, *last_units])

    def add_pronunciation(self, units: Sequence[int], word: int) -> int:
        """Adds the states of a pronunciation of the next word; returns the last one."""
        jump = -1 - (len(self.ends) - 1)
        before = [*self.ends[-1], jump]
        for position, unit in enumerate(units):
            state = self.add_state(unit, word)
            allowed = [s for s in before if s < 0 or self.label[s] != unit or self.topology == "modified"]
            self.arcs += [_Arc(source, state, 0.0) for source in allowed]
            if position < len(units) - 1:
                blank = self.add_state(BLANK, word)
                self.arcs.append(_Arc(state, blank, 0.0))
                before = [state, blank]
        return state


def edit_graph(
    words: Sequence[Pronunciations], num_labels: int, topology: Topology = "ctc", costs: EditCosts | None = None
) -> EditGraph:
    """Returns the graph of a transcript of J `words` for log-probs of `num_labels` units, blank included.

    A jump may stand in place of the blank that the topology "ctc" demands between equal units. Raises ValueError for a
    word without a pronunciation, or with an empty one.
    """
    costs = costs or EditCosts()
    builder = _Builder(topology, costs, num_labels)
    builder.add_place([])
    for index, pronunciations in enumerate(words):
        if not pronunciations or not all(pronunciations):
            raise ValueError("a word without a pronunciation")
        builder.add_place([builder.add_pronunciation(units, index) for units in pronunciations])
    lengths = [min(map(len, pronunciations)) for pronunciations in words]
    return _finish(builder, np.cumsum([0.0, *(costs.deleted_unit * length for length in lengths)]))


def _finish(builder: _Builder, deletion: np.ndarray) -> EditGraph:
    num_states = len(builder.label)
    sources = np.array([arc.source for arc in builder.arcs])
    sources = np.where(sources < 0, num_states - 1 - sources, sources)  # -1 - j is node S + j
    targets = np.array([arc.target for arc in builder.arcs])
    order = np.argsort(targets, kind="stable")
    degree = np.bincount(targets, minlength=num_states)
    rank = np.arange(len(order)) - np.repeat(degree.cumsum() - degree, degree)
    unreached = num_states + len(builder.ends)
    table = np.full((degree.max(), num_states), unreached)
    weights = np.zeros(table.shape)
    table[rank, targets[order]] = sources[order]
    weights[rank, targets[order]] = np.array([arc.log_weight for arc in builder.arcs])[order]
    ends = np.full((max(map(len, builder.ends)), len(builder.ends)), unreached)
    for place, states in enumerate(builder.ends):
        ends[: len(states), place] = states
    return EditGraph(
        label=np.array(builder.label),
        word=np.array(builder.word),
        place=np.array(builder.place),
        sources=table,
        weights=weights,
        ends=ends,
        deletion=deletion,
        costs=builder.costs,
        num_labels=builder.filler,
    )
