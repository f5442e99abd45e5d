"""The n-gram over units, and the denominator graph that it becomes."""

import math

import numpy as np
import pytest
import torch

from asrtool.graphs.training_graphs import expand_topology, numerator_graph
from asrtool.graphs.unit_ngram import END, START, UnitNgram
from asrtool.objectives.forward_backward import path_sum
from asrtool.objectives.graph_batch import GraphBatch

SENTENCES = [[1, 2, 3], [1, 2], [2, 3, 1]]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_every_search_for_a_history_ends(order):
    ngram = UnitNgram(order, UnitNgram.count(SENTENCES, order, min_count=1))
    for history in ((), ngram.next_history((), START), ngram.next_history((), 2)):
        for unit in (1, 2, 3, 9, END):
            assert ngram.log_prob(history, unit) < 0
            ngram.next_history(history, unit)


def test_counts_without_the_empty_history_are_refused():
    counts = UnitNgram.count(SENTENCES, 3, min_count=1)
    with pytest.raises(ValueError, match=r"lacks the empty history \[\]"):
        UnitNgram(3, [row for row in counts if row[0]])
    with pytest.raises(ValueError, match=r"lacks the empty history \[\]"):
        UnitNgram(3, [])


@pytest.mark.parametrize("seen", [[], [[1, 0]], [[1, -2], [2, 5]]], ids=str)
def test_counts_that_give_no_probability_are_refused(seen):
    counts = UnitNgram.count(SENTENCES, 3, min_count=1)
    with pytest.raises(ValueError, match="history that nothing follows, or a count that is not above 0"):
        UnitNgram(3, [*counts, [[3, 3], seen]])


def test_sentences_have_the_probability_of_their_counts():
    sentences = [[1, 2, 1], [1, 2], [2, 2]]
    ngram = UnitNgram(3, UnitNgram.count(sentences, order=3, min_count=1))
    totals = {}
    for sentence in sentences:
        graph = ngram.compose(numerator_graph([[sentence]]))
        totals[tuple(sentence)] = sum(arc.log_weight for arc in graph.arcs) + sum(graph.final.values())
    # <s>: 1 1 2 -> 2/3; <s> 1: 2 2; 1 2: 1 </s>; 2 1: </s>; <s> 2: 2; 2 2: </s>
    assert {s: math.exp(v) for s, v in totals.items()} == pytest.approx(
        {(1, 2, 1): 1 / 3, (1, 2): 1 / 3, (2, 2): 1 / 3}
    )


def test_denominator_probabilities_sum_to_one_and_include_each_numerator():
    draw = np.random.default_rng(1)
    sentences = [draw.integers(1, 4, draw.integers(1, 4)).tolist() for _ in range(20)]
    for order, min_count in ((1, 1), (2, 1), (3, 2), (4, 3)):
        ngram = UnitNgram(order, UnitNgram.count(sentences, order, min_count))
        graph = ngram.denominator_graph()
        leaving = {}
        for source, _, _, weight in graph.arcs:
            leaving.setdefault(source, []).append(weight)
        for state in {0, *leaving, *graph.final}:
            total = sum(map(math.exp, [*leaving.get(state, []), graph.final.get(state, -math.inf)]))
            assert total == pytest.approx(1.0)
        x = torch.randn(1, 12, 4, dtype=torch.float64)
        lens = torch.tensor([12])
        denominator = path_sum(x, lens, GraphBatch(expand_topology(graph), dtype=torch.float64))
        for sentence in sentences[:5]:
            numerator = expand_topology(ngram.compose(numerator_graph([[sentence]])))
            assert path_sum(x, lens, GraphBatch([numerator], dtype=torch.float64)) < denominator


def test_unseen_units_have_a_small_probability():
    ngram = UnitNgram(3, UnitNgram.count([[1, 2], [2, 1]], order=3, min_count=1))
    assert -math.inf < ngram.log_prob(ngram.next_history((), START), 7) < ngram.log_prob((), 1) < 0
