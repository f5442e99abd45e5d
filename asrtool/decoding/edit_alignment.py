"""The best alignment of audio with a transcript that may be partly wrong (`asrtool/decoding/edit_graph.py`)."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np

from asrtool.decoding.edit_graph import EditGraph
from asrtool.text.tokenizer import BLANK


class Filler(NamedTuple):
    """A stretch of audio that the transcript does not have."""

    place: int  # index of the word before which it is; J after the last
    begin: int  # output frame
    end: int  # the frame after the last


class AlignedUnit(NamedTuple):
    """A unit of a word that is in the audio."""

    word: int
    unit: int
    begin: int  # output frame
    end: int  # the frame after the last


@dataclass(frozen=True)
class EditAlignment:
    """The best path of T frames through the graph of J words. Words without units in `units` are not in the audio."""

    score: float  # log-probability of the path, costs subtracted
    num_words: int  # J
    units: list[AlignedUnit]
    fillers: list[Filler]
    loss: np.ndarray  # (T,) float64 nats by which the label of each frame is worse than the best one; 0 in fillers

    @property
    def present(self) -> np.ndarray:
        """(J,) True for each word that is in the audio."""
        present = np.zeros(self.num_words, bool)
        present[[unit.word for unit in self.units]] = True
        return present


class _Choices(NamedTuple):
    """The best predecessors of all nodes."""

    source: np.ndarray  # (T, S) uint8 row of EditGraph.sources
    jump_starts: np.ndarray  # (T + 1, J) bool: the jump over word j starts before this word
    end: np.ndarray  # (T + 1, J + 1) uint8 row of EditGraph.ends


def align_with_edits(log_probs: np.ndarray, graph: EditGraph) -> EditAlignment:
    """Returns the best alignment of log_probs (T, V) with the transcript of `graph`; memory of T x S bytes.

    There always is one: everything deleted, and everything inserted.
    """
    emissions = np.column_stack([log_probs, filler_scores(log_probs, graph.costs.inserted_unit)]).astype(np.float64)
    scores, choices = _forward(emissions, graph)
    candidates = np.append(scores[graph.ends[:, -1]], scores[graph.num_states + graph.num_words])
    best = int(candidates.argmax())
    is_jump = best == len(candidates) - 1
    node = graph.num_states + graph.num_words if is_jump else int(graph.ends[best, -1])
    path = _trace(node, choices, graph)
    return _describe(float(candidates[best]), path, emissions, graph)


def filler_scores(log_probs: np.ndarray, inserted_unit: float) -> np.ndarray:
    """Returns the scores (T,) of audio without text: the best unit of each frame, less the cost of each new unit."""
    return log_probs.max(axis=1) - inserted_unit * begins_unit(log_probs)


def begins_unit(log_probs: np.ndarray) -> np.ndarray:
    """Returns (T,) True for each frame in which a unit of the greedy hypothesis begins."""
    best = log_probs.argmax(axis=1)
    before = np.concatenate([[BLANK], best[:-1]])
    return (best != BLANK) & (best != before)


def _forward(emissions: np.ndarray, graph: EditGraph) -> tuple[np.ndarray, _Choices]:
    """Returns the scores (S + J + 2,) of all nodes after the last frame, and the choices; emissions (T, V + 1)."""
    num_frames, num_states, num_words = len(emissions), graph.num_states, graph.num_words
    choices = _Choices(
        source=np.empty((num_frames, num_states), np.uint8),
        jump_starts=np.empty((num_frames + 1, num_words), bool),
        end=np.empty((num_frames + 1, num_words + 1), np.uint8),
    )
    columns = np.arange(num_states)
    scores = np.full(num_states + num_words + 2, -np.inf)
    scores[graph.ends[0, 0]] = 0.0  # the first blank stands for "no frame yet" as well
    _jump(scores, choices, 0, graph)
    for time, frame in enumerate(emissions):
        candidates = scores[graph.sources]
        candidates += graph.weights
        best = candidates.argmax(axis=0)
        choices.source[time] = best
        scores[:num_states] = candidates[best, columns] + frame[graph.label]
        _jump(scores, choices, time + 1, graph)
    return scores, choices


def _jump(scores: np.ndarray, choices: _Choices, time: int, graph: EditGraph) -> None:
    """Sets the scores of the ends of jumps from the scores of the emitting states: jump(j) = max over i < j of
    at_place(i) - open - deletion cost of words i .. j - 1."""
    at_ends = scores[graph.ends]  # (E, J + 1)
    best = at_ends.argmax(axis=0)
    choices.end[time] = best
    at_place = at_ends[best, np.arange(len(best))] + graph.deletion
    furthest = np.maximum.accumulate(at_place[:-1])  # (J,)
    choices.jump_starts[time] = furthest == at_place[:-1]
    first = graph.num_states + 1
    scores[first : first + graph.num_words] = furthest - graph.costs.open - graph.deletion[1:]


def _trace(node: int, choices: _Choices, graph: EditGraph) -> np.ndarray:
    """Returns the states (T,) of the best path that ends in `node`."""
    path = np.empty(len(choices.source), np.int64)
    time = len(path)
    while time or node >= graph.num_states:
        place = node - graph.num_states
        if place < 0:
            path[time - 1] = node
            node = int(graph.sources[choices.source[time - 1, node], node])
            time -= 1
        elif choices.jump_starts[time, place - 1]:
            node = int(graph.ends[choices.end[time, place - 1], place - 1])
        else:
            node -= 1
    return path


def _describe(score: float, path: np.ndarray, emissions: np.ndarray, graph: EditGraph) -> EditAlignment:
    labels = graph.label[path]
    best = emissions[:, :-1].max(axis=1)
    own = emissions[np.arange(len(path)), labels]
    loss = np.where(labels == graph.num_labels, 0.0, best - own)
    return EditAlignment(score, graph.num_words, _units(path, graph), _fillers(path, emissions, graph), loss)


def _state_runs(path: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Yields each state of the path with its first frame and the frame after its last."""
    begin = 0
    for state, group in groupby(path.tolist()):
        end = begin + len(list(group))
        yield state, begin, end
        begin = end


def _units(path: np.ndarray, graph: EditGraph) -> list[AlignedUnit]:
    return [
        AlignedUnit(int(graph.word[state]), int(graph.label[state]), begin, end)
        for state, begin, end in _state_runs(path)
        if graph.word[state] >= 0 and graph.label[state] != BLANK
    ]


def _fillers(path: np.ndarray, emissions: np.ndarray, graph: EditGraph) -> list[Filler]:
    """Returns the stretches of filler, without the blanks at both ends, which cost the same as in the blank state."""
    is_unit = emissions[:, :-1].argmax(axis=1) != BLANK
    fillers = []
    for state, begin, end in _state_runs(path):
        units = begin + np.flatnonzero(is_unit[begin:end])
        if graph.label[state] == graph.num_labels and len(units):
            fillers.append(Filler(int(graph.place[state]), int(units[0]), int(units[-1]) + 1))
    return fillers
