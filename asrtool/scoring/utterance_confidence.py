"""How much the confidences of utterances are worth: each is compared with the word accuracy that its utterance has.

The word accuracy of an utterance is 1 - WER, or 0 where it has more errors than words in its reference. Its confidence
is the expected value of that.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asrtool.scoring.confidence import KEPT_SHARES, expected_calibration_error, mean_of_equals
from asrtool.scoring.wer import align_words


@dataclass(frozen=True)
class UtteranceErrors:
    """The word errors (substitutions, insertions, deletions) of an utterance, and the words of its reference."""

    errors: int
    words: int

    @property
    def accuracy(self) -> float:
        """The word accuracy, from 0 to 1; without words in the reference 1 for an empty hypothesis, else 0."""
        if not self.words:
            return float(not self.errors)
        return max(0.0, 1 - self.errors / self.words)


@dataclass(frozen=True)
class UtteranceQuality:
    """The quality of the confidences of `count` utterances.

    accuracy, expected: the means of word accuracies and of confidences. ece: the expected calibration error.
    correlation: Pearson's, of confidence and word accuracy; None where all of either are equal. error_rates: share of
    the utterances -> WER of the most confident of them, in percent.
    """

    count: int
    accuracy: float
    expected: float
    ece: float
    correlation: float | None
    error_rates: dict[float, float]


def utterance_errors(ref: str, hyp: str) -> UtteranceErrors:
    """Returns the errors of a hypothesis."""
    errors = sum(ref_word != hyp_word for ref_word, hyp_word in align_words(ref, hyp))
    return UtteranceErrors(errors, len(ref.split()))


def utterance_quality(confidences: Sequence[float], outcomes: Sequence[UtteranceErrors]) -> UtteranceQuality:
    """Returns all measures of confidences (N,) and of what their utterances have; N is not 0."""
    values = np.asarray(confidences, dtype=np.float64)
    accuracies = np.array([outcome.accuracy for outcome in outcomes])
    varies = np.ptp(values) > 0 and np.ptp(accuracies) > 0
    return UtteranceQuality(
        count=len(values),
        accuracy=float(accuracies.mean()),
        expected=float(values.mean()),
        ece=expected_calibration_error(confidences, accuracies.tolist()),
        correlation=float(np.corrcoef(values, accuracies)[0, 1]) if varies else None,
        error_rates={share: wer_of_most_confident(confidences, outcomes, share) for share in KEPT_SHARES},
    )


def wer_of_most_confident(confidences: Sequence[float], outcomes: Sequence[UtteranceErrors], share: float) -> float:
    """Returns the WER of the most confident utterances in percent; 0 without words.

    `share` of the utterances are kept, rounded up. Utterances of equal confidence at the limit are kept in part: each
    counts with the mean of their errors and words, so that their order does not matter.
    """
    values = np.asarray(confidences, dtype=np.float64)
    order = np.argsort(-values, kind="stable")
    kept = order[: math.ceil(share * len(values) - 1e-9)]
    errors = mean_of_equals(values, np.array([float(outcome.errors) for outcome in outcomes]))[kept].sum()
    words = mean_of_equals(values, np.array([float(outcome.words) for outcome in outcomes]))[kept].sum()
    return float(100 * errors / words) if words else 0.0


def utterance_quality_dict(quality: UtteranceQuality) -> dict:
    """Returns the measures in plain values for JSON."""
    return {
        "count": quality.count,
        "accuracy": quality.accuracy,
        "expected_accuracy": quality.expected,
        "ece": quality.ece,
        "correlation": quality.correlation,
        "wer_of_most_confident": {f"{100 * share:g}": rate for share, rate in quality.error_rates.items()},
    }


def utterance_quality_line(quality: UtteranceQuality, token_type: str = "words") -> str:
    """Returns the measures as a sentence; `token_type` is what was recognised, "words" or "phones"."""
    correlation = "undefined" if quality.correlation is None else f"{quality.correlation:.3f}"
    rates = ", ".join(f"{rate:.2f} % of the {100 * share:g} %" for share, rate in quality.error_rates.items())
    token, rate_name = ("phone", "PER") if token_type == "phones" else ("word", "WER")
    means = f"{token} accuracy {quality.accuracy:.3f}, expected {quality.expected:.3f}, correlation {correlation}"
    return f"{quality.count} utterances, {means}; {rate_name} {rates} most confident"
