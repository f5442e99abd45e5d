"""Sums over the paths of graphs, compared with enumeration of all paths and with torch's CTC."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import ctc_loss

from asrtool.graphs.training_graphs import FrameGraph, expand_topology, numerator_graph
from asrtool.graphs.unit_ngram import UnitNgram
from asrtool.objectives.forward_backward import log_space_sums, path_sum
from asrtool.objectives.graph_batch import GraphBatch
from asrtool.objectives.scaled import scaled_sums
from tests.objectives.random_graphs import random_graph


def by_enumeration(log_probs: torch.Tensor, graph: FrameGraph, leaky: np.ndarray | None = None) -> torch.Tensor:
    """The score of one utterance (T, V), path by path; `leaky` (S,) is the weight of a jump to each state."""
    jumps = [None] if leaky is None else [None, *range(graph.num_states)]
    scores = []
    for arcs in itertools.product(range(len(graph.source)), repeat=len(log_probs)):
        for jump in itertools.product(*([[None]] + [jumps] * (len(arcs) - 1))):
            score, state = graph.start[graph.source[arcs[0]]], graph.source[arcs[0]]
            for arc, to in zip(arcs, jump, strict=True):
                if to is not None:
                    score, state = score + leaky[to], to
                score = score + graph.weight[arc] if graph.source[arc] == state else -math.inf
                state = graph.target[arc]
            score += graph.final[state]
            read = [log_probs[time, graph.label[graph.target[arc]]] for time, arc in enumerate(arcs)]
            scores += [sum(read) + score] if score > -math.inf else []
    return torch.stack(scores).logsumexp(0) if scores else log_probs.sum() * 0 - torch.inf


def value_and_gradient(function, log_probs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = log_probs.clone().requires_grad_()
    value = function(leaf)
    weight = torch.arange(1.0, 1 + value.numel(), dtype=value.dtype)  # each utterance its own
    (value.nan_to_num(neginf=0) * weight).sum().backward()
    return value.detach(), leaf.grad if leaf.grad is not None else torch.zeros_like(leaf)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), shared=st.booleans(), has_leaky_hmm=st.booleans())
def test_scores_and_gradients_equal_those_of_all_paths_enumerated(seed, shared, has_leaky_hmm):
    draw = np.random.default_rng(seed)
    count, frames, units = 3, 3, 3
    graphs = [
        random_graph(draw, draw.integers(1, 4), draw.integers(1, 5), units) for _ in range(1 if shared else count)
    ]
    log_probs = torch.from_numpy(draw.normal(size=(count, frames, units)) * 3)
    lens = torch.from_numpy(draw.integers(1, frames + 1, count))
    leaky = np.log(draw.dirichlet(np.ones(graphs[0].num_states)) * 0.3) if has_leaky_hmm and shared else None

    def expected(x):
        one = [by_enumeration(x[n, : lens[n]], graphs[0 if shared else n], leaky) for n in range(count)]
        return torch.stack(one)

    def computed(x):
        batch = GraphBatch(graphs[0] if shared else graphs, dtype=torch.float64)
        return path_sum(x, lens, batch, None if leaky is None else torch.from_numpy(leaky))

    for a, b in zip(value_and_gradient(computed, log_probs), value_and_gradient(expected, log_probs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("gap, weight", [(1.0, 0.0), (40.0, 0.0), (900.0, 0.0), (1.0, -2000.0)])
def test_paths_that_are_far_worse_until_the_last_frame_count(shared, gap, weight):
    """The best paths by far, which read unit 0, may not end; only those that read unit 1 may: their posterior is 1."""
    states = np.arange(2)
    graph = FrameGraph(
        start=np.zeros(2),
        final=np.array([-np.inf, weight]),
        label=states,
        source=states,
        target=states,
        weight=np.array([0, weight]),
        unit_state=states,
    )
    log_probs = torch.zeros(2, 60, 2, dtype=torch.float64)
    log_probs[:, :, 1] = -gap
    lens = torch.tensor([60, 31])
    graphs = GraphBatch(graph if shared else [graph] * 2, dtype=torch.float64)
    value, gradient = value_and_gradient(lambda x: path_sum(x, lens, graphs) / torch.tensor([1, 2]), log_probs)
    expected = (lens.double() * (weight - gap) + weight) / torch.tensor([1, 2])
    torch.testing.assert_close(value, expected)
    inside = torch.arange(60) < lens[:, None]
    torch.testing.assert_close(gradient, torch.stack([torch.zeros_like(inside), inside], 2).double())


def test_scaled_sums_equal_log_space_sums():
    draw = np.random.default_rng(2)
    graph = expand_topology(UnitNgram(3, UnitNgram.count(draw.integers(1, 6, (30, 8)).tolist(), 3)).denominator_graph())
    log_probs, lens = 4 * torch.randn(4, 80, 6, dtype=torch.float64), torch.tensor([80, 80, 44, 1])
    for leaky in (None, torch.full((graph.num_states, 1), -9.0).double()):
        graphs = GraphBatch(graph, dtype=torch.float64)
        emissions, state_row = graphs.emissions(log_probs.log_softmax(2))
        scaled = scaled_sums(emissions, state_row, lens, graphs, None if leaky is None else leaky.exp())
        exact = log_space_sums(emissions, state_row, lens, graphs, leaky)
        assert scaled.is_exact.tolist() == exact.score.isfinite().tolist() == [True, True, True, False]
        torch.testing.assert_close(scaled.score[:3], exact.score[:3])
        for n, length in enumerate(lens[:3]):
            ours, expected = (sums.posteriors[:length, :, n] for sums in (scaled, exact))
            torch.testing.assert_close(ours, expected, rtol=1e-8, atol=1e-10)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_sums_over_numerator_graphs_are_the_ctc_loss(seed):
    draw = np.random.default_rng(seed)
    count, units = int(draw.integers(1, 5)), 4
    targets = [draw.integers(1, units, draw.integers(1, 6)).tolist() for _ in range(count)]
    lens = torch.from_numpy(draw.integers(1, 15, count))  # some are too short for their units
    log_probs = torch.from_numpy(draw.normal(size=(count, 15, units)) * 2).float().log_softmax(2)
    graphs = GraphBatch([expand_topology(numerator_graph([[units]])) for units in targets])

    def of_torch(x):
        flat, sizes = torch.tensor(sum(targets, [])), torch.tensor([len(t) for t in targets])
        loss = ctc_loss(x.transpose(0, 1), flat, lens, sizes, reduction="none", zero_infinity=True)
        return -loss

    value, gradient = value_and_gradient(lambda x: path_sum(x, lens, graphs).nan_to_num(neginf=0), log_probs)
    expected = value_and_gradient(of_torch, log_probs)
    torch.testing.assert_close(value, expected[0], rtol=1e-4, atol=1e-4)
    # torch's gradient is that by the logits, since it assumes a log_softmax: the posterior of each frame is subtracted.
    softmax_part = gradient.sum(2, keepdim=True) * log_probs.exp()
    torch.testing.assert_close(gradient - softmax_part, expected[1], rtol=1e-4, atol=1e-4)


def accepted_labels(graph, frames: int, units: int) -> dict[tuple, float]:
    """The score of each sequence of `frames` labels that the graph accepts."""
    scores = {}
    for labels in itertools.product(range(units), repeat=frames):
        x = torch.full((1, frames, units), -torch.inf, dtype=torch.float64)
        x[0, range(frames), labels] = 0.0
        x = x.clamp(min=-1e6)
        score = path_sum(x, torch.tensor([frames]), GraphBatch([graph], dtype=torch.float64)).item()
        if score > -1e5:
            scores[labels] = score
    return scores


def collapse(labels: tuple) -> tuple:
    """The units of a CTC alignment."""
    return tuple(key for key, _ in itertools.groupby(labels) if key)


def test_a_numerator_graph_accepts_each_pronunciation_and_nothing_else():
    graph = expand_topology(numerator_graph([[[1, 2], [2]], [[1]]]))
    assert {collapse(labels) for labels in accepted_labels(graph, 4, 4)} == {(1, 2, 1), (2, 1)}


def test_the_modified_topology_needs_no_blank_between_equal_units():
    twice = numerator_graph([[[1, 1]]])
    assert (1, 1) not in accepted_labels(expand_topology(twice), 2, 2)
    assert (1, 1) in accepted_labels(expand_topology(twice, "modified"), 2, 2)
    assert (1, 0, 1) in accepted_labels(expand_topology(twice, "modified"), 3, 2)


def test_a_word_without_a_pronunciation_is_refused():
    for words in ([[]], [[[1], []]]):
        with pytest.raises(ValueError, match="without a pronunciation"):
            numerator_graph(words)


def test_as_many_graphs_as_utterances_are_required():
    graph = expand_topology(numerator_graph([[[1]]]))
    with pytest.raises(ValueError, match="3 utterances, but 2 graphs"):
        path_sum(torch.zeros(3, 4, 2), torch.tensor([4, 4, 4]), GraphBatch([graph, graph]))
