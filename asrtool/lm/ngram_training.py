"""Interpolated modified Kneser-Ney smoothing (Chen and Goodman 1998, TR-10-98, section 3), as KenLM's lmplz does it
(Heafield et al. 2013, "Scalable Modified Kneser-Ney Language Model Estimation").

    p(w | h) = max(c(h w) - D(c(h w)), 0) / c(h .) + gamma(h) p(w | h without its first word)

c is the count for n-grams of the highest order and for n-grams that begin with <s>, else the number of different words
that occur before the n-gram. The order below the words is the uniform distribution over all words but <s>, so <unk> has
some probability. N-grams are counted by sorting their packed ids. A 3-gram model takes at most about 100 bytes for each
word of the text.
"""

import logging
from collections.abc import Sequence

import numpy as np

from asrtool.errors import UserError
from asrtool.lm.corpus import Corpus
from asrtool.lm.ngram import BOS_ID, LN10, LOG_ZERO_ARPA, NgramModel
from asrtool.lm.ngram_trie import Trie

logger = logging.getLogger(__name__)

FALLBACK_DISCOUNTS = np.array([0, 0.5, 1.0, 1.5])  # lmplz --discount_fallback


def train_ngrams(corpus: Corpus, order: int, cutoffs: Sequence[int] = ()) -> NgramModel:
    """Returns a model of `order` from `corpus`.

    N-grams of order n that occur `cutoffs[n - 1]` times or less are left out. Their probability goes to the lower
    order; the last cutoff holds for all further orders. Raises UserError when no sentence is long enough for an
    n-gram of `order`.
    """
    limits = _cutoff_by_order(cutoffs, order)
    trie, counts = count_ngrams(corpus.tokens, len(corpus.words), order)
    kept = np.ones(len(trie), bool)
    for n in range(2, order + 1):
        nodes = trie.nodes(n)
        kept[nodes] = counts[nodes] > limits[n - 1]
        logger.info(f"{n}-grams: {len(kept[nodes])} seen, {int(kept[nodes].sum())} kept")
    probs, gammas = kneser_ney_probabilities(trie, kneser_ney_counts(trie, counts), kept)
    logprobs = np.log(probs[kept]).astype(np.float32)
    backoffs = np.log(gammas[kept]).astype(np.float32)
    logprobs[0] = 0
    logprobs[1 + BOS_ID] = LOG_ZERO_ARPA * LN10
    np.minimum(logprobs, 0, out=logprobs)  # a probability of 1 may be rounded up
    return NgramModel(corpus.words, trie.subset(kept), logprobs, backoffs)


def _cutoff_by_order(cutoffs: Sequence[int], order: int) -> list[int]:
    limits = [*cutoffs, *[cutoffs[-1] if cutoffs else 0] * order][:order]
    if limits[0] or limits != sorted(limits):
        shown = ",".join(map(str, cutoffs))
        raise UserError(
            f"--cutoffs {shown}: the first must be 0 (no word is left out), and they must not decrease; e.g. 0,0,1"
        )
    return limits


def count_ngrams(tokens: np.ndarray, vocab_size: int, order: int) -> tuple[Trie, np.ndarray]:
    """Returns all n-grams up to `order` in `tokens` (L,), and how often each occurs, (M,) int64.

    The tokens are word ids below `vocab_size`.
    """
    keys = [np.array([-1]), np.arange(vocab_size)]
    counts = [np.zeros(1, int), np.bincount(tokens, minlength=vocab_size)]
    offsets = [0, 1, 1 + vocab_size]
    nodes = 1 + tokens.astype(np.int64)  # of the n-gram that ends at each token, -1 where none does
    for n in range(2, order + 1):
        ends = 1 + np.flatnonzero((nodes[:-1] >= 0) & (tokens[1:] != BOS_ID))
        if not len(ends):
            raise UserError(f"the text has no {n}-grams, its sentences are too short; give --order {n - 1}")
        unique, which, times = np.unique(
            nodes[ends - 1] * vocab_size + tokens[ends], return_inverse=True, return_counts=True
        )
        nodes[:] = -1
        nodes[ends] = offsets[-1] + which
        keys.append(unique)
        counts.append(times)
        offsets.append(offsets[-1] + len(unique))
        logger.info(f"counted {len(ends)} {n}-grams, {len(unique)} different ones")
    return Trie(np.concatenate(keys), vocab_size, offsets), np.concatenate(counts)


