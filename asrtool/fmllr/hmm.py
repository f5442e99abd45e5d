"""Hidden Markov models of phones for the GMM: three states each, and optional silence between words."""

from collections.abc import Iterable, Sequence

import numpy as np
from torch import Tensor

from asrtool.fmllr.gaussians import GaussianMixtures
from asrtool.graphs.training_graphs import FrameGraph, UnitGraph, numerator_graph
from asrtool.objectives.viterbi import viterbi
from asrtool.text.tokenizer import BLANK

STATES_PER_PHONE = 3
SILENCE = BLANK  # the unit that no pronunciation has


def num_hmm_states(num_units: int) -> int:
    """Returns the number of states of the models of all units; the states of the blank are silence."""
    return STATES_PER_PHONE * num_units


def is_silence(states: Tensor) -> Tensor:
    """Returns True for the states of silence."""
    return states // STATES_PER_PHONE == SILENCE


def transcript_hmm(words: Iterable[Sequence[Sequence[int]]]) -> FrameGraph:
    """Returns the graph of all ways to speak the words, which have one or more pronunciations each, as units.

    Each phone goes through its states in their order, with one frame or more in each; silence may be before, between
    and after the words. The label of a state is its number among the states of the mixtures.
    """
    return _expand(numerator_graph(words, silence=SILENCE))


def _expand(graph: UnitGraph) -> FrameGraph:
    """Returns a graph of units with each unit as a chain of states. State 0 stands for "no frame yet"."""
    pairs = dict.fromkeys((arc.target, arc.unit) for arc in graph.arcs)
    first_states = {pair: 1 + STATES_PER_PHONE * number for number, pair in enumerate(pairs)}
    num_states = 1 + STATES_PER_PHONE * len(first_states)
    label = np.zeros(num_states, np.int64)
    unit_state = np.zeros(num_states, np.int64)
    final = np.full(num_states, -np.inf)
    ends: dict[int, list[int]] = {0: [0]}  # the last frame states of the units that lead into a state of `graph`
    arcs: list[tuple[int, int]] = []
    for (target, unit), first in first_states.items():
        for offset in range(STATES_PER_PHONE):
            label[first + offset] = STATES_PER_PHONE * unit + offset
            unit_state[first + offset] = target
            arcs.append((first + offset, first + offset))
        arcs += [(first + offset, first + offset + 1) for offset in range(STATES_PER_PHONE - 1)]
        last = first + STATES_PER_PHONE - 1
        final[last] = graph.final.get(target, -np.inf)
        ends.setdefault(target, []).append(last)
    for arc in graph.arcs:
        arcs += [(end, first_states[arc.target, arc.unit]) for end in ends[arc.source]]
    start = np.full(num_states, -np.inf)
    start[0] = 0.0
    source, target_states = np.array(arcs, np.int64).T
    return FrameGraph(
        start=start,
        final=final,
        label=label,
        source=source,
        target=target_states,
        weight=np.zeros(len(arcs)),
        unit_state=unit_state,
    )


def equal_states(words: Iterable[Sequence[Sequence[int]]], num_frames: int) -> np.ndarray:
    """Returns a state for each frame, (T,): the usual pronunciations between two silences, all states equally long."""
    units = [SILENCE, *(unit for pronunciations in words for unit in pronunciations[0]), SILENCE]
    states = np.repeat(STATES_PER_PHONE * np.array(units), STATES_PER_PHONE)
    states += np.tile(np.arange(STATES_PER_PHONE), len(units))
    return states[np.arange(num_frames) * len(states) // num_frames]


def align_states(mixtures: GaussianMixtures, frames: Tensor, graph: FrameGraph) -> np.ndarray | None:
    """Returns the state (T,) of each of the frames (T, D) on the best path; None where so few frames have no path."""
    score, path = viterbi(mixtures.state_log_likelihoods(frames).numpy(), graph)
    return graph.label[path] if np.isfinite(score) else None
