"""Error rates of samples drawn from a test set: what they spread by is how sure the rate is (Bisani and Ney, 2004)."""

import numpy as np

REPLICATIONS = 10_000  # what Bisani and Ney and Kaldi's compute-wer-bootci use
SEED = 0
DRAWN = 10_000_000  # items at a time: 80 MB


def drawn_rates(errors: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The error rate of each draw in percent, (<= REPLICATIONS,): of as many items as there are, with replacement.

    `errors` and `lengths` (N,) are those of the items: utterances, or speakers. Draws without a reference word are left
    out.
    """
    rng, count = np.random.default_rng(SEED), len(errors)
    at_once = max(1, DRAWN // count)
    parts = []
    for start in range(0, REPLICATIONS, at_once):
        chosen = rng.integers(count, size=(min(at_once, REPLICATIONS - start), count))
        words = lengths[chosen].sum(1)
        parts.append(100 * errors[chosen].sum(1)[words > 0] / words[words > 0])
    return np.concatenate(parts)


def half_width(drawn: np.ndarray) -> float:
    """Half of the 95 % interval: 1.96 standard deviations."""
    return 1.96 * float(drawn.std())
