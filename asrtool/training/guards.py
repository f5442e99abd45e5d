"""What training does about bad steps: leave them out, go back, and stop at last.

A step is bad when its loss or its gradient is not finite, or its loss lies far above those before it. It is not taken,
and what was in it is written down. Many in a row mean that the weights are bad, not the data: training goes back to its
last checkpoint, with a smaller rate, and on with the data that comes next.
"""

import math
from dataclasses import dataclass

from asrtool.config import Count, GuardsConfig, Real, Weight

MEMORY = 0.99  # weight of the past in the running mean: about the last hundred steps
SETTLED = 100  # steps before a loss can be far above the mean


@dataclass
class Watch:
    """The running band of the loss and what was bad so far. Goes into the checkpoint."""

    seen: Count = 0  # good steps
    mean: Real = 0.0
    variance: Weight = 0.0
    bad: Count = 0  # in all
    in_a_row: Count = 0
    rollbacks: Count = 0

    def problem(self, guards: GuardsConfig, loss: float, gradient: float) -> str | None:
        """What is bad about a step with this loss and gradient norm, if anything; keeps the count."""
        found = self._judge(guards, loss, gradient)
        if found:
            self.bad, self.in_a_row = self.bad + 1, self.in_a_row + 1
            return found
        self.in_a_row, self.seen = 0, self.seen + 1
        weight = max(1 - MEMORY, 1 / self.seen)
        apart = loss - self.mean
        self.mean += weight * apart
        self.variance = (1 - weight) * (self.variance + weight * apart**2)
        return None

    def _judge(self, guards: GuardsConfig, loss: float, gradient: float) -> str | None:
        if not math.isfinite(loss):
            return f"loss {loss}"
        if not math.isfinite(gradient):
            return f"gradient norm {gradient}"
        most = self.mean + guards.loss_spike_std * math.sqrt(self.variance)
        if self.seen >= SETTLED and loss > most:
            return f"loss {loss:.4g}, where {most:.4g} is {guards.loss_spike_std:g} deviations above its running mean"
        return None

    def rate(self, guards: GuardsConfig) -> float:
        """The factor of the learning rate."""
        return guards.lr_factor**self.rollbacks
