"""Sums over the paths of training graphs are k2's."""

import numpy as np
import pytest
import torch

from asrtool.decoding.k2_search import require_k2
from asrtool.errors import UserError
from asrtool.graphs.training_graphs import FrameGraph, expand_topology, numerator_graph
from asrtool.graphs.unit_ngram import UnitNgram
from asrtool.objectives.forward_backward import path_sum
from asrtool.objectives.graph_batch import GraphBatch
from tests.objectives import k2_oracle

pytestmark = pytest.mark.k2


@pytest.fixture(autouse=True, scope="module")
def k2_is_installed():
    try:
        require_k2()
    except UserError as error:
        pytest.skip(str(error))


def values_and_gradients(function, log_probs):
    leaf = log_probs.clone().requires_grad_()
    values = function(leaf)
    (values * torch.arange(1.0, 1 + len(values))).sum().backward()
    return values.detach(), leaf.grad


def check_sums(graphs, log_probs, lens):
    """Values and gradients equal k2's."""
    ours = values_and_gradients(lambda x: path_sum(x, lens, GraphBatch(graphs)), log_probs)
    fsas = k2_oracle.fsa_vector(graphs)
    theirs = values_and_gradients(lambda x: k2_oracle.path_sum(x, lens, fsas), log_probs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shared", [True, False], ids=["denominator", "numerators"])
def test_sums_over_paths_are_those_of_k2(shared):
    draw = np.random.default_rng(1)
    sentences = draw.integers(1, 6, (20, 6)).tolist()
    ngram = UnitNgram(3, UnitNgram.count(sentences, 3))
    graphs = expand_topology(ngram.denominator_graph())
    if not shared:
        numerators = [numerator_graph([[sentence, sentence[:3]], [[2]]]) for sentence in sentences[:4]]
        graphs = [expand_topology(ngram.compose(numerator)) for numerator in numerators]
    log_probs = (2 * torch.randn(4, 40, 6)).log_softmax(2)
    check_sums(graphs, log_probs, torch.tensor([33, 40, 21, 40]))


def test_weights_of_starts_ends_and_arcs_are_those_of_k2():
    draw = np.random.default_rng(5)
    start, final, weight = (draw.normal(size=size) for size in (3, 3, 7))
    label = draw.integers(0, 3, 3)
    source, target = draw.integers(0, 3, (2, 7))
    graph = FrameGraph(
        start=start,
        final=final,
        label=label,
        source=source,
        target=target,
        weight=weight,
        unit_state=np.arange(3),
    )
    check_sums(graph, torch.randn(2, 5, 3), torch.tensor([5, 3]))


def test_sums_of_k2_over_ctc_graphs_are_the_ctc_of_torch():
    targets = [[1, 2, 2], [3], [1, 3, 1, 2]]
    log_probs = torch.randn(3, 20, 4).log_softmax(2)
    lens = torch.tensor([12, 20, 16])
    fsas = k2_oracle.fsa_vector([expand_topology(numerator_graph([[units]])) for units in targets])
    flat = torch.tensor(sum(targets, []))
    sizes = torch.tensor([len(units) for units in targets])
    expected = -torch.nn.functional.ctc_loss(log_probs.transpose(0, 1), flat, lens, sizes, reduction="none")
    torch.testing.assert_close(k2_oracle.path_sum(log_probs, lens, fsas), expected, rtol=1e-4, atol=1e-4)
