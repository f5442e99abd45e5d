"""Words that are added to an n-gram model without training it again.

A word gets a unigram with a given probability, which histories reach by their back-off weights, or it takes the n-grams
of a word that is used alike: wherever that word occurs in an n-gram, the new one may stand instead, as probable as that
word. A word of which neither is known gets DEFAULT_PROBABILITY: whoever adds a word expects it, so that it is more
frequent than the rarest words.
A given probability is kept, and all other unigrams lose it in proportion. What other new n-grams take after a history,
all n-grams of that history lose in proportion, the new ones too. The back-off weights are computed again, so that the
probabilities after each history sum to 1.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from asrtool.errors import UserError
from asrtool.lm.ngram import NgramModel
from asrtool.lm.ngram_pruning import recompute_backoffs
from asrtool.lm.ngram_trie import Trie
from asrtool.lm.unknown_words import rarest_word

DEFAULT_PROBABILITY = 1e-4  # docs/add_words.md has the measurement
DEFAULT_TOTAL = 0.01  # of all words, about the share of words that a vocabulary of 64,000 words lacks in LibriSpeech


class NewWord(NamedTuple):
    """A word that the model lacks. At most one of the two is given: a word to take n-grams of, or a probability."""

    word: str
    like: str | None = None
    probability: float | None = None


class _Order(NamedTuple):
    """The n-grams of one order: words (N, n), log-probs (N,) and back-off weights (N,), natural logs."""

    words: np.ndarray
    logprobs: np.ndarray
    backoffs: np.ndarray


def add_words(model: NgramModel, new_words: Sequence[NewWord]) -> NgramModel:
    """Returns the model with new words. Raises ValueError for a word that it has, and for `like` that it lacks.

    Raises UserError for probabilities that leave nothing to the words of the model.
    """
    for new in new_words:
        if new.word in model or (new.like is not None and new.like not in model):
            raise ValueError(f"{new.word}: it is in the model already, or {new.like} is not")
    words = [*model.words, *(new.word for new in new_words)]
    unspecified = sum(new.like is None and new.probability is None for new in new_words)
    default = default_logprob(model, max(1, unspecified))
    orders = [_read_order(model, n) for n in range(1, model.order + 1)]
    given: dict[int, float] = {}  # log-probs of unigrams by the number of the word
    for number, new in enumerate(new_words, len(model.words)):
        if new.probability is not None:
            given[number] = float(np.log(new.probability))
        elif new.like is None:
            orders[0] = _append(orders[0], _Order(np.array([[number]]), np.array([default]), np.zeros(1)))
        else:
            like = model.ids[new.like]
            orders = [_append(order, _copies(order, like, number)) for order in orders]
    orders = [_make_room(order, num_old) for order, num_old in zip(orders, model.trie.counts(), strict=True)]
    orders[0] = _add_unigrams(orders[0], given)
    return recompute_backoffs(_build(words, orders))


def _add_unigrams(unigrams: _Order, given: Mapping[int, float]) -> _Order:
    """Returns the unigrams with the words in `given`, by their log-probs; the others are scaled.

    Raises UserError where nothing is left to the others.
    """
    total = float(np.exp(list(given.values())).sum())
    if total >= 1:
        problem = f"the probabilities of the added words sum to {total:.6g}, which leaves nothing to the others"
        raise UserError(f"{problem}; give smaller ones")
    scaled = unigrams._replace(logprobs=unigrams.logprobs + np.log1p(-total))
    numbers, logprobs = np.array([*given], np.int64), np.array([*given.values()])
    return _append(scaled, _Order(numbers[:, None], logprobs, np.zeros(len(given))))


def default_logprob(model: NgramModel, count: int) -> float:
    """Returns the log-prob of each of `count` new words of which nothing is known.

    It is the log of DEFAULT_PROBABILITY. Many words share DEFAULT_TOTAL, and are less probable. The log-prob of the
    model's rarest word is the least.
    """
    rarest = rarest_word(model)
    if rarest is None:
        return float(-np.log(len(model.words)))
    rarest_logprob = float(model.logprobs[model.trie.nodes(1)][model.ids[rarest]])
    return max(rarest_logprob, float(np.log(min(DEFAULT_PROBABILITY, DEFAULT_TOTAL / count))))


def _read_order(model: NgramModel, order: int) -> _Order:
    nodes = model.trie.nodes(order)
    columns = model.trie.ngram_words(np.arange(nodes.start, nodes.stop), order)
    return _Order(np.stack(columns, 1), model.logprobs[nodes].astype(float), model.backoffs[nodes].astype(float))


def _copies(order: _Order, like: int, new: int) -> _Order:
    """Returns the n-grams that contain the word `like`, with `new` instead."""
    rows = (order.words == like).any(1)
    words = np.where(order.words[rows] == like, new, order.words[rows])
    return _Order(words, order.logprobs[rows], order.backoffs[rows])


def _append(order: _Order, more: _Order) -> _Order:
    return _Order(*(np.concatenate(pair) for pair in zip(order, more, strict=True)))


def _make_room(order: _Order, num_old: int) -> _Order:
    """Returns the n-grams with log-probs that leave room for those after the first `num_old`.

    After a history that the model had, new n-grams with the summed probability s make all n-grams 1 + s times less
    probable, so that a new word stays as probable as the word that it is like. A history with a new word has the
    n-grams of the word that it is like, which need no room.
    """
    number = _number_rows(order.words[:, :-1])
    count = 1 + max(number, default=0)
    is_new = np.arange(len(number)) >= num_old
    had_ngrams = np.bincount(number[~is_new], minlength=count) > 0
    added = np.bincount(number[is_new], np.exp(order.logprobs[is_new]), minlength=count)
    return order._replace(logprobs=order.logprobs - np.log1p(np.where(had_ngrams, added, 0.0))[number])


def _number_rows(rows: np.ndarray) -> np.ndarray:
    """Returns a number for each of the rows (N, n), the same for equal ones."""
    numbers = np.zeros(len(rows), np.int64)
    for column in rows.T:
        _, numbers = np.unique(numbers * (1 + rows.max()) + column, return_inverse=True)
    return numbers


def _build(words: Sequence[str], orders: Sequence[_Order]) -> NgramModel:
    """Returns the model of n-grams in any order."""
    size = len(words)
    trie = Trie(np.arange(-1, 0), size, [0, 1])
    logprobs, backoffs = [np.zeros(1)], [np.zeros(1)]
    keys, offsets = [np.array([-1])], [0, 1]
    for ngrams in orders:
        prefixes = np.zeros(len(ngrams.words), np.int64)
        for column in ngrams.words[:, :-1].T:
            prefixes = trie.find(prefixes, column)
        order_keys = prefixes * size + ngrams.words[:, -1]
        order = np.argsort(order_keys)
        keys.append(order_keys[order])
        offsets.append(offsets[-1] + len(order))
        logprobs.append(ngrams.logprobs[order])
        backoffs.append(ngrams.backoffs[order])
        trie = Trie(np.concatenate(keys), size, list(offsets))
    return NgramModel(
        words, trie, np.concatenate(logprobs).astype(np.float32), np.concatenate(backoffs).astype(np.float32)
    )
