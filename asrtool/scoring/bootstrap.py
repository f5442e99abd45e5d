"""Bootstrap estimates of the uncertainty of error rates (Bisani and Ney, ICASSP 2004)."""

import numpy as np

REPLICATIONS = 10_000  # as Bisani and Ney, and Kaldi's compute-wer-bootci
SEED = 0
MAX_SAMPLES_AT_ONCE = 10_000_000  # 80 MB


def bootstrap_rates(errors: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Returns the error rate of each bootstrap replication in percent, (at most REPLICATIONS,).

    `errors` and `lengths` (N,) belong to the items that are drawn with replacement, N at a time: utterances or
    speakers. Replications without a reference word are left out.
    """
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


def interval_half_width(rates: np.ndarray) -> float:
    """Returns half of the width of the 95 % interval: 1.96 standard deviations."""
    return 1.96 * float(rates.std())
