"""Minimum Bayes risk: of n hypotheses the one with the fewest expected errors, not the most probable one."""

from collections.abc import Sequence

import kaldialign
import numpy as np


def minimum_bayes_risk_index(texts: Sequence[str], scores: Sequence[float]) -> int:
    """The place of the text with the fewest expected word errors, if each is what was said with probability p.

    p is proportional to exp(score), natural log-probs as they are, among these texts; of equal ones the first is taken.
    The most probable sentence has the fewest sentence errors; this one has the fewest word errors (Goel and Byrne,
    Minimum Bayes-risk automatic speech recognition, 2000).
    """
    probabilities = np.exp(np.array(scores) - max(scores))
    return int((distances(texts) @ probabilities).argmin())


def distances(texts: Sequence[str]) -> np.ndarray:
    """The word errors of each text against each other one, (N, N)."""
    words, found = [text.split() for text in texts], np.zeros((len(texts), len(texts)))
    for one in range(len(texts)):
        for other in range(one):
            found[one, other] = kaldialign.edit_distance(words[one], words[other])["total"]
    return found + found.T
