"""Two systems on the same utterances: how much their error rates differ, and how sure that is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asrtool.scoring.bootstrap import drawn_rates, half_width
from asrtool.scoring.wer import Interval, align_words, count_words, require_words


@dataclass(frozen=True)
class Difference:
    """The first system's error rate less the second's, in percent of the reference words."""

    rate: float
    interval: Interval | None  # 95 %, by paired bootstrap; None for a single utterance
    lower: float | None  # the share of draws in which the first system has fewer errors, in percent; equal are half
    utterances: int


def paired_difference(refs: Sequence[str], hyps: Sequence[str], others: Sequence[str]) -> Difference:
    """How `hyps` differ in error rate from `others`, the hypotheses of a second system of the same `refs`.

    Utterances are drawn with replacement 10,000 times with a fixed seed, the same ones for both systems, so that what
    is hard for both does not count (Bisani and Ney, ICASSP 2004, section 3); the interval is +-1.96 standard deviations
    of the difference. Raises UserError when no reference holds a word.
    """
    require_words(refs)
    lengths = np.array([len(ref.split()) for ref in refs])
    more = _errors(refs, hyps) - _errors(refs, others)
    rate = 100 * more.sum() / lengths.sum()
    if len(refs) < 2:
        return Difference(float(rate), None, None, len(refs))
    drawn = drawn_rates(more, lengths)
    half = half_width(drawn)
    lower = 100 * float(np.mean(drawn < 0) + np.mean(drawn == 0) / 2)
    return Difference(float(rate), (float(rate) - half, float(rate) + half), lower, len(refs))


def _errors(refs: Sequence[str], hyps: Sequence[str]) -> np.ndarray:
    return np.array([count_words(align_words(*pair)).errors for pair in zip(refs, hyps, strict=True)])
