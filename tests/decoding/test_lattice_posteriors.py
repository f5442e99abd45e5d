"""Posteriors in a lattice, against the enumeration of its paths."""

import math
from collections import defaultdict

import numpy as np
import pytest

from asrtool.decoding.lattice import Lattice
from asrtool.decoding.lattice_posteriors import arc_posteriors, word_posteriors


def random_lattice(seed: int, states: int = 7, arcs: int = 16) -> Lattice:
    """A lattice whose state s is s frames after the start: an arc to the next state reads a frame."""
    draw = np.random.default_rng(seed)
    rows = [(n, n + 1, 1, 0, draw.random(), draw.random()) for n in range(states - 1)]
    for source in draw.integers(states - 1, size=arcs).tolist():
        rows.append((source, source + 1, 1, int(draw.integers(4)), 3 * draw.random(), draw.random()))
    final = np.full((states, 2), np.inf)
    final[-1] = draw.random(), 0
    return Lattice.from_arcs(rows, final)


def all_paths(lattice: Lattice, scale: float) -> list[tuple[list[int], float]]:
    """Every path as the indices of its arcs, with exp(-scale * cost)."""
    done = []
    waiting = [(0, [], 0.0)]
    while waiting:
        state, arcs, cost = waiting.pop()
        end = lattice.final[state].sum()
        if end < math.inf:
            done.append((arcs, math.exp(-scale * (cost + end))))
        waiting += [
            (int(lattice.target[a]), [*arcs, a], cost + lattice.costs[a]) for a in lattice.outgoing_arcs()[state]
        ]
    return done


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_the_posterior_of_an_arc_is_the_share_of_the_paths_through_it(scale):
    for seed in range(10):
        lattice = random_lattice(seed)
        paths = all_paths(lattice, scale)
        share = defaultdict(float)
        for arcs, weight in paths:
            for arc in arcs:
                share[arc] += weight / sum(weight for _, weight in paths)
        expected = [share[arc] for arc in range(len(lattice.source))]
        assert arc_posteriors(lattice, scale) == pytest.approx(expected)


def test_equal_words_at_about_the_same_time_count_together():
    # word 1 in frame 1 or 2, or word 2 in frame 2; then word 3 in frame 5
    arcs = [
        (0, 1, 1, 0, 0, 0), (1, 2, 1, 1, 0, 0), (1, 2, 1, 0, 0, 0), (2, 3, 1, 0, 0, 0), (2, 4, 1, 1, 0, 0),
        (2, 4, 1, 2, 0, 0), (3, 5, 1, 0, 0, 0), (4, 5, 1, 0, 0, 0), (5, 6, 1, 3, 0, 0),
    ]  # fmt: skip
    final = np.full((7, 2), np.inf)
    final[6] = 0
    lattice = Lattice.from_arcs(arcs, final)
    # paths: (1 or none in frame 1) x (none, 1, 2 in frame 2): "1 3" twice, "1 1 3", "1 2 3", "3", "2 3"
    assert word_posteriors(lattice, [1, 3], [1, 4]) == pytest.approx([5 / 6, 1])
    assert word_posteriors(lattice, [2, 3], [2, 4]) == pytest.approx([2 / 6, 1])
    assert word_posteriors(lattice, [1, 2, 3], [1, 2, 4]) == pytest.approx([3 / 6, 2 / 6, 1])
    assert word_posteriors(lattice, [], []) == []
