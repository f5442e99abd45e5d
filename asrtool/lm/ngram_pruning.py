"""Entropy pruning (Stolcke 1998, "Entropy-based Pruning of Backoff Language Models", arXiv cs/0006025).

An n-gram is removed when this alone would raise the model's perplexity by less than a threshold. The rise does not
depend on what else is removed, so one pass computes it for all n-grams, and a threshold or a wanted size then chooses.
An n-gram that a longer one begins or ends with stays as long as the longer one does. SRILM keeps the beginnings only,
but KenLM cannot read a model in which many endings are missing.
"""

import numpy as np

from asrtool.errors import UserError
from asrtool.lm.ngram import NgramModel

# A history whose n-grams leave less probability to other words counts as complete: the rest is rounding
MIN_LEFTOVER = 1e-6


def prune_ngrams(model: NgramModel, threshold: float | None = None, size: int | None = None) -> NgramModel:
    """Returns the model without n-grams whose removal raises its perplexity by less than `threshold`.

    The threshold is relative, such as 1e-8.
    With `size` instead, the most useful n-grams, at most `size` in all. The words all stay. Raises UserError when
    `size` is below the number of n-grams that pruning must not touch (`perplexity_rises`).
    """
    rises = perplexity_rises(model)
    if size is not None:
        threshold = _threshold_for_size(rises, size, len(model.words))
    kept = rises >= threshold
    return recompute_backoffs(
        NgramModel(model.words, model.trie.subset(kept), model.logprobs[kept], model.backoffs[kept])
    )


def _threshold_for_size(rises: np.ndarray, size: int, words: int) -> float:
    """Returns the lowest threshold that keeps at most `size` n-grams; the empty history is not counted."""
    if size < words:
        raise UserError(f"--size {size} has no room for the {words} words; give more, or train with fewer words")
    if size >= len(rises) - 1:
        return -np.inf
    untouched = np.count_nonzero(np.isinf(rises[1:]))
    if size < untouched:
        what = f"the {untouched} n-grams that must stay: words, and n-grams after which no other word is possible"
        raise UserError(f"--size {size} has no room for {what}; give more, or train with smoothing")
    highest_removed = np.partition(rises[1:], -size - 1)[-size - 1]
    return float(np.nextafter(highest_removed, np.inf))


def perplexity_rises(model: NgramModel) -> np.ndarray:
    """Returns the relative rise of the perplexity when each n-gram is removed, (M,).

    If a longer n-gram begins or ends with it and has a higher value, that value. Infinite for words, and for the
    n-grams of histories that leave no probability to other words: pruning must not touch these.
    """
    trie = model.trie
    rises = np.full(len(trie), np.inf)
    joint = _joint_logprobs(model)
    for n in range(trie.order, 1, -1):
        nodes = trie.nodes(n)
        prefixes, words = trie.prefixes_and_words(n)
        explicit = np.exp(model.logprobs[nodes].astype(float))
        lower = np.exp(model.logprobs_after(trie.suffixes[prefixes], words))
        leftover = _leftover(prefixes, explicit, trie.nodes(n - 1))
        lower_leftover = _leftover(prefixes, lower, trie.nodes(n - 1))
        rises[nodes] = _relative_rise(np.exp(joint[prefixes]), explicit, lower, leftover, lower_leftover)
        if n < trie.order:
            longer = trie.nodes(n + 1)
            longer_prefixes, _ = trie.prefixes_and_words(n + 1)
            np.maximum.at(rises, longer_prefixes, rises[longer])
            np.maximum.at(rises, trie.suffixes[longer], rises[longer])
    return rises


def _relative_rise(
    history: np.ndarray, explicit: np.ndarray, lower: np.ndarray, leftover: np.ndarray, lower_leftover: np.ndarray
) -> np.ndarray:
    """Returns the relative rise of the perplexity, (N,): exp of the divergence in Stolcke's equations 5 to 7, minus 1.

    Arguments, each (N,): p(h), p(w|h), p(w|h'), and 1 minus the sums of p(w|h) and of p(w|h') over the n-grams of h.
    """
    sound = (leftover > MIN_LEFTOVER) & (lower_leftover > MIN_LEFTOVER)
    leftover = np.where(sound, leftover, 1)
    lower_leftover = np.where(sound, lower_leftover, 1)
    old_backoff = np.log(leftover / lower_leftover)
    new_backoff = np.log((leftover + explicit) / (lower_leftover + lower))
    change = explicit * (np.log(lower) + new_backoff - np.log(explicit)) + leftover * (new_backoff - old_backoff)
    return np.where(sound, np.expm1(-history * change), np.inf)


def _joint_logprobs(model: NgramModel) -> np.ndarray:
    """Returns log p of every n-gram as a whole, (M,).

    <s> has the probability of </s>, since both occur once a sentence.
    """
    joint = np.zeros(len(model.trie))
    for n in range(1, model.order + 1):
        nodes = model.trie.nodes(n)
        prefixes, _ = model.trie.prefixes_and_words(n)
        joint[nodes] = model.logprobs[nodes] + joint[prefixes]
        if n == 1:
            joint[1 + model.bos] = joint[1 + model.eos]
    return joint


def _leftover(prefixes: np.ndarray, probs: np.ndarray, histories: slice) -> np.ndarray:
    """Returns for each n-gram (N,): 1 minus the sum of `probs` (N,) over all n-grams of its history."""
    sums = np.bincount(prefixes - histories.start, probs, minlength=histories.stop - histories.start)
    return 1 - sums[prefixes - histories.start]


def recompute_backoffs(model: NgramModel) -> NgramModel:
    """Returns the same n-grams with back-off weights that make the probabilities after each history sum to 1 again."""
    trie = model.trie
    backoffs = np.where(trie.has_children, model.backoffs, 0).astype(np.float32)
    model = NgramModel(model.words, trie, model.logprobs, backoffs)
    for n in range(2, model.order + 1):  # shorter histories first: longer ones back off to them
        prefixes, words = trie.prefixes_and_words(n)
        explicit = np.exp(model.logprobs[trie.nodes(n)].astype(float))
        lower = np.exp(model.logprobs_after(trie.suffixes[prefixes], words))
        leftover = _leftover(prefixes, explicit, trie.nodes(n - 1))
        lower_leftover = _leftover(prefixes, lower, trie.nodes(n - 1))
        sound = (leftover > MIN_LEFTOVER) & (lower_leftover > MIN_LEFTOVER)
        backoffs[prefixes[sound]] = np.log(leftover[sound] / lower_leftover[sound])
    return model
