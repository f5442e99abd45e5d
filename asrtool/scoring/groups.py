"""Groups of utterances by a measure such as their length, in which error rates are reported."""

from collections.abc import Sequence

import numpy as np

MAX_GROUPS = 5
MIN_UTTERANCES = 8  # in a group: of fewer, the interval of an error rate means little
GROUPS_MEANING = (
    f"up to {MAX_GROUPS} groups of about equal size: fewer where a group would have less than {MIN_UTTERANCES} "
    "utterances, or where many values are equal"
)


def groups_of_equal_size(values: Sequence[float]) -> list[list[int]]:
    """Returns the indices of `values` in up to MAX_GROUPS groups of about equal size, the lowest values first.

    Within a group they are ordered by value, and equal values by index. Equal values are never divided between groups,
    and a group of fewer than MIN_UTTERANCES is joined to its neighbour. Returns nothing where that leaves fewer than
    two groups, or for fewer than 2 * MIN_UTTERANCES values.
    """
    count = min(MAX_GROUPS, len(values) // MIN_UTTERANCES)
    if count < 2:
        return []
    order = np.argsort(np.asarray(values, dtype=np.float64), kind="stable")
    ordered = np.asarray(values, dtype=np.float64)[order]
    bounds = {int(np.searchsorted(ordered, ordered[len(ordered) * part // count])) for part in range(1, count)}
    kept: list[int] = []
    for bound in sorted(bounds):  # equal values move bounds down, so that some groups may be too small
        if min(bound - (kept[-1] if kept else 0), len(ordered) - bound) >= MIN_UTTERANCES:
            kept.append(bound)
    return [group.tolist() for group in np.split(order, kept)] if kept else []
