"""Sums of probabilities, by their natural logarithms."""

import math

NEG_INF = -math.inf  # the log-probability of what is impossible


def log_add(a: float, b: float) -> float:
    """Returns log(exp(a) + exp(b)) of two floats; either may be -inf."""
    if a < b:
        a, b = b, a
    return a if b == NEG_INF else a + math.log1p(math.exp(b - a))
