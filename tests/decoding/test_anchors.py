"""Anchors between a text and a hypothesis, on random sequences with known edits and against brute force."""

from itertools import combinations

import numpy as np
import pytest

from asrtool.decoding.anchors import _longest_chain, anchor_length, find_anchors


def edited(units, errors, draw):
    """Returns units with random errors, and the position in `units` of each (None for insertions)."""
    heard = []
    for place, unit in enumerate(units):
        kind = draw.choice(["same", "sub", "del", "ins"], p=[1 - errors, errors / 2, errors / 4, errors / 4])
        if kind in ("same", "ins"):
            heard.append((unit, place))
        if kind in ("sub", "ins"):
            heard.append((int(draw.integers(1, 41)), None))
    return heard


@pytest.mark.parametrize("errors", [0.0, 0.1, 0.25])
def test_anchors_are_where_the_text_is_heard(errors):
    draw = np.random.default_rng(1)
    text = draw.integers(1, 41, 4000).tolist()
    heard = edited(text, errors, draw)
    anchors = find_anchors(text, [unit for unit, _ in heard])
    truth = {(place, index) for index, (_, place) in enumerate(heard)}
    found = [(a.text + n, a.heard + n) for a in anchors for n in range(a.length)]
    right = sum(pair in truth for pair in found)
    assert right >= 0.97 * len(found)  # a random unit may be the right one where another was deleted next to it
    assert len(found) > len(text) * (1 - errors) ** 6 * 0.8
    assert found == sorted(found) and [h for _, h in found] == sorted(h for _, h in found)


def test_there_are_no_anchors_between_unrelated_sequences():
    draw = np.random.default_rng(2)
    chance = [len(find_anchors(*draw.integers(1, 41, (2, 3000)).tolist())) for _ in range(20)]
    assert sum(chance) <= 6  # 0.1 are expected in each


def test_a_missing_part_and_an_additional_part_are_jumped_over():
    draw = np.random.default_rng(3)
    a, b, c, d = (draw.integers(1, 41, 500).tolist() for _ in range(4))
    first, second, third = (
        find_anchors([*a, *b, *d], [*a, *c, *d])[0],
        None,
        find_anchors([*a, *b, *d], [*a, *c, *d])[-1],
    )
    assert second is None and first[:2] == (0, 0) and first.length >= 500
    assert third.text == third.heard and third.text + third.length == 1500


def test_repeated_sequences_are_no_anchors_where_one_of_both_has_them_more_often():
    phrase = [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert find_anchors([*phrase, *phrase], phrase) == []


@pytest.mark.parametrize("times", [3, 5])  # of two times, the seam between them occurs once
@pytest.mark.parametrize("errors", [0.0, 0.02])
def test_a_text_that_repeats_itself_has_anchors_in_order(times, errors):
    draw = np.random.default_rng(4)
    text = draw.integers(1, 41, 1000).tolist() * times
    heard = edited(text, errors, draw)
    anchors = find_anchors(text, [unit for unit, _ in heard])
    truth = {(place, index) for index, (_, place) in enumerate(heard)}
    found = [(a.text + n, a.heard + n) for a in anchors for n in range(a.length)]
    assert sum(pair in truth for pair in found) >= 0.97 * len(found)
    assert len(found) > 0.3 * len(text)


def test_what_occurs_once_is_preferred_to_what_occurs_equally_often():
    draw = np.random.default_rng(5)
    once, often = draw.integers(1, 41, (2, 300)).tolist()
    (anchor,) = find_anchors([*often, *once, *often], [*once, *often, *often])
    assert (anchor.text, anchor.heard) == (300, 0) and anchor.length >= 300


@pytest.mark.parametrize("sequences", [([], []), ([], [1, 2, 3]), ([1, 1, 1, 1], [1, 1, 1]), ([1], [2])])
def test_degenerate_sequences_have_no_anchors(sequences):
    assert find_anchors(*sequences) == []


def test_fewer_kinds_of_units_need_longer_anchors():
    draw = np.random.default_rng(4)
    few, many = draw.integers(1, 4, (2, 1000)).tolist(), draw.integers(1, 500, (2, 1000)).tolist()
    assert anchor_length(*few) > 2 * anchor_length(*many)


def test_the_chain_is_the_longest_of_all():
    draw = np.random.default_rng(5)
    for _ in range(100):
        pairs = list(enumerate(draw.permutation(8).tolist()))
        chain = _longest_chain(pairs)
        assert all(one[1] < two[1] for one, two in zip(chain, chain[1:], strict=False))
        longer = combinations(pairs, len(chain) + 1)
        assert not any(all(a[1] < b[1] for a, b in zip(c, c[1:], strict=False)) for c in longer)