def kneser_ney_counts(trie: Trie, counts: np.ndarray) -> np.ndarray:
    """Returns the counts c of Kneser-Ney, (M,) int64, from the counts of the text."""
    adjusted = counts.copy()
    begins_with_bos = np.zeros(len(trie), bool)  # no word can occur before these n-grams
    begins_with_bos[1 + BOS_ID] = True
    for n in range(1, trie.order):
        nodes = trie.nodes(n)
        longer = trie.nodes(n + 1)
        words_before = np.bincount(trie.suffixes[longer] - trie.offsets[n], minlength=nodes.stop - nodes.start)
        adjusted[nodes] = np.where(begins_with_bos[nodes], counts[nodes], words_before)
        prefixes, _ = trie.prefixes_and_words(n + 1)
        begins_with_bos[longer] = begins_with_bos[prefixes]
    adjusted[1 + BOS_ID] = 0  # <s> is never predicted
    return adjusted


def kneser_ney_discounts(counts: np.ndarray, order: int) -> np.ndarray:
    """Returns D(0), D(1), D(2), D(3 and more) for n-grams of `order` with adjusted `counts`.

    The formula is Chen and Goodman's equation 26.
    FALLBACK_DISCOUNTS and a warning where the counts of counts allow no discounts, as in tiny texts.
    """
    n = np.bincount(counts[counts < 5], minlength=5).astype(float)
    if n[1:4].all():
        y = n[1] / (n[1] + 2 * n[2])
        j = np.arange(1, 4)
        discounts = j - (j + 1) * y * n[j + 1] / n[j]
        if (discounts > 0).all():
            return np.array([0, *discounts])
    seen = ", ".join(f"{int(n[j])} with count {j}" for j in range(1, 5))
    logger.warning(f"too few {order}-grams to estimate the discounts ({seen}); 0.5, 1 and 1.5 are used")
    return FALLBACK_DISCOUNTS


def kneser_ney_probabilities(trie: Trie, counts: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns probabilities of the n-grams and gammas of the histories, (M,) each, from adjusted `counts`.

    An n-gram that is not `kept` (M,) gives its whole count to the gamma of its history. Gamma is 1 for a history that
    no n-gram begins with.
    """
    probs = np.zeros(len(trie))
    gammas = np.ones(len(trie))
    probs[0] = 1 / (trie.vocab_size - 1)  # uniform: the "lower order" of words
    for n in range(1, trie.order + 1):
        nodes = trie.nodes(n)
        histories = trie.nodes(n - 1)
        num_histories = histories.stop - histories.start
        prefixes, _ = trie.prefixes_and_words(n)
        ngram_counts = counts[nodes]
        discounts = kneser_ney_discounts(ngram_counts, n)[np.minimum(ngram_counts, 3)]
        discounted = np.where(kept[nodes], discounts, ngram_counts)
        total = np.bincount(prefixes - histories.start, ngram_counts, minlength=num_histories)
        gamma = np.bincount(prefixes - histories.start, discounted, minlength=num_histories)
        gammas[histories] = np.divide(gamma, total, out=np.ones_like(total), where=total > 0)
        explicit = (ngram_counts - discounted) / np.maximum(total[prefixes - histories.start], 1)
        probs[nodes] = explicit + gammas[prefixes] * probs[trie.suffixes[nodes]]
    gammas[0] = 1  # the gamma of the empty history is part of the words' probabilities
    return probs, gammas
