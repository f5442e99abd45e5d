"""How sure a search is of each word: posteriors, before they are calibrated (asrtool/decoding/calibration.py)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asrtool.decoding.unit_chain import LOG_ZERO, FrameSpan, window_log_probs

# Posteriors are kept this far from 0 and 1, so that their logits are finite. Float32 log-probs decide no more.
MIN_POSTERIOR = 1e-6
# Frames on either side of a word that its window may have beyond its units: words that were left out in a longer pause
# are not errors of the neighbours. CTC puts a unit within about 0.2 s of its sound, which is 5 frames of 40 ms.
MAX_MARGIN = 5


@dataclass(frozen=True)
class WordEvidence:
    """What is known of how likely a word is correct, each without the other.

    posterior: the share of the word in the lattice, None without a lattice. acoustic: the probability, by the acoustic
    model alone, that the word's frames collapse to its units, of all unit sequences. num_units: the length in units.
    """

    posterior: float | None
    acoustic: float
    num_units: int

    @property
    def raw_confidence(self) -> float:
        """The posterior of the lattice; without one, the geometric mean of the acoustic posterior over the units.

        The acoustic posterior itself would be far too low for long words: the lexicon, which the acoustic model does
        not know, excludes most competitors of each unit.
        """
        if self.posterior is not None:
            return self.posterior
        return self.acoustic ** (1 / max(1, self.num_units))


def clipped_logit(probability: float) -> float:
    """Returns ln(p / (1 - p)) of a probability that is moved into [MIN_POSTERIOR, 1 - MIN_POSTERIOR] first."""
    clipped = min(max(probability, MIN_POSTERIOR), 1 - MIN_POSTERIOR)
    return math.log(clipped / (1 - clipped))


def acoustic_posteriors(
    log_probs: np.ndarray, spans: Sequence[FrameSpan], units: Sequence[Sequence[int]], topology: str
) -> list[float]:
    """Returns for each word the probability that its window collapses to its units, see `window_log_probs`.

    log_probs (T, V); `spans` are the frames of the words, in order. A window reaches to the middle between two words,
    at most MAX_MARGIN frames beyond the word. A word without units has the probability 0.
    """
    windows = _windows(spans, len(log_probs))
    values = window_log_probs(log_probs, windows, units, topology)
    has_units = np.array([len(one) > 0 for one in units], dtype=bool)
    return np.exp(np.where(has_units, values, LOG_ZERO)).tolist()


def empty_posterior(log_probs: np.ndarray, topology: str) -> float:
    """Returns the probability, by the acoustic model, that an utterance (T, V) has no word."""
    if topology == "hmm" or not len(log_probs):
        return 0.5  # silence is a unit like others there, and without frames nothing is known
    return math.exp(float(window_log_probs(log_probs, [FrameSpan(0, len(log_probs))], [[]], topology)[0]))


def _windows(spans: Sequence[FrameSpan], num_frames: int) -> list[FrameSpan]:
    """Returns a window around each word: up to the middle of the gaps around it, and MAX_MARGIN frames at most."""
    middles = [0, *((a.end + b.begin + 1) // 2 for a, b in zip(spans, spans[1:], strict=False)), num_frames]
    return [
        FrameSpan(max(first, span.begin - MAX_MARGIN), min(last, span.end + MAX_MARGIN))
        for span, first, last in zip(spans, middles, middles[1:], strict=False)
    ]
