"""The reliability diagram of confidences: how often words of a confidence are correct."""

from collections.abc import Sequence

import numpy as np

from asrtool.pages.elements import Element, facts, lines, series, text
from asrtool.pages.results import Result
from asrtool.scoring.confidence import CALIBRATION_BINS, mean_of_equals, words_correct
from asrtool.scoring.confidence_score import ConfidenceScore, score_confidences, word_confidences


def confidence_elements(result: Result) -> list[Element]:
    """Returns the reliability diagram and the measures of confidence of a result, or a note that it has none."""
    rows = [utterance.row for utterance in result.utterances]
    score = score_confidences(rows)
    if score is None:
        return [text("These hypotheses have no confidences; `asrtool decode` writes them with word times.", "note")]
    confidences, is_correct = [], []
    for row in rows:
        if (own := word_confidences(row)) is not None:
            confidences += own
            is_correct += words_correct(row["ref"], row["hyp"])
    points = reliability(confidences, is_correct)
    caption = f"Reliability of the confidences of {score.words.count:,} {result.token_type}"
    chart = lines(
        caption, "mean confidence", "share correct", [series(result.method, points, marks=True)], diagonal=True
    )
    explained = (
        "Each dot is a bin of equally many words. On the dashed line confidences are probabilities; dots below it "
    )
    return [text(f"{explained}have too high confidences, dots above it too low ones."), chart, facts(_measures(score))]


def reliability(confidences: Sequence[float], is_correct: Sequence[bool]) -> list[tuple[float, float]]:
    """Returns (mean confidence, share of correct words) of bins of equal numbers of words, the lowest first.

    They are the bins of the expected calibration error (asrtool/scoring/confidence.py); equal confidences have the mean
    of their outcomes.
    """
    values = np.asarray(confidences, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    outcomes = mean_of_equals(values[order], np.asarray(is_correct, dtype=np.float64)[order])
    bins = min(CALIBRATION_BINS, len(values))
    parts = zip(np.array_split(values[order], bins), np.array_split(outcomes, bins), strict=True)
    return [(float(confidence.mean()), float(outcome.mean())) for confidence, outcome in parts]


def _measures(score: ConfidenceScore) -> list[tuple[str, str]]:
    words = score.words
    nce = "undefined" if words.nce is None else f"{words.nce:.3f} (1 is perfect; 0: the same value for every word)"
    rows = [
        ("normalised cross entropy", nce),
        ("expected calibration error", f"{words.ece:.4f}"),
        ("share correct", f"{100 * words.correct / words.count:.2f} %"),
    ]
    for share, rate in words.error_rates.items():
        rows.append((f"errors in the most confident {100 * share:g} %", f"{rate:.2f} %"))
    if score.utterances and score.utterances.correlation is not None:
        rows.append(("utterances: correlation of confidence and accuracy", f"{score.utterances.correlation:.3f}"))
    return rows
