"""The most likely path through a graph, and CTC alignments of tokens, compared with enumeration of all paths."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asrtool.graphs.training_graphs import ctc_graph, expand_topology, numerator_graph
from asrtool.objectives.viterbi import align_tokens, viterbi
from tests.objectives.random_graphs import random_graph


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), frames=st.integers(0, 3))
def test_the_viterbi_path_has_the_best_score_of_all_paths(seed, frames):
    draw = np.random.default_rng(seed)
    graph = random_graph(draw, states=draw.integers(1, 4), arcs=draw.integers(1, 5), units=3)
    log_probs = draw.normal(size=(frames, 3))
    arcs = list(zip(graph.source, graph.target, graph.weight, strict=True))
    best = -math.inf
    best_states = set()
    for states in itertools.product(range(graph.num_states), repeat=frames + 1):
        score = graph.start[states[0]] + graph.final[states[-1]]
        for time, (a, b) in enumerate(itertools.pairwise(states)):
            weights = [weight for source, target, weight in arcs if (source, target) == (a, b)]
            score += max(weights, default=-math.inf) + log_probs[time, graph.label[b]]
        if score >= best:
            best_states = best_states | {states[1:]} if score == best else {states[1:]}
            best = score
    score, path = viterbi(log_probs, graph)
    assert score == pytest.approx(best)
    assert path.shape == (frames,)
    assert best == -math.inf or tuple(path.tolist()) in best_states


def token_starts(path: tuple[int, ...], blank: int) -> list[int]:
    return [t for t, token in enumerate(path) if token != blank and (t == 0 or token != path[t - 1])]


def best_path(log_probs: torch.Tensor, tokens: list[int], blank: int) -> tuple[int, ...]:
    """The most probable of all V^T paths that collapse to `tokens`."""
    frames, vocabulary = log_probs.shape
    paths = itertools.product(range(vocabulary), repeat=frames)
    fitting = [path for path in paths if [path[t] for t in token_starts(path, blank)] == tokens]
    return max(fitting, key=lambda path: log_probs[range(frames), path].sum().item())


@pytest.mark.parametrize("tokens", [[], [1], [1, 1], [2, 1], [1, 2, 1], [2, 2, 1], [1, 2, 1, 2, 1]])
@pytest.mark.parametrize("seed", range(5))
def test_tokens_are_aligned_to_the_best_of_all_paths(tokens, seed):
    log_probs = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed)).log_softmax(-1)
    assert align_tokens(log_probs, tokens) == token_starts(best_path(log_probs, tokens, blank=0), blank=0)


def test_tokens_are_aligned_with_another_blank():
    log_probs = torch.randn(5, 3, generator=torch.Generator().manual_seed(9)).log_softmax(-1)
    assert align_tokens(log_probs, [0, 0], blank=2) == token_starts(best_path(log_probs, [0, 0], blank=2), blank=2)


def test_of_equally_likely_alignments_the_one_with_the_earliest_starts_is_taken():
    assert align_tokens(torch.zeros(6, 3), [1, 2]) == [0, 1]
    assert align_tokens(torch.zeros(6, 3), [1, 1, 2]) == [0, 2, 3]


@pytest.mark.parametrize("frames, tokens", [(0, [1]), (1, [1, 2]), (2, [1, 1])])
def test_tokens_without_an_alignment_are_refused(frames, tokens):
    with pytest.raises(ValueError, match="no CTC path"):
        align_tokens(torch.zeros(frames, 3), tokens)


@pytest.mark.parametrize("tokens", [[], [1], [1, 1], [2, 1, 1, 3]])
def test_the_ctc_graph_is_the_expanded_numerator(tokens):
    """Both have the same arcs between the same states, which only their order tells apart."""
    graphs = ctc_graph(tokens), expand_topology(numerator_graph([[tokens]] if tokens else []))
    ours, expected = (
        (
            sorted((*states[a], *states[b], weight) for a, b, weight in zip(g.source, g.target, g.weight, strict=True)),
            {state: (start, final) for state, start, final in zip(states, g.start, g.final, strict=True)},
        )
        for g in graphs
        for states in [list(zip(g.unit_state.tolist(), g.label.tolist(), strict=True))]
    )
    assert ours == expected
