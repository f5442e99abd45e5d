"""Anchors: where a recording says what its text says, so that both can be cut there and aligned piece by piece.

The greedy hypothesis of the recording and the units of the text are compared by sequences of n units that occur once in
each (as by "patience diff"); the longest chain of them in which both go forward is kept. n is so large that a sequence
hardly matches by chance. Where a text repeats itself so that no sequence occurs once, sequences that occur equally
often in both are paired in their order. This is Moreno et al. (1998), "A recursive algorithm for the forced alignment
of very long audio segments", without its language model.
"""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

MIN_LENGTH = 3  # units of an anchor, however many there are
CHANCE_MATCHES = 0.1  # expected number of anchors by chance, before the chain removes those that go backward


class Anchor(NamedTuple):
    """A run of the same units in both."""

    text: int  # position of its first unit in the text
    heard: int  # and in the hypothesis
    length: int


def find_anchors(text: Sequence[int], heard: Sequence[int]) -> list[Anchor]:
    """Returns the anchors of two sequences of units, in order; neighbouring ones on a diagonal are one."""
    length = anchor_length(text, heard)
    pairs = _common_places(_places(text, length), _places(heard, length))
    unique = [pair for pair, occurrences in pairs if occurrences == 1]
    chosen = unique or [pair for pair, _ in pairs]
    return list(_runs(_longest_chain(sorted(chosen)), length))


def anchor_length(text: Sequence[int], heard: Sequence[int]) -> int:
    """Returns n for which CHANCE_MATCHES sequences of n units are expected to match by chance.

    Two units are the same by chance with the probability q = sum over units of their frequencies in both; then N * M
    pairs of places have N * M * q^n matches.
    """
    if not text or not heard:
        return MIN_LENGTH
    of_text, of_heard = Counter(text), Counter(heard)
    same = sum(count * of_heard[unit] for unit, count in of_text.items()) / (len(text) * len(heard))
    if same in (0.0, 1.0):  # no match is possible, or nothing else
        return MIN_LENGTH
    pairs = len(text) * len(heard)
    return max(MIN_LENGTH, math.ceil(math.log(pairs / CHANCE_MATCHES) / -math.log(same)))


def _places(units: Sequence[int], length: int) -> dict[tuple[int, ...], list[int]]:
    """Returns the places of each sequence of `length` units, in order."""
    places: dict[tuple[int, ...], list[int]] = {}
    for place in range(len(units) - length + 1):
        places.setdefault(tuple(units[place : place + length]), []).append(place)
    return places


def _common_places(
    text: dict[tuple[int, ...], list[int]], heard: dict[tuple[int, ...], list[int]]
) -> list[tuple[tuple[int, int], int]]:
    """Returns the pairs of places of sequences that occur equally often in both, each with the number of occurrences.

    A place in the text is paired with the place of the same occurrence (first, second ...) in the hypothesis.
    """
    return [
        (pair, len(places))
        for units, places in text.items()
        if len(places) == len(heard.get(units, ()))
        for pair in zip(places, heard[units], strict=True)
    ]


def _longest_chain(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Returns the most pairs, which are in order of the first number, whose second number grows as well."""
    lowest: list[int] = []  # lowest last second number of a chain of each length
    last: list[int] = []  # index of the pair that it belongs to
    before: list[int] = []  # for each pair, the index of the pair before it in its chain
    for index, (_, value) in enumerate(pairs):
        length = bisect_left(lowest, value)
        before.append(last[length - 1] if length else -1)
        if length == len(lowest):
            lowest.append(value)
            last.append(index)
        else:
            lowest[length] = value
            last[length] = index
    chain = []
    index = last[-1] if last else -1
    while index >= 0:
        chain.append(pairs[index])
        index = before[index]
    return chain[::-1]


def _runs(pairs: Sequence[tuple[int, int]], length: int) -> Iterator[Anchor]:
    """Joins pairs on the same diagonal whose sequences of `length` units touch or overlap."""
    run: Anchor | None = None
    for text, heard in pairs:
        if run and text - run.text == heard - run.heard and text <= run.text + run.length:
            run = run._replace(length=text - run.text + length)
            continue
        if run:
            yield run
        run = Anchor(text, heard, length)
    if run:
        yield run
