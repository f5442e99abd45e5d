"""How full batches of utterances are: what a plan, a new recipe and measurements of the speed share."""

import math

LOWEST_FILL = 0.5  # of a batch that has room for a single utterance
PADDING = 0.08  # of a batch (docs/benchmarks.md); sets of many hours have less


def fill(batch_seconds: float, utterance_seconds: float, devices: int = 1, batches: int = 1) -> float:
    """The share of `batch_seconds`, padding included, that the fullest of the devices' batches has on average.

    A batch lacks up to an utterance, drawn evenly: half of one on average, and 1 / (n + 1) of one in the fullest of n,
    for which all devices wait. Two devices have a pair of nearly equal batches (asrtool/data/batch_cost.py), so that
    pairs count. The sum of `batches` batches of a step spreads by their square root less.
    """
    pairs = math.ceil(devices / 2)
    missing = 0.5 - (0.5 - 1 / (pairs + 1)) / batches**0.5
    return max(LOWEST_FILL, 1 - missing * utterance_seconds / batch_seconds)


def utterances_in_batch(batch_seconds: float, utterance_seconds: float) -> int:
    """The number of utterances of a full batch, at least 1."""
    return max(1, round(batch_seconds / utterance_seconds))
