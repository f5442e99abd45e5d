"""How much the confidences of a recogniser are worth: normalised cross entropy, calibration error, selective error.

A confidence is the probability that a word of the hypothesis is correct. A word is correct if the alignment with the
reference matches it; deleted words have no confidence. Utterances: see utterance_confidence.py.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asrtool.scoring.wer import GAP, align_words

CALIBRATION_BINS = 15  # of the expected calibration error, as in Guo et al. 2017
KEPT_SHARES = (0.5, 0.75, 0.9)  # of the words, the most confident ones, whose errors are counted
# Confidences are moved this far from 0 and 1 in logarithms: hyps.jsonl has four digits, so 1 may stand for 0.99995.
MIN_PROBABILITY = 5e-5


@dataclass(frozen=True)
class ConfidenceQuality:
    """The quality of `count` confidences, of which `correct` belong to correct words."""

    count: int
    correct: int
    nce: (
        float | None
    )  # normalised cross entropy: 1 is perfect, 0 is the share of correct words for each; None: undefined
    ece: float  # expected calibration error, from 0 to 1
    # share of the words -> errors (substitutions and insertions) among the most confident of them, in percent
    error_rates: dict[float, float]


def normalised_cross_entropy(confidences: Sequence[float], is_correct: Sequence[bool]) -> float | None:
    """Returns NIST's normalised cross entropy, or None where all words are correct, or all are wrong.

    With N words of which n are correct, and p = n / N,

        H_max = -n log2 p - (N - n) log2(1 - p)
        NCE   = (H_max + sum over correct words of log2 c + sum over the others of log2(1 - c)) / H_max

    (Siu and Gish 1999; the measure of NIST's Rich Transcription evaluations.) It is 1 for confidences that are 1 for
    all correct words and 0 for all others, 0 for confidences that are all p, and negative for worse ones.
    """
    correct = np.asarray(is_correct, dtype=bool)
    count, num_correct = len(correct), int(correct.sum())
    if num_correct in (0, count):
        return None
    clipped = np.clip(np.asarray(confidences, dtype=np.float64), MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    share = num_correct / count
    entropy = -num_correct * math.log2(share) - (count - num_correct) * math.log2(1 - share)
    log_likelihood = np.log2(np.where(correct, clipped, 1 - clipped)).sum()
    return float((entropy + log_likelihood) / entropy)


def expected_calibration_error(
    confidences: Sequence[float], is_correct: Sequence[float], bins: int = CALIBRATION_BINS
) -> float:
    """Returns the mean difference between confidence and share of correct words, over bins of equal numbers of words.

    Words are sorted by confidence and divided into `bins` bins whose sizes differ by one at most; the absolute
    differences of the bins are weighted by their sizes (Naeini et al. 2015, with bins of equal mass as in Nixon et al.
    2019). Words of equal confidence have the mean of their outcomes, so that their order does not matter. 0 without
    words.
    """
    values = np.asarray(confidences, dtype=np.float64)
    if not len(values):
        return 0.0
    order = np.argsort(values, kind="stable")
    outcomes = mean_of_equals(values[order], np.asarray(is_correct, dtype=np.float64)[order])
    parts = zip(np.array_split(values[order], bins), np.array_split(outcomes, bins), strict=True)
    return float(sum(abs(confidence.sum() - outcome.sum()) for confidence, outcome in parts) / len(values))


def error_rate_of_most_confident(confidences: Sequence[float], is_correct: Sequence[bool], share: float) -> float:
    """Returns the errors among the most confident words in percent of these words; 0 without words.

    `share` of the words are kept, rounded up. Substitutions and insertions among them are errors; deletions are not,
    since a word that is missing has no confidence. Words of equal confidence at the limit are kept in part: each counts
    with the mean of their errors, so that their order does not matter.
    """
    values = np.asarray(confidences, dtype=np.float64)
    if not len(values):
        return 0.0
    order = np.argsort(-values, kind="stable")
    errors = mean_of_equals(values[order], 1.0 - np.asarray(is_correct, dtype=np.float64)[order])
    num_kept = math.ceil(share * len(values) - 1e-9)  # 0.9 * 10 is 9.000000000000002 in other orders
    return float(100 * errors[:num_kept].mean())


def mean_of_equals(values: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    """Returns outcomes (N,) with the mean over all that have the same value."""
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    return (np.bincount(group, outcomes) / sizes)[group]


def confidence_quality(confidences: Sequence[float], is_correct: Sequence[bool]) -> ConfidenceQuality:
    """Returns all measures of confidences and whether what they belong to is correct."""
    return ConfidenceQuality(
        count=len(confidences),
        correct=sum(map(bool, is_correct)),
        nce=normalised_cross_entropy(confidences, is_correct),
        ece=expected_calibration_error(confidences, is_correct),
        error_rates={share: error_rate_of_most_confident(confidences, is_correct, share) for share in KEPT_SHARES},
    )


def words_correct(ref: str, hyp: str) -> list[bool]:
    """Returns for each word of `hyp` whether the alignment matches it with the same word of `ref`."""
    return [ref_word == hyp_word for ref_word, hyp_word in align_words(ref, hyp) if hyp_word != GAP]


def quality_dict(quality: ConfidenceQuality) -> dict:
    """Returns the measures in plain values for JSON."""
    rates = {f"{100 * share:g}": rate for share, rate in quality.error_rates.items()}
    return {
        "count": quality.count,
        "correct": quality.correct,
        "nce": quality.nce,
        "ece": quality.ece,
        "error_rate_of_most_confident": rates,
    }
