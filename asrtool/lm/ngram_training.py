"""Interpolated modified Kneser-Ney smoothing (Chen and Goodman 1998, TR-10-98, section 3), as KenLM's lmplz does it
(Heafield et al. 2013, "Scalable Modified Kneser-Ney Language Model Estimation").

    p(w | h) = max(c(h w) - D(c(h w)), 0) / c(h .) + gamma(h) p(w | h without its first word)

c is the count for n-grams of the highest order and those that begin with <s>, else the number of different words that
were seen before the n-gram. Words end in the uniform distribution over all words but <s>, so <unk> has some of it.
N-grams are counted by sorting their packed numbers. A 3-gram model takes about 100 bytes a word of text at most.
"""

import logging
from collections.abc import Sequence

import numpy as np

from asrtool.errors import UserError
from asrtool.lm.corpus import Corpus
from asrtool.lm.ngram import BOS, NEVER, SPECIAL, NgramModel
from asrtool.lm.ngram_trie import Trie

logger = logging.getLogger(__name__)

START = SPECIAL.index(BOS)
FALLBACK = np.array([0, 0.5, 1.0, 1.5])  # lmplz --discount_fallback


def train(corpus: Corpus, order: int, cutoffs: Sequence[int] = ()) -> NgramModel:
    """A model of `order` from `corpus`. N-grams of order n seen `cutoffs[n - 1]` times or less are left out, and what
    they had goes to the lower order; the last cutoff is that of all further orders.

    Raises UserError when no sentence is long enough for an n-gram of `order`.
    """
    limits = _limits(cutoffs, order)
    trie, counts = count(corpus.tokens, len(corpus.words), order)
    chosen = np.ones(len(trie), bool)
    for n in range(2, order + 1):
        nodes = trie.nodes(n)
        chosen[nodes] = counts[nodes] > limits[n - 1]
        logger.info(f"{n}-grams: {len(chosen[nodes])} seen, {int(chosen[nodes].sum())} kept")
    probs, gammas = smooth(trie, adjust(trie, counts), chosen)
    logprobs, backoffs = (np.log(values[chosen]).astype(np.float32) for values in (probs, gammas))
    logprobs[0], logprobs[1 + START] = 0, NEVER
    np.minimum(logprobs, 0, out=logprobs)  # a probability of 1 may be rounded up
    return NgramModel(corpus.words, trie.keep(chosen), logprobs, backoffs)


def _limits(cutoffs: Sequence[int], order: int) -> list[int]:
    limits = [*cutoffs, *[cutoffs[-1] if cutoffs else 0] * order][:order]
    if limits[0] or limits != sorted(limits):
        shown = ",".join(map(str, cutoffs))
        raise UserError(f"cutoffs {shown}: the first must be 0, since words stay, and none less than the one before it")
    return limits


def count(tokens: np.ndarray, size: int, order: int) -> tuple[Trie, np.ndarray]:
    """All n-grams up to `order` in `tokens` (L,), words below `size`, and how often each occurs, (M,) int64."""
    keys, counts, offsets = [np.array([-1]), np.arange(size)], [np.zeros(1, int)], [0, 1, 1 + size]
    counts.append(np.bincount(tokens, minlength=size))
    nodes = 1 + tokens.astype(np.int64)  # of the n-gram that ends at each place, -1 where none does
    for n in range(2, order + 1):
        ends = 1 + np.flatnonzero((nodes[:-1] >= 0) & (tokens[1:] != START))
        if not len(ends):
            raise UserError(f"the text has no {n}-grams, its sentences are too short; give --order {n - 1}")
        unique, which, times = np.unique(nodes[ends - 1] * size + tokens[ends], return_inverse=True, return_counts=True)
        nodes[:] = -1
        nodes[ends] = offsets[-1] + which
        keys.append(unique)
        counts.append(times)
        offsets.append(offsets[-1] + len(unique))
        logger.info(f"counted {len(ends)} {n}-grams, {len(unique)} different ones")
    return Trie(np.concatenate(keys), size, offsets), np.concatenate(counts)


def adjust(trie: Trie, counts: np.ndarray) -> np.ndarray:
    """The counts c of Kneser-Ney, (M,) int64, from those of the text."""
    adjusted = counts.copy()
    begins = np.zeros(len(trie), bool)  # with <s>: nothing can stand before those
    begins[1 + START] = True
    for n in range(1, trie.order):
        nodes, longer = trie.nodes(n), trie.nodes(n + 1)
        before = np.bincount(trie.suffixes[longer] - trie.offsets[n], minlength=nodes.stop - nodes.start)
        adjusted[nodes] = np.where(begins[nodes], counts[nodes], before)
        begins[longer] = begins[trie.split(n + 1)[0]]
    adjusted[1 + START] = 0  # it is never predicted
    return adjusted


def discounts(counts: np.ndarray, order: int) -> np.ndarray:
    """D(0), D(1), D(2), D(3 and more) for n-grams of `order` with adjusted `counts` (Chen and Goodman, equation 26).

    Where the counts of counts allow none, which is so for tiny texts, FALLBACK and a warning.
    """
    n = np.bincount(counts[counts < 5], minlength=5).astype(float)
    if n[1:4].all():
        y, j = n[1] / (n[1] + 2 * n[2]), np.arange(1, 4)
        found = j - (j + 1) * y * n[j + 1] / n[j]
        if (found > 0).all():
            return np.array([0, *found])
    seen = ", ".join(f"{int(n[j])} seen {j} times" for j in range(1, 5))
    logger.info(f"warning: no discounts from so few {order}-grams ({seen}); 0.5, 1 and 1.5 are used")
    return FALLBACK


def smooth(trie: Trie, counts: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the n-grams and gammas of the histories, (M,) each, from adjusted `counts`.

    What is not `chosen` (M,) gives its whole count to the gamma of its history. Gamma is 1 where nothing follows.
    """
    probs, gammas = np.zeros(len(trie)), np.ones(len(trie))
    probs[0] = 1 / (trie.size - 1)  # uniform: the "lower order" of words
    for n in range(1, trie.order + 1):
        nodes, histories = trie.nodes(n), trie.nodes(n - 1)
        parents, _ = trie.split(n)
        found = counts[nodes]
        given = np.where(chosen[nodes], discounts(found, n)[np.minimum(found, 3)], found)
        sizes = {"minlength": histories.stop - histories.start}
        total = np.bincount(parents - histories.start, found, **sizes)
        gamma = np.bincount(parents - histories.start, given, **sizes)
        gammas[histories] = np.divide(gamma, total, out=np.ones_like(total), where=total > 0)
        kept = (found - given) / np.maximum(total[parents - histories.start], 1)
        probs[nodes] = kept + gammas[parents] * probs[trie.suffixes[nodes]]
    gammas[0] = 1  # that of the empty history is in the words' probabilities already
    return probs, gammas
