"""Best paths of a lattice for many decoding weights at once."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from asrtool.decoding.lattice import POS_INF, Lattice


class DecodingWeights(NamedTuple):
    """The tuned options of a graph search. The language model weight is 1 / acoustic_scale."""

    acoustic_scale: float
    blank_penalty: float
    insertion_penalty: float

    def distance_from_defaults(self) -> float:
        """Returns a squared distance from 1, 0, 0, the weights that change nothing."""
        return np.log(self.acoustic_scale) ** 2 + self.blank_penalty**2 + self.insertion_penalty**2

    def __str__(self) -> str:
        return (
            f"acoustic scale {self.acoustic_scale:.3g} (LM weight {1 / self.acoustic_scale:.3g}), "
            f"blank penalty {self.blank_penalty:.3g}, insertion penalty {self.insertion_penalty:.3g}"
        )


def best_words(lattice: Lattice, candidates: Sequence[DecodingWeights]) -> list[tuple[int, ...]]:
    """Returns the words of the best path with each of S candidate weights: the Viterbi algorithm for all at once.

    The lattice has the costs of the weights 1, 0, 0. States of equal depth (the longest path from the start)
    are a group that numpy handles at once.
    """
    weights = np.array(candidates)  # (S, 3)
    arcs, bounds = _arcs_by_depth(lattice)
    costs = np.full((lattice.num_states, len(candidates)), POS_INF)
    best_arcs = np.zeros((lattice.num_states, len(candidates)), dtype=np.int64)
    costs[0] = 0.0
    for first, last in itertools.pairwise(bounds):
        group = arcs[first:last]
        path_costs = costs[lattice.source[group]] + _arc_costs(lattice, group, weights)
        targets, starts = np.unique(lattice.target[group], return_index=True)
        costs[targets] = np.minimum.reduceat(path_costs, starts)
        is_best = path_costs == np.repeat(costs[targets], np.diff([*starts, len(group)]), axis=0)
        best_arcs[targets] = np.minimum.reduceat(np.where(is_best, group[:, None], len(arcs)), starts)
    graph, acoustic = lattice.final.T[:, :, None]
    ends = (costs + graph + acoustic * weights[:, 0]).argmin(axis=0)
    return _trace_back(lattice, best_arcs, ends)


def _arc_costs(lattice: Lattice, group: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns the costs (A, S) of a group of A arcs with weights (S, 3)."""
    is_blank = (lattice.inputs[group] == 1)[:, None]
    is_word = (lattice.outputs[group] > 0)[:, None]
    acoustic = lattice.acoustic[group][:, None] + is_blank * weights[:, 1]
    return weights[:, 0] * acoustic + lattice.graph[group][:, None] + is_word * weights[:, 2]


def _arcs_by_depth(lattice: Lattice) -> tuple[np.ndarray, list[int]]:
    """Returns the arcs, sorted by the depth of their target and by target, and the bounds of the depths among them."""
    depth = [0] * lattice.num_states
    for source, target in zip(lattice.source.tolist(), lattice.target.tolist(), strict=True):
        depth[target] = max(depth[target], depth[source] + 1)
    depths = np.array(depth)[lattice.target]
    arcs = np.lexsort((lattice.target, depths))
    return arcs, [*np.unique(depths[arcs], return_index=True)[1].tolist(), len(arcs)]


def _trace_back(lattice: Lattice, best_arcs: np.ndarray, ends: np.ndarray) -> list[tuple[int, ...]]:
    """Returns the words along the best arcs (states, S) that lead to the states `ends`, (S,)."""
    state, columns = ends, np.arange(len(ends))
    labels = []  # from the last arc to the first
    while state.any():
        arc = best_arcs[state, columns]
        labels.append(np.where(state > 0, lattice.outputs[arc] if len(lattice.outputs) else 0, 0))
        state = np.where(state > 0, lattice.source[arc], 0)
    rows = np.array(labels[::-1], dtype=np.int64).reshape(-1, len(ends)).T.tolist()
    return [tuple(label for label in row if label) for row in rows]
