"""Batches have about the same cost, at most the limit, and hold every entry once."""

import math
from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asrtool.data.batch_cost import LINEAR_COST, REFERENCE_SECONDS, UtteranceCost, pack, pairs_of_batches

COSTS = st.floats(0.5, 1000) | st.just(math.inf)
LENGTHS = st.lists(st.floats(0.1, 35), min_size=1, max_size=200)


def entries(lengths):
    return [(seconds, SimpleNamespace(id=str(number))) for number, seconds in enumerate(lengths)]


def cost_of(batch, cost):
    return len(batch) * max(cost(seconds) for seconds, _ in batch)


@settings(deadline=None)
@given(lengths=LENGTHS, attention_seconds=COSTS, limit=st.floats(1, 200), buckets=st.integers(1, 10))
def test_every_entry_is_in_one_batch_and_no_batch_of_several_costs_more_than_the_limit(
    lengths, attention_seconds, limit, buckets
):
    cost = UtteranceCost(attention_seconds)
    pairs = pairs_of_batches(entries(lengths), buckets, limit, cost)
    batches = [batch for pair in pairs for batch in pair]
    assert Counter(entry.id for batch in batches for _, entry in batch) == Counter(map(str, range(len(lengths))))
    assert all(len(batch) == 1 or cost_of(batch, cost) <= limit for batch in batches)
    assert all(len(pair) == 2 for pair in pairs[:-1])
    assert len(batches) % 2 == 0 or all(len(batch) == 1 for batch in batches)


@settings(deadline=None)
@given(lengths=LENGTHS, attention_seconds=COSTS, limit=st.floats(1, 200), buckets=st.integers(1, 10))
def test_no_batch_lies_between_the_two_of_a_pair_in_cost(lengths, attention_seconds, limit, buckets):
    cost = UtteranceCost(attention_seconds)
    pairs = pairs_of_batches(entries(lengths), buckets, limit, cost)
    costs = [cost_of(batch, cost) for pair in pairs[:-1] for batch in pair]  # the last one may have been divided
    assert costs == sorted(costs, reverse=True)


@settings(deadline=None)
@given(lengths=LENGTHS, attention_seconds=COSTS, limit=st.floats(40, 200))
def test_a_bucket_has_at_most_two_batches_more_than_when_each_is_filled_up(lengths, attention_seconds, limit):
    cost = UtteranceCost(attention_seconds)
    filled = len(list(pack(entries(lengths), limit, cost)))
    even = sum(len(pair) for pair in pairs_of_batches(entries(lengths), 1, limit, cost))
    assert filled <= even <= filled + 2  # an odd number gets one more


@pytest.mark.parametrize("attention_seconds", [10.0, 50.0, math.inf])
def test_batches_of_many_utterances_cost_about_the_same(attention_seconds):
    cost = UtteranceCost(attention_seconds)
    lengths = [1 + (number * 7919 % 2900) / 100 for number in range(4000)]  # from 1 to 30 s, in no order
    pairs = pairs_of_batches(entries(lengths), 10, 600.0, cost)
    costs = sorted(cost_of(batch, cost) for pair in pairs for batch in pair)
    spread = (costs[-1] - costs[2]) / costs[-1]  # without the two halves of a divided one
    assert spread < 0.15  # filled up to seconds, with attention_seconds 10 the costs differ by a factor of 3.5
    assert all(abs(cost_of(a, cost) - cost_of(b, cost)) < 0.03 * costs[-1] for a, b in pairs)


@settings(deadline=None)
@given(seconds=st.floats(0.1, 100), attention_seconds=COSTS)
def test_the_cost_of_the_reference_is_its_length_and_cost_grows_faster_than_length(seconds, attention_seconds):
    cost = UtteranceCost(attention_seconds)
    assert cost(REFERENCE_SECONDS) == pytest.approx(REFERENCE_SECONDS)
    assert 2 * cost(seconds) <= cost(2 * seconds) * (1 + 1e-9)
    assert LINEAR_COST(seconds) == seconds


def test_the_capacity_of_a_batch_is_what_the_sampler_puts_into_it():
    cost = UtteranceCost(20.0)
    for seconds in (2.0, 15.0, 30.0):
        (batch, *_) = pack(entries([seconds] * 100), 90.0, cost)
        assert len(batch) == cost.capacity(90.0, seconds)
    assert cost.capacity(1.0, 30.0) == 1
