"""What a batch costs to compute, and the division of cuts into batches of about the same cost."""

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

from asrtool.data.shards import Entry

MIN_BUCKET_BATCHES = 4  # with fewer, the number of a bucket's batches is rounded up by more than a quarter
REFERENCE_SECONDS = 15.0  # an utterance of this length costs its seconds: `asrtool info` and `plan` count such ones


class UtteranceCost(NamedTuple):
    """The cost of an utterance in a training step, in seconds of audio in utterances of REFERENCE_SECONDS.

    The cost of attention to the whole utterance is quadratic in its length; everything else, the loss included, is
    linear. Both are equal at `attention_seconds`, a property of the model (asrtool/models/cost.py): infinite where a
    frame attends to a bounded number of frames.
    """

    attention_seconds: float = math.inf

    def __call__(self, seconds: float) -> float:
        """Returns the cost of an utterance of `seconds`, which grows with them."""
        return seconds * (1 + seconds / self.attention_seconds) / (1 + REFERENCE_SECONDS / self.attention_seconds)

    def capacity(self, batch_seconds: float, seconds: float) -> int:
        """Returns how many utterances of `seconds` a batch holds, at least one."""
        return max(1, int(batch_seconds / self(seconds)))


LINEAR_COST = UtteranceCost()
TimedEntry = tuple[float, Entry]  # its seconds, in training at the speed that was drawn
TimedBatch = list[TimedEntry]


def pairs_of_batches(
    timed: list[TimedEntry], max_buckets: int, limit: float, cost: UtteranceCost
) -> list[list[TimedBatch]]:
    """Divides entries into batches of about the same cost, at most `limit`, and batches into pairs of nearly the same.

    The costs of batches differ by less than the cost of an utterance, which is much where batches hold few utterances.
    Ranks take turns at the batches of a pair: two ranks hardly wait for each other.
    """
    batches: list[TimedBatch] = []
    for bucket in _buckets(timed, max_buckets, limit, cost):
        batches += _even_batches(bucket, limit, cost)
    return _pairs_of_neighbours(batches, cost)


def _buckets(timed: list[TimedEntry], max_buckets: int, limit: float, cost: UtteranceCost) -> list[list[TimedEntry]]:
    """Divides entries by length into buckets of about the same cost, at least MIN_BUCKET_BATCHES batches."""
    total = sum(cost(seconds) for seconds, _ in timed)
    count = max(1, min(max_buckets, int(total / (MIN_BUCKET_BATCHES * limit))))
    bounds: list[float] = []
    passed = 0.0
    for seconds in sorted(seconds for seconds, _ in timed):
        passed += cost(seconds)
        if passed > total * (len(bounds) + 1) / count:
            bounds.append(seconds)
    buckets: list[list[TimedEntry]] = [[] for _ in range(len(bounds) + 1)]
    for seconds, entry in timed:
        buckets[bisect_left(bounds, seconds)].append((seconds, entry))
    return buckets


def _even_batches(bucket: list[TimedEntry], limit: float, cost: UtteranceCost) -> list[TimedBatch]:
    """Divides a bucket into batches of at most `limit`, if possible of as many entries each, to one.

    Filled up one after the other, the last batch has what is left over. Even numbers need that the lengths of a bucket
    hardly differ, and are taken where they need at most one batch more.
    """
    filled = list(pack(bucket, limit, cost))
    for count in (len(filled), len(filled) + 1):
        bounds = [number * len(bucket) // count for number in range(count + 1)] if bucket else []
        batches = [bucket[begin:end] for begin, end in pairwise(bounds)]
        if all(len(batch) == 1 or (batch and _batch_cost(batch, cost) <= limit) for batch in batches):
            return batches
    return filled


def _pairs_of_neighbours(batches: list[TimedBatch], cost: UtteranceCost) -> list[list[TimedBatch]]:
    """Pairs of batches that are neighbours in cost. Of an odd number, the most expensive of several cuts is divided."""
    in_order = sorted(batches, key=lambda batch: _batch_cost(batch, cost), reverse=True)
    if len(in_order) % 2:
        largest = next((batch for batch in in_order if len(batch) > 1), None)
        if largest is not None:
            in_order.remove(largest)
            in_order += [largest[::2], largest[1::2]]
    return [in_order[number : number + 2] for number in range(0, len(in_order), 2)]


def _batch_cost(batch: TimedBatch, cost: UtteranceCost) -> float:
    """The cost of a padded batch."""
    return len(batch) * cost(max(seconds for seconds, _ in batch))


def pack(timed: Iterable[TimedEntry], limit: float, cost: UtteranceCost) -> Iterator[TimedBatch]:
    """Yields runs of entries that cost at most `limit`, padding included; an entry that costs more comes alone."""
    batch: TimedBatch = []
    largest = 0.0
    for seconds, entry in timed:
        own = cost(seconds)
        largest = max(largest, own)
        if batch and largest * (len(batch) + 1) > limit:
            yield batch
            batch = []
            largest = own
        batch.append((seconds, entry))
    if batch:
        yield batch
