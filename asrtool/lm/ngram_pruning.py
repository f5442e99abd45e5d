"""Entropy pruning (Stolcke 1998, "Entropy-based Pruning of Backoff Language Models", arXiv cs/0006025).

An n-gram goes when the model's perplexity would rise by less than a threshold without it, all others in place. The rise
does not depend on what else goes, so one pass finds it for all n-grams, and a threshold or a wanted size then chooses.
What longer n-grams begin or end with stays as long as they do. SRILM keeps the beginnings only, but KenLM cannot read
a model in which many endings are missing.
"""

import numpy as np

from asrtool.errors import UserError
from asrtool.lm.ngram import NgramModel

REST = 1e-6  # a history that leaves less to other words is as good as complete: the rest is rounding (float32, files)


def prune(model: NgramModel, threshold: float | None = None, size: int | None = None) -> NgramModel:
    """The model without n-grams whose loss raises its perplexity by less than `threshold`, such as 1e-8 (relative).

    With `size` instead, the most useful n-grams, at most `size` in all. The words all stay. Raises UserError when
    `size` has no room for them.
    """
    rises = importance(model)
    if size is not None:
        threshold = _threshold(rises, size, len(model.words))
    chosen = rises >= threshold
    return rebalance(NgramModel(model.words, model.trie.keep(chosen), model.logprobs[chosen], model.backoffs[chosen]))


def _threshold(rises: np.ndarray, size: int, words: int) -> float:
    """The least one that keeps at most `size` n-grams; the empty history is not counted."""
    if size < words:
        raise UserError(f"--size {size} has no room for the {words} words; give more, or train with fewer words")
    if size >= len(rises) - 1:
        return -np.inf
    left_out = np.partition(rises[1:], -size - 1)[-size - 1]  # the best that must go
    return float(np.nextafter(left_out, np.inf))


def importance(model: NgramModel) -> np.ndarray:
    """The relative rise of perplexity without each n-gram, (M,), or that of a longer n-gram that needs it, if more.

    Infinite for words and for what pruning must not touch: histories that leave nothing to other words.
    """
    trie, rises = model.trie, np.full(len(model.trie), np.inf)
    histories = _history_logprobs(model)
    for n in range(trie.order, 1, -1):
        nodes = trie.nodes(n)
        parents, words = trie.split(n)
        explicit = np.exp(model.logprobs[nodes].astype(float))
        lower = np.exp(model.logprobs_after(trie.suffixes[parents], words))
        rest, lower_rest = (_rest(parents, values, trie.nodes(n - 1)) for values in (explicit, lower))
        rises[nodes] = _rise(np.exp(histories[parents]), explicit, lower, rest, lower_rest)
        if n < trie.order:
            longer = trie.nodes(n + 1)
            np.maximum.at(rises, trie.split(n + 1)[0], rises[longer])
            np.maximum.at(rises, trie.suffixes[longer], rises[longer])
    return rises


def _rise(history, explicit, lower, rest, lower_rest) -> np.ndarray:
    """Stolcke, equations 5 to 7: exp of the divergence, less 1. Each (N,): p(h), p(w|h), p(w|h'), 1 - sums of these."""
    sound = (rest > REST) & (lower_rest > REST)
    rest, lower_rest = np.where(sound, rest, 1), np.where(sound, lower_rest, 1)
    old, new = np.log(rest / lower_rest), np.log((rest + explicit) / (lower_rest + lower))
    change = explicit * (np.log(lower) + new - np.log(explicit)) + rest * (new - old)
    return np.where(sound, np.expm1(-history * change), np.inf)


def _history_logprobs(model: NgramModel) -> np.ndarray:
    """log p of every n-gram as a whole, (M,); <s> has the probability of </s>, since both occur once a sentence."""
    joint = np.zeros(len(model.trie))
    for n in range(1, model.order + 1):
        nodes = model.trie.nodes(n)
        joint[nodes] = model.logprobs[nodes] + joint[model.trie.split(n)[0]]
        if n == 1:
            joint[1 + model.bos] = joint[1 + model.eos]
    return joint


def _rest(parents: np.ndarray, values: np.ndarray, histories: slice) -> np.ndarray:
    """For each n-gram: 1 less the sum of `values` over all n-grams of its history."""
    sums = np.bincount(parents - histories.start, values, minlength=histories.stop - histories.start)
    return 1 - sums[parents - histories.start]


def rebalance(model: NgramModel) -> NgramModel:
    """The same n-grams with back-off weights that make the probabilities after each history sum to 1 again."""
    trie = model.trie
    backoffs = np.where(trie.inner, model.backoffs, 0).astype(np.float32)
    model = NgramModel(model.words, trie, model.logprobs, backoffs)
    for n in range(2, model.order + 1):  # shorter histories first: longer ones back off to them
        parents, words = trie.split(n)
        explicit = np.exp(model.logprobs[trie.nodes(n)].astype(float))
        lower = np.exp(model.logprobs_after(trie.suffixes[parents], words))
        rest, lower_rest = (_rest(parents, values, trie.nodes(n - 1)) for values in (explicit, lower))
        sound = (rest > REST) & (lower_rest > REST)
        backoffs[parents[sound]] = np.log(rest[sound] / lower_rest[sound])
    return model
