"""Streams of features in, log-probabilities out, in pieces of any length."""

import torch
from torch import Tensor

from asrtool.models.acoustic import AcousticModel


class Stream:
    """A batch of streams through a model: cuts what comes into steps, and leaves out the frames that do not count."""

    def __init__(self, model: AcousticModel, batch: int = 1):
        self.model, self._state = model, model.initial_state(batch)
        weight = model.output.weight
        self._waiting = weight.new_zeros(batch, model.lead, len(model.normalise.mean))
        self._came = torch.full((batch,), model.lead, device=weight.device)  # frames of each stream, the lead included
        self._stepped = 0  # frames that went into steps
        self._skip = model.delay  # output frames that do not count

    @property
    def out_lens(self) -> Tensor:
        """(N,) output frames of the streams as far as they have come; what is returned beyond them is meaningless."""
        return self.model.out_length(self._came - self.model.lead)

    def accept(self, x: Tensor, x_lens: Tensor | None = None) -> Tensor:
        """x (N, n, F), any n; returns those log-probs (N, m, units) that are now sure, m >= 0.

        `x_lens` (N,), n by default: below n, a stream ends here, and has 0 from then on.
        """
        self._came = self._came + (x.shape[1] if x_lens is None else x_lens)
        self._waiting = torch.cat([self._waiting, x], 1)
        size = self._waiting.shape[1]
        return self._step(size - size % self.model.latency().chunk)

    def finish(self) -> Tensor:
        """End all streams; returns the rest of their log-probs."""
        out = int(self.out_lens.max()) + self.model.delay
        chunk = self.model.latency().chunk
        missing = max(0, out * self.model.subsampling.factor - self._stepped - self._waiting.shape[1])
        missing += -(self._waiting.shape[1] + missing) % chunk
        self._waiting = torch.nn.functional.pad(self._waiting, (0, 0, 0, missing))
        return self._step(self._waiting.shape[1])

    @torch.no_grad()
    def _step(self, size: int) -> Tensor:
        """Step over `size` of the waiting frames."""
        x, self._waiting = self._waiting[:, :size], self._waiting[:, size:]
        if not size:
            return self.model.output.weight.new_zeros(len(x), 0, self.model.output.out_features)
        lens = (self._came - self._stepped).clamp(0, size)
        log_probs, self._state = self.model.step(x, lens, self._state)
        self._stepped += size
        skipped = min(self._skip, log_probs.shape[1])
        self._skip -= skipped
        return log_probs[:, skipped:]
