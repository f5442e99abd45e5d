"""Sums over paths in blocks of frames, as CUDA graphs run them, compared with the plain recursion.

On a CPU the recorded function is called instead of a recording: padding, the tensors that stay where they are, and what
is copied into and out of them are the same. The last test records on a GPU, where there is one.
"""

import logging

import numpy as np
import pytest
import torch

from asrtool.graphs.training_graphs import expand_topology, numerator_graph
from asrtool.graphs.unit_ngram import UnitNgram
from asrtool.objectives import cuda_graphs
from asrtool.objectives.cuda_graphs import BLOCK, CudaGraphs, pad_graphs, padded_size
from asrtool.objectives.forward_backward import WeightedGraphs, path_sums
from asrtool.objectives.graph_batch import GraphBatch
from tests.objectives.random_graphs import random_graph

UNITS = 6


def denominator(device="cpu"):
    """A graph that all utterances share, and weights of a leaky HMM."""
    draw = np.random.default_rng(2)
    graph = expand_topology(
        UnitNgram(3, UnitNgram.count(draw.integers(1, UNITS, (30, 8)).tolist(), 3)).denominator_graph()
    )
    leaky = torch.full((graph.num_states,), -9.0, device=device).double()
    return WeightedGraphs(GraphBatch(graph, device, torch.float64), leaky)


def numerators(draw, count, device="cpu"):
    """A graph for each of `count` utterances: of a transcript, or any graph."""
    graphs = []
    for number in range(count):
        units = draw.integers(1, UNITS, draw.integers(1, 7)).tolist()
        graph = expand_topology(numerator_graph([[units, units[:1]]]))
        graphs.append(random_graph(draw, 5, 12, UNITS) if number % 3 == 2 else graph)
    return WeightedGraphs(GraphBatch(graphs, device, torch.float64))


def sums_and_gradient(terms, log_probs, lens, graphs=None):
    leaf = log_probs.clone().requires_grad_()
    scores = torch.stack(path_sums(leaf, lens, terms, graphs))
    weight = torch.arange(1.0, 1 + scores.numel(), device=scores.device).view_as(scores)
    (scores.nan_to_num(neginf=0) * weight).sum().backward()
    return scores.detach(), leaf.grad


def call_directly(calls):
    """What replaces the recording: the calls of the recorded functions are counted."""

    def record(function):
        function()  # as a recording does before it begins

        def call():
            calls.append(function)
            function()

        return call

    return record


def test_sums_in_blocks_are_those_of_the_plain_recursion_for_batches_of_any_size():
    draw = np.random.default_rng(1)
    shared = denominator()
    calls: list = []
    graphs = CudaGraphs(call_directly(calls))
    num_blocks = 0
    for count, frames in [(3, 40), (2, 17), (5, 1), (3, 40), (7, 2)]:
        terms = [shared, numerators(draw, count), WeightedGraphs(shared.graphs, shared.leaky_weights - 1)]
        log_probs = torch.from_numpy(3 * draw.normal(size=(count, frames, UNITS))).log_softmax(2)
        lens = torch.from_numpy(draw.integers(1, frames + 1, count))
        lens[0] = frames
        expected = sums_and_gradient(terms, log_probs, lens)
        for ours, theirs in zip(sums_and_gradient(terms, log_probs, lens, graphs), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
        num_blocks += 2 * len(terms) * -(-(frames - 1) // BLOCK)
    assert len(calls) == num_blocks and not graphs.is_broken


def test_batches_of_about_the_same_size_share_their_graphs():
    draw = np.random.default_rng(3)
    shared = denominator()
    graphs = CudaGraphs(call_directly([]))
    for _ in range(10):
        frames = int(draw.integers(2, 40))
        terms = [shared, numerators(draw, 6)]
        log_probs = torch.from_numpy(draw.normal(size=(6, frames, UNITS))).log_softmax(2)
        path_sums(log_probs, torch.full((6,), frames), terms, graphs)
    assert len(graphs.kept) <= 12


def test_few_graphs_are_kept(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "MAX_GRAPHS", 2)
    graphs = CudaGraphs(call_directly([]))
    shared = denominator()
    for count in (1, 2, 4, 8, 16):
        log_probs = torch.randn(count, 5, UNITS, dtype=torch.float64).log_softmax(2)
        lens = torch.full((count,), 5)
        expected = sums_and_gradient([shared], log_probs, lens)
        assert torch.allclose(sums_and_gradient([shared], log_probs, lens, graphs)[0], expected[0])
    assert len(graphs.kept) == 2


def test_where_nothing_can_be_recorded_a_warning_says_so_once_and_the_sums_are_the_same(caplog):
    def refuse(function):
        raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors")

    graphs = CudaGraphs(refuse)
    shared = denominator()
    log_probs = torch.randn(2, 30, UNITS, dtype=torch.float64).log_softmax(2)
    lens = torch.tensor([30, 11])
    expected = sums_and_gradient([shared], log_probs, lens)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            for ours, theirs in zip(sums_and_gradient([shared], log_probs, lens, graphs), expected, strict=True):
                assert torch.equal(ours, theirs)
    (message,) = [record.getMessage() for record in caplog.records]
    assert "no CUDA graphs" in message and "not permitted" in message and "\n" not in message


def test_too_little_memory_is_an_error_so_that_the_batch_is_split():
    def full(function):
        raise torch.OutOfMemoryError("CUDA out of memory")

    log_probs = torch.randn(1, 30, UNITS, dtype=torch.float64).log_softmax(2)
    with pytest.raises(torch.OutOfMemoryError):
        path_sums(log_probs, torch.tensor([30]), [denominator()], CudaGraphs(full))


def test_sizes_are_padded_by_a_quarter_at_most():
    sizes = [padded_size(size) for size in range(1, 5000)]
    assert all(size <= padded <= max(size + 1, 1.25 * size) for size, padded in enumerate(sizes, 1))
    assert len(set(sizes)) < 60


def test_padded_graphs_have_padded_numbers_of_states_and_of_pairs_of_states():
    draw = np.random.default_rng(5)
    for count in (1, 3, 10):
        graphs = numerators(draw, count).graphs
        padded = pad_graphs(graphs, count + 3)
        assert padded.num_graphs == count + 3
        for size in (len(padded.label), padded.incoming_matrix.values().numel()):
            assert size == padded_size(size)
        assert padded.incoming_matrix.values().numel() == padded.outgoing_matrix.values().numel()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_graphs_recorded_on_a_gpu_give_the_sums_of_the_cpu():
    draw = np.random.default_rng(4)
    graphs = CudaGraphs()
    on_gpu, on_cpu = denominator("cuda"), denominator()
    for count, frames in [(3, 40), (2, 90), (3, 40)]:
        seed = int(draw.integers(1000))
        log_probs = torch.from_numpy(3 * draw.normal(size=(count, frames, UNITS))).log_softmax(2)
        lens = torch.tensor([frames, *draw.integers(1, frames + 1, count - 1).tolist()])
        terms = [on_gpu, numerators(np.random.default_rng(seed), count, "cuda")]
        ours = sums_and_gradient(terms, log_probs.cuda(), lens, graphs)
        theirs = sums_and_gradient([on_cpu, numerators(np.random.default_rng(seed), count)], log_probs, lens)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one.cpu(), other, rtol=1e-9, atol=1e-9)
    assert not graphs.is_broken
