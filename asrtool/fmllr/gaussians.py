"""Gaussian mixtures of diagonal covariance, one for each state of a hidden Markov model, trained by EM."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# A Gaussian needs this many frames; with fewer it keeps its mean and variance, or is removed.
MIN_FRAMES = 20.0
# The share of the variance of all frames below which no variance may fall.
VARIANCE_FLOOR = 0.01
# Gaussians are divided among the states by their frames to this power, as in Kaldi: common states are modelled in more
# detail, but not in proportion.
FRAMES_POWER = 0.3
SPLIT_DEVIATIONS = 0.2  # distance of the means of two halves of a Gaussian from its own


@dataclass
class MixtureStatistics:
    """Sums over frames for each of M Gaussians: posteriors (M,), and the frames (M, D) and their squares by them."""

    posteriors: Tensor
    frames: Tensor
    squares: Tensor
    log_likelihood: float = 0.0
    num_frames: int = 0


class GaussianMixtures:
    """M Gaussians of K states over D dimensions: `means`, `variances` (M, D), `log_weights` (M,) and `states` (M,).

    The Gaussians of a state, whose weights sum to one, are in any places.
    """

    def __init__(self, means: Tensor, variances: Tensor, log_weights: Tensor, states: Tensor, num_states: int):
        self.means = means
        self.variances = variances
        self.log_weights = log_weights
        self.states = states
        self.num_states = num_states

    @classmethod
    def of_frames(cls, frames: Tensor, num_states: int) -> "GaussianMixtures":
        """Returns one Gaussian for each state, all with the mean and the variance of the frames (T, D)."""
        means = frames.mean(0).expand(num_states, -1).clone()
        variances = frames.var(0).expand(num_states, -1).clone()
        return cls(means, variances, torch.zeros(num_states), torch.arange(num_states), num_states)

    def __len__(self) -> int:
        return len(self.means)

    def log_likelihoods(self, frames: Tensor, chosen: Tensor | None = None) -> Tensor:
        """Returns the log-likelihood of each frame (T, D) under each Gaussian with its weight: (T, M).

        `chosen` (m,) are the numbers of some Gaussians; the result is then (T, m).
        """
        index = slice(None) if chosen is None else chosen
        precisions = 1 / self.variances[index]
        means = self.means[index]
        constants = self.log_weights[index] - 0.5 * (
            (2 * math.pi * self.variances[index]).log().sum(1) + (means**2 * precisions).sum(1)
        )
        return constants - 0.5 * (frames**2 @ precisions.T) + frames @ (means * precisions).T

    def state_log_likelihoods(self, frames: Tensor) -> Tensor:
        """Returns the log-likelihood of each frame (T, D) under the best Gaussian of each state: (T, K)."""
        order = self.states.argsort(stable=True)
        counts = torch.bincount(self.states, minlength=self.num_states)
        first = counts.cumsum(0) - counts
        values = self.log_likelihoods(frames, order).numpy()
        return torch.from_numpy(np.maximum.reduceat(values, first.numpy(), axis=1))

    def statistics(self, frames: Tensor, states: Tensor) -> MixtureStatistics:
        """Returns the statistics of frames (T, D), given the state (T,) of each: for `update`. In float64."""
        shape = self.means.shape
        posteriors, means, squares = (torch.zeros(size, dtype=torch.float64) for size in (shape[:1], shape, shape))
        sums = MixtureStatistics(posteriors, means, squares, num_frames=len(frames))
        for chosen, _, own, weights, totals in self._by_state(frames, states):
            sums.posteriors[chosen] = weights.sum(0).double()
            sums.frames[chosen] = (weights.T @ own).double()
            sums.squares[chosen] = (weights.T @ own**2).double()
            sums.log_likelihood += float(totals.double().sum())
        return sums

    def expected_precisions(self, frames: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the precisions of the Gaussians, and the products with their means, by their posteriors: (T, D) each.

        The posteriors are computed from the frames (T, D), given the state (T,) of each.
        """
        precisions, products = torch.empty_like(frames), torch.empty_like(frames)
        for chosen, places, _, weights, _ in self._by_state(frames, states):
            own = 1 / self.variances[chosen]
            precisions[places] = weights @ own
            products[places] = weights @ (self.means[chosen] * own)
        return precisions, products

    def _by_state(self, frames: Tensor, states: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
        """Yields for each state with frames: its Gaussians (m,), the places (t,) of its frames, these (t, D), the
        posteriors (t, m) and the log-likelihoods (t,)."""
        order = states.argsort(stable=True)
        counts = torch.bincount(states, minlength=self.num_states).tolist()
        for state, places in enumerate(order.split(counts)):
            if not len(places):
                continue
            chosen = (self.states == state).nonzero().flatten()
            own = frames[places]
            values = self.log_likelihoods(own, chosen)
            totals = values.logsumexp(1)
            yield chosen, places, own, (values - totals[:, None]).exp(), totals

    def update(self, sums: MixtureStatistics, floor: Tensor) -> Tensor:
        """Sets the parameters to their maximum-likelihood estimates; returns the posteriors (M,) of what remains.

        No variance falls below `floor` (D,). A Gaussian with few frames is removed, unless it is its state's last.
        """
        rare = sums.posteriors < MIN_FRAMES
        counts = sums.posteriors.clamp(min=MIN_FRAMES)[:, None]
        means = torch.where(rare[:, None], self.means.double(), sums.frames / counts)
        squares = torch.where(rare[:, None], (self.variances + self.means**2).double(), sums.squares / counts)
        variances = torch.maximum(squares - means**2, floor.double())
        highest = torch.zeros(self.num_states, dtype=torch.float64)
        highest = highest.scatter_reduce(0, self.states, sums.posteriors, "amax")
        kept = ~rare | (sums.posteriors == highest[self.states])
        self.means, self.variances = means[kept].float(), variances[kept].float()
        self.states = self.states[kept]
        posteriors = sums.posteriors[kept].clamp(min=1.0)
        totals = torch.zeros(self.num_states, dtype=torch.float64).index_add(0, self.states, posteriors)
        self.log_weights = (posteriors / totals[self.states]).log().float()
        return posteriors

    def split(self, target: int, posteriors: Tensor) -> None:
        """Splits Gaussians of the most frames, `posteriors` (M,), until there are about `target`."""
        frames = torch.zeros(self.num_states, dtype=torch.float64).index_add(0, self.states, posteriors)
        shares = frames.clamp(min=1.0) ** FRAMES_POWER
        wanted = torch.minimum((target * shares / shares.sum()).round(), (frames / (2 * MIN_FRAMES)).floor())
        posteriors = posteriors.clone()
        while True:
            numbers = torch.bincount(self.states, minlength=self.num_states)
            states = (numbers < wanted).nonzero().flatten().tolist()
            if not states:
                return
            largest = [_argmax_within(posteriors, self.states == state) for state in states]
            posteriors[largest] /= 2
            posteriors = torch.cat([posteriors, posteriors[largest]])
            self._split(torch.tensor(largest))

    def _split(self, chosen: Tensor) -> None:
        """Puts two Gaussians, with half of the weight each, instead of each Gaussian in `chosen`.

        Their means lie on both sides along the diagonal of the ellipsoid of one deviation.
        """
        distance = SPLIT_DEVIATIONS * self.variances[chosen].sqrt()
        self.log_weights[chosen] -= math.log(2)
        self.means = torch.cat([self.means, self.means[chosen] + distance])
        self.means[chosen] -= distance
        self.variances = torch.cat([self.variances, self.variances[chosen]])
        self.log_weights = torch.cat([self.log_weights, self.log_weights[chosen]])
        self.states = torch.cat([self.states, self.states[chosen]])


def _argmax_within(values: Tensor, mask: Tensor) -> int:
    return int(values.masked_fill(~mask, -torch.inf).argmax())
