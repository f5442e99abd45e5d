"""Sums over the paths of graphs, beside enumeration of all paths and beside torch's CTC."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import ctc_loss

from asrtool.graphs.training_graphs import Arcs, UnitNgram, over_frames, said
from asrtool.objectives.forward_backward import best_path, log_sums, path_sum
from asrtool.objectives.graph_batch import GraphBatch
from asrtool.objectives.scaled import scaled_sums


def random_graph(draw: np.random.Generator, states: int, arcs: int, units: int) -> Arcs:
    """Some states are no start, some no end, some arcs have no weight at all."""

    def holes(size: int) -> np.ndarray:
        return np.where(draw.random(size) < 0.3, -np.inf, draw.normal(size=size))

    source, target = draw.integers(0, states, (2, arcs))
    return Arcs(
        holes(states), holes(states), draw.integers(0, units, states), source, target, holes(arcs), np.arange(states)
    )


def by_enumeration(log_probs: torch.Tensor, graph: Arcs, leak: np.ndarray | None = None) -> torch.Tensor:
    """The score of one utterance (T, V), path by path; a leak is a jump to any state."""
    jumps = [None] if leak is None else [None, *range(graph.states)]
    scores = []
    for arcs in itertools.product(range(len(graph.source)), repeat=len(log_probs)):
        for jump in itertools.product(*([[None]] + [jumps] * (len(arcs) - 1))):
            score, state = graph.start[graph.source[arcs[0]]], graph.source[arcs[0]]
            for arc, to in zip(arcs, jump, strict=True):
                if to is not None:
                    score, state = score + leak[to], to
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
@given(seed=st.integers(0, 10**6), shared=st.booleans(), leaky=st.booleans())
def test_values_and_gradients_are_those_of_all_paths_one_by_one(seed, shared, leaky):
    draw = np.random.default_rng(seed)
    count, frames, units = 3, 3, 3
    graphs = [
        random_graph(draw, draw.integers(1, 4), draw.integers(1, 5), units) for _ in range(1 if shared else count)
    ]
    log_probs = torch.from_numpy(draw.normal(size=(count, frames, units)) * 3)
    lens = torch.from_numpy(draw.integers(1, frames + 1, count))
    leak = np.log(draw.dirichlet(np.ones(graphs[0].states)) * 0.3) if leaky and shared else None

    def expected(x):
        one = [by_enumeration(x[n, : lens[n]], graphs[0 if shared else n], leak) for n in range(count)]
        return torch.stack(one)

    def found(x):
        batch = GraphBatch(graphs[0] if shared else graphs, dtype=torch.float64)
        return path_sum(x, lens, batch, None if leak is None else torch.from_numpy(leak))

    for a, b in zip(value_and_gradient(found, log_probs), value_and_gradient(expected, log_probs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("gap, weight", [(1.0, 0.0), (40.0, 0.0), (900.0, 0.0), (1.0, -2000.0)])
def test_paths_that_look_hopeless_to_the_last_frame_count(shared, gap, weight):
    """What is best by far, reading unit 0, may not end; only the paths that read unit 1 may, and so have it all."""
    never, here = -np.inf, np.zeros(2)
    graph = Arcs(here, np.array([never, weight]), *np.array([[0, 1], [0, 1], [0, 1]]), np.array([0, weight]), here)
    log_probs = torch.zeros(2, 60, 2, dtype=torch.float64)
    log_probs[:, :, 1] = -gap
    lens = torch.tensor([60, 31])
    graphs = GraphBatch(graph if shared else [graph] * 2, dtype=torch.float64)
    value, gradient = value_and_gradient(lambda x: path_sum(x, lens, graphs) / torch.tensor([1, 2]), log_probs)
    expected = (lens.double() * (weight - gap) + weight) / torch.tensor([1, 2])
    torch.testing.assert_close(value, expected)
    inside = torch.arange(60) < lens[:, None]
    torch.testing.assert_close(gradient, torch.stack([torch.zeros_like(inside), inside], 2).double())


def test_what_is_found_without_logs_is_what_is_found_with_them():
    draw = np.random.default_rng(2)
    graph = over_frames(UnitNgram(3, UnitNgram.count(draw.integers(1, 6, (30, 8)).tolist(), 3)).graph())
    log_probs, lens = 4 * torch.randn(4, 80, 6, dtype=torch.float64), torch.tensor([80, 80, 44, 1])
    for leak in (None, torch.full((graph.states, 1), -9.0).double()):
        graphs = GraphBatch(graph, dtype=torch.float64)
        frames, lines = graphs.frames(log_probs.log_softmax(2))
        quick = scaled_sums(frames, lines, lens, graphs, None if leak is None else leak.exp())
        exact = log_sums(frames, lines, lens, graphs, leak)
        assert quick.exact.tolist() == exact.total.isfinite().tolist() == [True, True, True, False]
        torch.testing.assert_close(quick.total[:3], exact.total[:3])
        for n, length in enumerate(lens[:3]):
            torch.testing.assert_close(quick.shares[:length, :, n], exact.shares[:length, :, n], rtol=1e-8, atol=1e-10)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_graphs_of_transcripts_are_ctc(seed):
    draw = np.random.default_rng(seed)
    count, units = int(draw.integers(1, 5)), 4
    targets = [draw.integers(1, units, draw.integers(1, 6)).tolist() for _ in range(count)]
    lens = torch.from_numpy(draw.integers(1, 15, count))  # some are too short for their units
    log_probs = torch.from_numpy(draw.normal(size=(count, 15, units)) * 2).float().log_softmax(2)
    graphs = GraphBatch([over_frames(said([[units]])) for units in targets])

    def of_torch(x):
        flat, sizes = torch.tensor(sum(targets, [])), torch.tensor([len(t) for t in targets])
        loss = ctc_loss(x.transpose(0, 1), flat, lens, sizes, reduction="none", zero_infinity=True)
        return -loss

    value, gradient = value_and_gradient(lambda x: path_sum(x, lens, graphs).nan_to_num(neginf=0), log_probs)
    expected = value_and_gradient(of_torch, log_probs)
    torch.testing.assert_close(value, expected[0], rtol=1e-4, atol=1e-4)
    # torch's gradient is by the logits before a softmax that it takes to be there: the rows' shares are subtracted.
    share = gradient.sum(2, keepdim=True) * log_probs.exp()
    torch.testing.assert_close(gradient - share, expected[1], rtol=1e-4, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), shared=st.booleans())
def test_the_best_path_has_the_score_of_the_best_of_all(seed, shared):
    draw = np.random.default_rng(seed)
    count, frames, units = 3, 3, 3
    graphs = [random_graph(draw, draw.integers(1, 4), draw.integers(1, 5), units) for _ in range(count)]
    graphs = graphs[:1] * count if shared else graphs
    log_probs, lens = torch.from_numpy(draw.normal(size=(count, frames, units))), torch.tensor([3, 2, 1])
    scores, paths = best_path(log_probs, lens, GraphBatch(graphs[0] if shared else graphs, dtype=torch.float64))
    for n, graph in enumerate(graphs):
        best, length = -math.inf, int(lens[n])
        for path in itertools.product(range(graph.states), repeat=length + 1):
            steps = list(itertools.pairwise(path))
            score = graph.start[path[0]] + graph.final[path[-1]]
            for time, (a, b) in enumerate(steps):
                ways = [w for s, t, w in zip(graph.source, graph.target, graph.weight, strict=True) if (s, t) == (a, b)]
                score += max(ways, default=-math.inf) + log_probs[n, time, graph.label[b]].item()
            best = max(best, score)
        assert scores[n].item() == pytest.approx(best)
        states = paths[n].tolist()
        assert states[length:] == [-1] * (frames - length)
        assert (best == -math.inf) == (states[0] == -1)


def spelled(graph, frames: int, units: int) -> dict[tuple, float]:
    """Probability of each sequence of labels of so many frames."""
    found = {}
    for labels in itertools.product(range(units), repeat=frames):
        x = torch.full((1, frames, units), -torch.inf, dtype=torch.float64)
        x[0, range(frames), labels] = 0.0
        x = x.clamp(min=-1e6)
        score = path_sum(x, torch.tensor([frames]), GraphBatch([graph], dtype=torch.float64)).item()
        if score > -1e5:
            found[labels] = score
    return found


def collapse(labels: tuple, merge: bool = True) -> tuple:
    """What CTC reads in labels."""
    return tuple(key for key, _ in itertools.groupby(labels) if key)


def test_a_graph_of_alternatives_reads_each_of_them_and_silence_anywhere():
    graph = over_frames(said([[[1, 2], [2]], [[1]]], silence=3))
    found = spelled(graph, 4, 4)
    bare = {(1, 2, 1), (2, 1)}
    read = {collapse(labels) for labels in found}
    assert {tuple(u for u in units if u != 3) for units in read} == bare
    assert {(2, 1), (3, 2, 1), (2, 3, 1), (2, 1, 3), (1, 2, 1), (3, 1, 2, 1), (1, 2, 3, 1), (1, 2, 1, 3)} <= read
    assert (1, 3, 2, 1) not in read and (3, 3, 2, 1) not in read


def test_the_modified_topology_needs_no_blank_between_equal_units():
    twice = said([[[1, 1]]])
    assert (1, 1) not in spelled(over_frames(twice), 2, 2)
    assert (1, 1) in spelled(over_frames(twice, "modified"), 2, 2)
    assert (1, 0, 1) in spelled(over_frames(twice, "modified"), 3, 2)


def test_a_word_without_a_pronunciation_has_no_graph():
    for words in ([[]], [[[1], []]]):
        with pytest.raises(ValueError, match="without a pronunciation"):
            said(words)


def test_the_unit_ngram_allows_what_was_seen_with_its_frequency():
    sentences = [[1, 2, 1], [1, 2], [2, 2]]
    ngram = UnitNgram(3, UnitNgram.count(sentences, order=3, least=1))
    totals = {}
    for sentence in sentences:
        graph = ngram.weighted(said([[sentence]]))
        totals[tuple(sentence)] = sum(arc[3] for arc in graph.arcs) + sum(graph.final.values())
    # <s>: 1 1 2 -> 2/3; <s> 1: 2 2; 1 2: 1 </s>; 2 1: </s>; <s> 2: 2; 2 2: </s>
    assert {s: math.exp(v) for s, v in totals.items()} == pytest.approx(
        {(1, 2, 1): 1 / 3, (1, 2): 1 / 3, (2, 2): 1 / 3}
    )


def test_what_could_be_said_has_probability_one_and_holds_what_is_said():
    draw = np.random.default_rng(1)
    sentences = [draw.integers(1, 4, draw.integers(1, 4)).tolist() for _ in range(20)]
    for order, least in ((1, 1), (2, 1), (3, 2), (4, 3)):
        ngram = UnitNgram(order, UnitNgram.count(sentences, order, least))
        graph = ngram.graph()
        leaving = {}
        for source, _, _, weight in graph.arcs:
            leaving.setdefault(source, []).append(weight)
        for state in {0, *leaving, *graph.final}:
            total = sum(map(math.exp, [*leaving.get(state, []), graph.final.get(state, -math.inf)]))
            assert total == pytest.approx(1.0)
        x = torch.randn(1, 12, 4, dtype=torch.float64)
        lens = torch.tensor([12])
        could = path_sum(x, lens, GraphBatch(over_frames(graph), dtype=torch.float64))
        for sentence in sentences[:5]:
            is_said = over_frames(ngram.weighted(said([[sentence]])))
            assert path_sum(x, lens, GraphBatch([is_said], dtype=torch.float64)) < could


def test_unseen_units_have_a_small_probability():
    ngram = UnitNgram(3, UnitNgram.count([[1, 2], [2, 1]], order=3, least=1))
    assert -math.inf < ngram.logprob(ngram.next((), -1), 7) < ngram.logprob((), 1) < 0


def test_utterances_and_graphs_must_be_as_many():
    graph = over_frames(said([[[1]]]))
    with pytest.raises(ValueError, match="3 utterances, but 2 graphs"):
        path_sum(torch.zeros(3, 4, 2), torch.tensor([4, 4, 4]), GraphBatch([graph, graph]))
