"""Audio that the model does not recognise gets no lattice, where one would keep most states of a large graph."""

from dataclasses import replace

import numpy as np
import pytest

from asrtool.decoding.graph_options import GraphOptions, max_mean_entropy
from asrtool.decoding.graph_search import GraphSearch
from tests.decoding.graphs import random_log_probs, word_graph

# Two states at most are active, so that the graph counts as a large one; lattice search has no such limit.
OPTIONS = GraphOptions(beam=1e4, lattice_beam=1e4, lattice_max_entropy=0.5, max_active=2, min_active=0)
FLAT = np.log(np.full((60, 4), 0.25, np.float32))


def certain(frames: int = 60) -> np.ndarray:
    """Log-probs of one output in each frame, in turn."""
    probabilities = np.full((frames, 4), 1e-3)
    probabilities[np.arange(frames), np.arange(frames) // 3 % 4] = 1 - 3e-3
    return np.log(probabilities).astype(np.float32)


@pytest.mark.parametrize("frames, width", [(40, 7), (7, 7), (3, 7), (1, 1)])
def test_the_entropy_is_the_largest_mean_of_successive_frames(frames, width):
    for seed in range(5):
        log_probs = random_log_probs(frames, 5, seed)
        log_probs[0, 1] = -np.inf
        log_probs[0] -= np.log(np.exp(log_probs[0]).sum())
        probabilities = np.exp(log_probs.astype(np.float64))
        entropies = [-sum(p * np.log(p) for p in frame if p > 0) for frame in probabilities]
        width = min(width, frames)
        expected = max(np.mean(entropies[first : first + width]) for first in range(frames - width + 1))
        assert max_mean_entropy(log_probs, width) == pytest.approx(expected, abs=1e-5)
        assert max_mean_entropy(log_probs - 7, width) == pytest.approx(expected, abs=1e-4)  # need not be normalised


def test_the_entropy_of_special_cases():
    assert max_mean_entropy(np.zeros((0, 4), np.float32)) == 0
    assert max_mean_entropy(FLAT) == pytest.approx(np.log(4))
    assert max_mean_entropy(np.concatenate([certain(), FLAT[:25], certain()])) == pytest.approx(np.log(4), abs=1e-5)
    assert max_mean_entropy(np.concatenate([certain(), FLAT[:5], certain()])) < 0.5


@pytest.mark.parametrize("log_probs, has_lattice", [
    (certain(), True), (FLAT, False), (np.concatenate([certain(), FLAT[:30], certain()]), False),
])  # fmt: skip
def test_a_second_of_uncertain_frames_is_searched_without_a_lattice(log_probs, has_lattice):
    search = GraphSearch(word_graph(4), OPTIONS)
    hypothesis = search.decode(log_probs)
    assert (hypothesis.word_posteriors is not None) == has_lattice
    if not has_lattice:
        assert hypothesis == GraphSearch(word_graph(4), replace(OPTIONS, lattice_beam=None)).decode(log_probs)


@pytest.mark.parametrize("changed", [{"lattice_max_entropy": None}, {"max_active": 7000}, {"lattice_max_entropy": 9.0}])
def test_without_the_limit_and_in_small_graphs_all_have_lattices(changed):
    search = GraphSearch(word_graph(4), replace(OPTIONS, **changed))
    assert search.decode(FLAT).word_posteriors is not None
