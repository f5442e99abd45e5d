"""Bootstrap estimates of the uncertainty of error rates (Bisani and Ney, ICASSP 2004)."""

import numpy as np

REPLICATIONS = 10_000  # as Bisani and Ney, and Kaldi's compute-wer-bootci
SEED = 0
MAX_SAMPLES_AT_ONCE = 10_000_000  # 80 MB
MAX_ITEMS = 5_000  # that are drawn one by one; of more, equal ones are drawn together, which is 10 times as fast


def bootstrap_rates(errors: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Returns the error rate of each bootstrap replication in percent, (at most REPLICATIONS,).

    `errors` and `lengths` (N,) belong to the items that are drawn with replacement, N at a time: utterances or
    speakers. Replications without a reference word are left out. Of more than MAX_ITEMS items, it is drawn how often
    each pair (errors, length) occurs, which has the same distribution.
    """
    if len(errors) > MAX_ITEMS:
        return _rates_of_pairs(errors, lengths)
    rng = np.random.default_rng(SEED)
    count = len(errors)
    step = max(1, MAX_SAMPLES_AT_ONCE // count)
    parts = []
    for start in range(0, REPLICATIONS, step):
        replications = min(step, REPLICATIONS - start)
        drawn = rng.integers(count, size=(replications, count))
        words = lengths[drawn].sum(1)
        parts.append(100 * errors[drawn].sum(1)[words > 0] / words[words > 0])
    return np.concatenate(parts)


def has_spread(lengths: np.ndarray) -> bool:
    """Returns whether items of these lengths (N,) tell how much an error rate varies: two have reference words."""
    return bool(np.count_nonzero(lengths) >= 2)


def _rates_of_pairs(errors: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Returns what `bootstrap_rates` does, from the numbers of items that have the same errors and length."""
    rng = np.random.default_rng(SEED)
    (pair_errors, pair_lengths), counts = np.unique(np.stack([errors, lengths]), axis=1, return_counts=True)  # (P,)
    step = max(1, MAX_SAMPLES_AT_ONCE // len(counts))
    parts = []
    for start in range(0, REPLICATIONS, step):
        replications = min(step, REPLICATIONS - start)
        drawn = rng.multinomial(len(errors), counts / len(errors), size=replications)  # (R, P)
        words = drawn @ pair_lengths
        parts.append(100 * (drawn @ pair_errors)[words > 0] / words[words > 0])
    return np.concatenate(parts)


def interval_half_width(rates: np.ndarray) -> float:
    """Returns half of the width of the 95 % interval: 1.96 standard deviations."""
    return 1.96 * float(rates.std())
