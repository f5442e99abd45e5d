"""Paired comparison of two systems on the same utterances: the difference of their error rates and its uncertainty."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asrtool.scoring.bootstrap import bootstrap_rates, has_spread, interval_half_width
from asrtool.scoring.wer import Interval, align_words, count_word_errors, require_reference_words


@dataclass(frozen=True)
class PairedDifference:
    """The error rate of the first system minus the one of the second, in percent of the reference words."""

    difference: float
    interval: Interval | None  # 95 %, by paired bootstrap; None for a single one with reference words
    percent_lower: float | None  # replications in which the first system has fewer errors, plus half of the ties
    utterances: int


def paired_difference(refs: Sequence[str], hyps: Sequence[str], other_hyps: Sequence[str]) -> PairedDifference:
    """Compares the error rate of `hyps` with `other_hyps`, the hypotheses of a second system for the same `refs`.

    Utterances are drawn with replacement, 10,000 times with a fixed seed. Both systems are scored on the same draws, so
    that utterances which are hard for both do not count (Bisani and Ney, ICASSP 2004, section 3). The interval is
    +-1.96 standard deviations of the difference. Raises UserError when no reference holds a word.
    """
    require_reference_words(refs)
    lengths = np.array([len(ref.split()) for ref in refs])
    return difference_of_errors(count_errors(refs, hyps) - count_errors(refs, other_hyps), lengths)


def difference_of_errors(more_errors: np.ndarray, lengths: np.ndarray) -> PairedDifference:
    """Returns the comparison of two systems by how many more errors the first has in each utterance, (N,).

    `lengths` (N,) are the numbers of reference words. See `paired_difference`.
    """
    difference = float(100 * more_errors.sum() / max(1, lengths.sum()))
    if not has_spread(lengths):
        return PairedDifference(difference, None, None, len(lengths))
    rates = bootstrap_rates(more_errors, lengths)
    half = interval_half_width(rates)
    percent_lower = 100 * float(np.mean(rates < 0) + np.mean(rates == 0) / 2)
    return PairedDifference(difference, (difference - half, difference + half), percent_lower, len(lengths))


def count_errors(refs: Sequence[str], hyps: Sequence[str]) -> np.ndarray:
    """Returns the number of word errors of each hypothesis, (N,)."""
    pairs = zip(refs, hyps, strict=True)
    return np.array([count_word_errors(align_words(ref, hyp)).errors for ref, hyp in pairs])
