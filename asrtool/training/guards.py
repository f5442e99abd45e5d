"""The guard against bad steps: it leaves them out, and decides when training rolls back or stops.

A step is bad when its loss or its gradient is not finite, or when its loss is a spike, far above the losses before. A
bad step does not change the weights, and its cuts are logged. Many bad steps in a row mean that the weights are bad,
not the data: training rolls back to its last checkpoint and continues at a lower learning rate with the data that comes
next (asrtool/training/recovery.py).
"""

import math
from dataclasses import dataclass

from asrtool.config import GuardsConfig
from asrtool.config_types import NonNegativeInteger, NonNegativeReal, Real

LOSS_DECAY = 0.99  # of the running mean and variance of the loss: they cover about the last hundred steps
MIN_GOOD_STEPS = 100  # before a loss can be a spike


@dataclass
class LossGuard:
    """The running mean and variance of the loss, and counts of good and bad steps. It is saved in checkpoints."""

    good_steps: NonNegativeInteger = 0
    mean: Real = 0.0
    variance: NonNegativeReal = 0.0
    bad_steps: NonNegativeInteger = 0  # in total
    bad_in_a_row: NonNegativeInteger = 0
    rollbacks: NonNegativeInteger = 0

    def problem(self, guards: GuardsConfig, loss: float, gradient_norm: float) -> str | None:
        """Returns what is bad about a step with this loss and gradient norm, None for a good step, and counts it."""
        problem = self._find_problem(guards, loss, gradient_norm)
        if problem:
            self.bad_steps += 1
            self.bad_in_a_row += 1
            return problem
        self.bad_in_a_row = 0
        self.good_steps += 1
        share = max(1 - LOSS_DECAY, 1 / self.good_steps)
        deviation = loss - self.mean
        self.mean += share * deviation
        self.variance = (1 - share) * (self.variance + share * deviation**2)
        return None

    def _find_problem(self, guards: GuardsConfig, loss: float, gradient_norm: float) -> str | None:
        if not math.isfinite(loss):
            return f"loss {loss}"
        if not math.isfinite(gradient_norm):
            return f"gradient norm {gradient_norm}"
        limit = self.mean + guards.loss_spike_std * math.sqrt(self.variance)
        if self.good_steps >= MIN_GOOD_STEPS and loss > limit:
            return (
                f"loss {loss:.4g}, where {limit:.4g} is {guards.loss_spike_std:g} standard deviations above its "
                "running mean"
            )
        return None

    def lr_factor(self, guards: GuardsConfig) -> float:
        """Returns the factor of the learning rate after the rollbacks so far."""
        return guards.lr_factor**self.rollbacks
