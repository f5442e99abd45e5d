"""Options of a graph search, with their ranges; the costs that a search is given; log-priors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asrtool.errors import UserError

MAX_COST = 1e4  # nats: larger differences decide nothing, and float32 still holds the sum of an hour of frames
MAX_STATES = 10_000_000  # active in a frame: 1 GB, and more than any beam keeps in practice
ENTROPY_FRAMES = 25  # a second with frames of 40 ms: a shorter stretch is over before a search has grown
MAX_NBEST = 100_000  # hypotheses of an utterance: about 10 MB of hyps.jsonl
BOUNDS = {  # of GraphOptions, both included; NaN is outside
    "beam": (1e-4, MAX_COST),
    "lattice_beam": (1e-4, MAX_COST),
    "lattice_max_entropy": (0, MAX_COST),
    "acoustic_scale": (1e-4, MAX_COST),
    "blank_penalty": (-MAX_COST, MAX_COST),
    "insertion_penalty": (-MAX_COST, MAX_COST),
    "max_active": (2, MAX_STATES),
    "min_active": (0, MAX_STATES),
    "nbest": (1, MAX_NBEST),
}


def option_flag(name: str) -> str:
    """Returns the command-line option of a parameter: "--max-active" for "max_active"."""
    return "--" + name.replace("_", "-")


def require_range(name: str, value: float, minimum: float, maximum: float) -> None:
    """Raises UserError that names the option unless `value` is from `minimum` to `maximum`; NaN is not."""
    if not minimum <= value <= maximum:
        valid = f"give a number from {minimum:g} to {maximum:g}"
        raise UserError(f"{option_flag(name)} {value:g} is out of range; {valid}")


@dataclass(frozen=True)
class GraphOptions:
    """Options of a graph search. Penalties are costs: negative natural logarithms, added to the scaled total.

    Raises UserError for a value outside of BOUNDS: kaldi-decoder accepts any, and crashes or returns nonsense.
    """

    beam: float = 16.0  # how much more than the best path a kept path may cost; Kaldi's default
    max_active: int = 1000  # states in a frame, at least 2; chosen by the curve in docs/decoding.md
    min_active: int = 20  # states that are kept whatever the beam says; Kaldi's default
    acoustic_scale: float = 1.0  # inverse of the graph's weight: a language model weight of 2 is 0.5
    blank_penalty: float = 0.0
    insertion_penalty: float = 0.0
    nbest: int = 1
    lattice_beam: float | None = None  # builds lattices: how much more than the best path their paths may cost
    # Utterances in which a second has a higher mean entropy, in nats, get no lattice: its search has no limit of states
    lattice_max_entropy: float | None = None

    def __post_init__(self) -> None:
        for name, (minimum, maximum) in BOUNDS.items():
            value = getattr(self, name)
            if value is not None:
                require_range(name, value, minimum, maximum)

    def scaled_log_likelihoods(
        self, log_probs: np.ndarray, priors: np.ndarray | None = None, blank: int = 0
    ) -> np.ndarray:
        """Returns the scaled log-likelihoods (T, V) float32 that kaldi-decoder reads. `priors` are log-probs (V,).

        Raises ValueError for NaN and infinity, since the decoder would lose all paths silently. (-inf is allowed: it is
        an impossible output.)
        """
        scaled = np.array(log_probs, dtype=np.float32)
        if priors is not None:
            scaled -= priors.astype(np.float32)
        scaled[:, blank] -= self.blank_penalty
        scaled *= self.acoustic_scale
        require_log_likelihoods(bool((scaled < np.inf).all()))
        return scaled


def max_mean_entropy(scaled: np.ndarray, num_frames: int = ENTROPY_FRAMES) -> float:
    """Returns the largest mean entropy, in nats, over `num_frames` successive frames of log-likelihoods (T, V).

    The log-likelihoods of a frame are normalised to a distribution over the outputs. If there are fewer frames than
    `num_frames`, the mean is over all of them; without frames it is 0.
    """
    if not len(scaled):
        return 0.0
    relative = scaled - scaled.max(axis=1, keepdims=True)  # (T, V)
    weights = np.exp(relative)
    totals = weights.sum(axis=1)
    products = np.where(weights > 0, weights * np.where(weights > 0, relative, 0.0), 0.0)
    entropies = np.log(totals) - products.sum(axis=1) / totals  # (T,)
    width = min(num_frames, len(entropies))
    sums = np.concatenate([[0.0], np.cumsum(entropies, dtype=np.float64)])
    return float((sums[width:] - sums[:-width]).max() / width)


def require_log_likelihoods(are_below_infinity: bool) -> None:
    """Raises ValueError unless all scaled log-likelihoods are below infinity, and none is NaN."""
    if not are_below_infinity:
        raise ValueError("the log-probs hold NaN or infinity; is the checkpoint or the audio damaged?")


def log_priors(values: Sequence[float]) -> np.ndarray:
    """Returns log-probabilities (V,) of the classes from counts or probabilities.

    A class that never occurred counts half as often as the rarest other one.
    """
    counts = np.asarray(values, dtype=np.float64)
    counts = np.where(counts > 0, counts, 0.5 * counts[counts > 0].min())
    return np.log(counts / counts.sum())
