"""Gaussian statistics of phones in context: what decision trees are grown on, and questions for them.

A class of frames has a Gaussian with a diagonal covariance. Its moments are a vector of 1 + 2 D numbers: the count of
its frames, the sum of each of D dimensions, and the sum of the squares. The moments of several classes add up.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asrtool.text.context_units import BOUNDARY

VARIANCE_FLOOR = 0.01  # of the variance of all frames, as Kaldi's GMMs; a class of few equal frames has none of its own


@dataclass(frozen=True)
class ContextStatistics:
    """The moments of the frames of each phone in each of K contexts that occurred."""

    contexts: np.ndarray  # (K, 3) int64: the phone before, the phone, and the phone after; BOUNDARY is an edge
    moments: np.ndarray  # (K, 1 + 2 D) float64

    @property
    def num_frames(self) -> int:
        """The number of all frames."""
        return round(float(self.moments[:, 0].sum())) if len(self.contexts) else 0

    @property
    def variance_floor(self) -> np.ndarray:
        """The smallest variance of each dimension in the Gaussian of a class, (D,)."""
        count, means, squares = _split(self.moments.sum(axis=0))
        return VARIANCE_FLOOR * np.maximum(squares / count - (means / count) ** 2, np.finfo(np.float32).tiny)


class StatisticsCollector:
    """Adds up the moments of phones in context, utterance by utterance."""

    def __init__(self) -> None:
        self._moments: dict[tuple[int, int, int], np.ndarray] = {}

    def add(self, frames: np.ndarray, phones: Sequence[int], begins: Sequence[int], ends: Sequence[int]) -> None:
        """Adds an utterance of frames (T, D), whose `phones` have the frames from `begins` up to `ends`, exclusive.

        Bounds outside of the utterance are moved to its edge.
        """
        values = np.asarray(frames, np.float64)
        rows = np.concatenate([np.ones((len(values), 1)), values, values**2], axis=1)  # (T, 1 + 2 D)
        totals = np.concatenate([np.zeros((1, rows.shape[1])), rows.cumsum(axis=0)])  # (T + 1, 1 + 2 D)
        first = np.clip(begins, 0, len(values))
        last = np.maximum(np.clip(ends, 0, len(values)), first)
        padded = [BOUNDARY, *phones, BOUNDARY]
        for number, moments in enumerate(totals[last] - totals[first]):
            left, phone, right = padded[number : number + 3]
            self._moments[left, phone, right] = self._moments.get((left, phone, right), 0.0) + moments

    def result(self) -> ContextStatistics:
        """Returns the statistics of the contexts that have frames, in their order; perhaps of none."""
        occurred = sorted(context for context, moments in self._moments.items() if moments[0] > 0)
        contexts = np.array(occurred, np.int64).reshape(-1, 3)
        return ContextStatistics(contexts, np.array([self._moments[context] for context in occurred]))


def log_likelihood(moments: np.ndarray, variance_floor: np.ndarray) -> np.ndarray:
    """Returns the log-likelihood, in nats, of the frames of classes in their own Gaussians: moments (..., 1 + 2 D).

    The variances are at least `variance_floor` (D,). It is 0 for a class without frames.
    """
    count, sums, squares = _split(moments)
    safe = np.maximum(count, np.finfo(np.float64).tiny)[..., None]
    variance = np.maximum(squares / safe - (sums / safe) ** 2, 0.0)
    floored = np.maximum(variance, variance_floor)
    return -0.5 * count * (np.log(2 * np.pi * floored) + variance / floored).sum(axis=-1)


def _split(moments: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns count (...), sums (..., D) and sums of squares (..., D) of moments (..., 1 + 2 D)."""
    dimensions = (moments.shape[-1] - 1) // 2
    return moments[..., 0], moments[..., 1 : 1 + dimensions], moments[..., 1 + dimensions :]


def phone_questions(statistics: ContextStatistics, num_phones: int) -> list[frozenset[int]]:
    """Returns the sets of phones that a tree may ask for: clusters of similar phones, and each phone and edge alone.

    The phones 1 to `num_phones` are merged two by two: always those clusters whose common Gaussian has the least loss
    of likelihood against their own. Each cluster on the way is a question, as in the automatic questions of Kaldi
    (which splits from the top instead). A phone that has no frames is in no cluster.
    """
    moments = np.zeros((num_phones + 1, statistics.moments.shape[1]))
    np.add.at(moments, statistics.contexts[:, 1], statistics.moments)
    clusters = [frozenset([phone]) for phone in range(1, num_phones + 1) if moments[phone, 0] > 0]
    rows = np.array([moments[next(iter(cluster))] for cluster in clusters])  # (clusters, 1 + 2 D)
    questions = [frozenset([phone]) for phone in range(num_phones + 1)]  # 0 is BOUNDARY
    while len(clusters) > 2:
        first, second = _least_loss(rows, statistics.variance_floor)
        merged = clusters[first] | clusters[second]
        questions.append(merged)
        kept = [n for n in range(len(clusters)) if n not in (first, second)]
        rows = np.concatenate([rows[kept], (rows[first] + rows[second])[None]])
        clusters = [*(clusters[n] for n in kept), merged]
    return questions


def _least_loss(rows: np.ndarray, variance_floor: np.ndarray) -> tuple[int, int]:
    """Returns the two clusters whose merging loses the least likelihood; `rows` are their moments."""
    own = log_likelihood(rows, variance_floor)
    best = (np.inf, 0, 0)
    for first in range(len(rows) - 1):
        together = log_likelihood(rows[first] + rows[first + 1 :], variance_floor)
        loss = own[first] + own[first + 1 :] - together
        second = int(loss.argmin())
        best = min(best, (float(loss[second]), first, first + 1 + second))
    return best[1:]
