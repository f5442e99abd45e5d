"""Confusion networks: alternatives for each word of a sentence, with probabilities, from several hypotheses.

This is how ROVER (Fiscus 1997) combines the outputs of recognisers, and its extension to n-best lists (Stolcke et al.
2000, The SRI March 2000 Hub-5 conversational speech transcription system): in each slot the word with the highest
probability wins, so that the result may be a sentence that no recogniser had.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

NO_WORD = ""  # in a slot: that there is no word in this place
MATCH, SKIP, INSERT = 0, 1, 2  # a word in a slot, a slot without a word, a word in a new slot

Span = tuple[float, float]  # seconds


@dataclass
class Alternative:
    """A word of a slot. `span` is from the first hypothesis that says when it has this word."""

    probability: float
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

    def add(self, words: Sequence[str], probability: float, spans: Sequence[Span] | None = None) -> None:
        """Adds a hypothesis; `spans` are the times of its words.

        It is aligned so that it differs in the least words, as expected over the hypotheses so far.
        """
        slots = []
        for kind, slot, word in align(self.slots, self.total, words):
            alternatives = {NO_WORD: Alternative(self.total)} if kind == INSERT else self.slots[slot]
            text = NO_WORD if kind == SKIP else words[word]
            chosen = alternatives.setdefault(text, Alternative(0.0))
            chosen.probability += probability
            if kind != SKIP and spans and not chosen.span:
                chosen.span = spans[word]
            slots.append(alternatives)
        self.slots = slots
        self.total += probability

    def best_words(self) -> list[ChosenWord]:
        """Returns the most probable words, without slots where none is more probable; of several, the first added."""
        chosen = []
        for slot in self.slots:
            text = max(slot, key=lambda word: slot[word].probability)
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
