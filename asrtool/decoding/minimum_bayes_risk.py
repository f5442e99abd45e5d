"""Minimum Bayes risk: of n hypotheses the one with the fewest expected errors, not the most probable one."""

from collections.abc import Sequence

import kaldialign
import numpy as np


def minimum_bayes_risk_index(texts: Sequence[str], scores: Sequence[float]) -> int:
    """Returns the index of the text with the fewest expected word errors; the first one of several.

    The probability that a text is the correct one is proportional to exp(score), where scores are natural log-probs,
    normalised over these texts. The most probable sentence has the fewest sentence errors; this one has the fewest word
    errors (Goel and Byrne, Minimum Bayes-risk automatic speech recognition, 2000).
    """
    probabilities = np.exp(np.array(scores) - max(scores))
    return int((pairwise_word_errors(texts) @ probabilities).argmin())


def pairwise_word_errors(texts: Sequence[str]) -> np.ndarray:
    """Returns the word errors between each two texts, (N, N)."""
    words = [text.split() for text in texts]
    errors = np.zeros((len(texts), len(texts)))
    for row in range(len(texts)):
        for column in range(row):
            errors[row, column] = kaldialign.edit_distance(words[row], words[column])["total"]
    return errors + errors.T
