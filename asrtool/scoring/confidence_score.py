"""The quality of the confidences in hyps.jsonl: of words and of utterances, for wer.json and report.txt."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from asrtool.scoring.confidence import KEPT_SHARES, ConfidenceQuality, confidence_quality, quality_dict, words_correct
from asrtool.scoring.utterance_confidence import (
    UtteranceErrors,
    UtteranceQuality,
    utterance_errors,
    utterance_quality,
    utterance_quality_dict,
    utterance_quality_line,
)


@dataclass(frozen=True)
class ConfidenceScore:
    """The quality of the confidences of words, and of utterances where these have some."""

    words: ConfidenceQuality
    utterances: UtteranceQuality | None


def score_confidences(rows: Iterable[dict]) -> ConfidenceScore | None:
    """Returns the quality of the confidences in rows of hyps.jsonl; None where no word has one.

    Rows whose words do not all have a confidence are left out, as are utterances without one.
    """
    confidences: list[float] = []
    is_correct: list[bool] = []
    of_utterances: list[float] = []
    outcomes: list[UtteranceErrors] = []
    for row in rows:
        own = word_confidences(row)
        if own is not None:
            confidences += own
            is_correct += words_correct(row["ref"], row["hyp"])
        if _is_probability(row.get("confidence")):
            of_utterances.append(row["confidence"])
            outcomes.append(utterance_errors(row["ref"], row["hyp"]))
    if not confidences:
        return None
    utterances = utterance_quality(of_utterances, outcomes) if of_utterances else None
    return ConfidenceScore(confidence_quality(confidences, is_correct), utterances)


def word_confidences(row: dict) -> list[float] | None:
    """Returns the confidences of the words of a row, or None where they do not belong to the words of `hyp`.

    `words` are [word, start, end, confidence]; older results have [word, start], and other programs write what they
    like.
    """
    words = row.get("words")
    if not isinstance(words, list) or not all(isinstance(word, list) and len(word) == 4 for word in words):
        return None
    if [word[0] for word in words] != row["hyp"].split() or not all(_is_probability(word[3]) for word in words):
        return None
    return [float(word[3]) for word in words]


def _is_probability(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def confidence_dict(score: ConfidenceScore) -> dict:
    """Returns the score in plain values for JSON (wer.json)."""
    utterances = score.utterances and utterance_quality_dict(score.utterances)
    return {"words": quality_dict(score.words), "utterances": utterances}


def confidence_lines(score: ConfidenceScore, token_type: str = "words") -> list[str]:
    """Returns the score as lines of report.txt; `token_type` is what was recognised, "words" or "phones"."""
    words = score.words
    nce = "-" if words.nce is None else f"{words.nce:.3f}"
    shares = "".join(f"{f'{100 * share:g} %':>8}" for share in KEPT_SHARES)
    rates = "".join(f"{rate:>8.2f}" for rate in words.error_rates.values())
    lines = [
        f"{'Confidences':<12}{'number':>10}{'correct':>10}{'NCE':>8}{'ECE':>8}{shares}",
        f"{token_type:<12}{words.count:>10}{words.correct:>10}{nce:>8}{words.ece:>8.4f}{rates}",
        "NCE: normalised cross entropy, 1 is perfect; ECE: expected calibration error; then the errors (substitutions",
        f"and insertions) in percent among the most confident 50, 75 and 90 % of the {token_type}.",
    ]
    if score.utterances:
        lines.append(utterance_quality_line(score.utterances, token_type))
    return [*lines, ""]
