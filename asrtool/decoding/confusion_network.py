"""Confusion networks: alternatives for each word of a sentence, with probabilities, from several hypotheses.

This is how ROVER (Fiscus 1997) combines the outputs of recognisers, and its extension to n-best lists (Stolcke et al.
2000, The SRI March 2000 Hub-5 conversational speech transcription system): in each slot the word with the highest
probability wins, so that the result may be a sentence that no recogniser had. Of words with the same probability, as
two recognisers with one hypothesis each have them wherever they differ, the most confident one wins.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

NO_WORD = ""  # in a slot: that there is no word in this place
# What counts as the confidence of no word, and of a word of which a recogniser says none: a word rather than no word.
NO_WORD_CONFIDENCE, UNKNOWN_CONFIDENCE = 0.5, 0.75
SAME_PROBABILITY = 1e-9  # share of the total: differences below it are due to rounding
MATCH, SKIP, INSERT = 0, 1, 2  # a word in a slot, a slot without a word, a word in a new slot

Span = tuple[float, float]  # seconds


@dataclass
class Alternative:
    """A word of a slot. `span` is from the first hypothesis that says when it has this word.

    `support` is the sum of probability times confidence over the hypotheses that have the word.
    """

    probability: float
    support: float = 0.0
    span: Span | None = None


class ChosenWord(NamedTuple):
    """A word of the result. `span` is another word's of the slot where no hypothesis says when it has this one."""

    text: str
    probability: float
    span: Span | None


class ConfusionNetwork:
    """Slots, each with words whose probabilities sum to `total`, the sum of the hypotheses'."""

    def __init__(self) -> None:
        self.slots: list[dict[str, Alternative]] = []
        self.total = 0.0

    def add(
        self,
        words: Sequence[str],
        probability: float,
        spans: Sequence[Span] | None = None,
        confidences: Sequence[float] | None = None,
    ) -> None:
        """Adds a hypothesis; `spans` and `confidences` belong to its words.

        It is aligned so that it differs in the least words, as expected over the hypotheses so far.
        """
        slots = []
        for kind, slot, word in align(self.slots, self.total, words):
            alternatives = self._without_words() if kind == INSERT else self.slots[slot]
            text = NO_WORD if kind == SKIP else words[word]
            chosen = alternatives.setdefault(text, Alternative(0.0))
            chosen.probability += probability
            if kind == SKIP:
                chosen.support += probability * NO_WORD_CONFIDENCE
            else:
                chosen.support += probability * (confidences[word] if confidences else UNKNOWN_CONFIDENCE)
            if kind != SKIP and spans and not chosen.span:
                chosen.span = spans[word]
            slots.append(alternatives)
        self.slots = slots
        self.total += probability

    def _without_words(self) -> dict[str, Alternative]:
        """Returns a new slot, in which no hypothesis so far has a word."""
        return {NO_WORD: Alternative(self.total, support=self.total * NO_WORD_CONFIDENCE)}

    def best_words(self) -> list[ChosenWord]:
        """Returns the most probable words, without slots where none is more probable.

        Of several with the same probability it is the one with the most confidence, and then the first added.
        """
        chosen = []
        for slot in self.slots:
            highest = max(one.probability for one in slot.values()) - self.total * SAME_PROBABILITY
            most_probable = [word for word, one in slot.items() if one.probability >= highest]
            text = max(most_probable, key=lambda word: slot[word].support)
            spans = [one.span for one in (slot[text], *slot.values()) if one.span]
            if text != NO_WORD:
                chosen.append(ChosenWord(text, slot[text].probability / self.total, spans[0] if spans else None))
        return chosen


def align(slots: Sequence[dict[str, Alternative]], total: float, words: Sequence[str]) -> list[tuple[int, int, int]]:
    """Returns the cheapest steps (kind, slot, word) through all slots and words, by dynamic programming.

    A word in a slot costs the probability of the slot's other alternatives, and so does a slot without a word; a word
    in a new slot costs `total`, since no hypothesis so far has it.
    """
    insertions = total * np.arange(len(words) + 1)  # of the first words
    steps = np.full((len(slots) + 1, len(words) + 1), INSERT, np.uint8)
    costs = insertions
    for row, slot in enumerate(slots, 1):
        skip = costs + _others(slot, total, NO_WORD)
        match = np.append(np.inf, costs[:-1] + [_others(slot, total, word) for word in words])
        arrival = np.minimum(match, skip) - insertions  # as if all words were inserted after it
        best = np.minimum.accumulate(arrival)
        steps[row] = np.where(arrival > best, INSERT, np.where(match <= skip, MATCH, SKIP))
        costs = best + insertions
    return _trace(steps)


def _others(slot: dict[str, Alternative], total: float, word: str) -> float:
    """The probability of all alternatives of a slot but `word`."""
    return total - slot[word].probability if word in slot else total


def _trace(steps: np.ndarray) -> list[tuple[int, int, int]]:
    """Returns the steps (kind, slot, word) of the best path, from the first slot and word on."""
    slot, word = steps.shape[0] - 1, steps.shape[1] - 1
    path = []
    while slot or word:
        kind = int(steps[slot, word])
        slot -= kind != INSERT
        word -= kind != SKIP
        path.append((kind, slot, word))
    return path[::-1]
