"""Streams of features in, log-probabilities out, in pieces of any length."""

import torch
from torch import Tensor

from asrtool.models.acoustic import AcousticModel


class ModelStream:
    """A batch of streams through a model: divides the input into steps, and leaves out the meaningless frames."""

    def __init__(self, model: AcousticModel, batch: int = 1):
        self.model = model
        weight = model.output.weight
        lead = model.lead_padding
        self._state = model.initial_state(batch)
        self._pending = weight.new_zeros(batch, lead, len(model.normalise.mean))  # frames that are not in a step yet
        self._received = torch.full((batch,), lead, device=weight.device)  # frames of each stream, with the padding
        self._stepped = 0  # frames that were in steps
        self._to_skip = model.delay  # meaningless output frames at the start

    @property
    def out_lens(self) -> Tensor:
        """(N,) output frames for the input of each stream so far; frames that are returned beyond are meaningless."""
        return self.model.out_length(self._received - self.model.lead_padding)

    def accept(self, x: Tensor, x_lens: Tensor | None = None) -> Tensor:
        """x (N, n, F), any n; returns the log-probs (N, m, V) that no further input can change, m >= 0.

        `x_lens` (N,), n by default: a stream whose length is below n ends here, and has length 0 from then on.
        """
        self._received = self._received + (x.shape[1] if x_lens is None else x_lens)
        self._pending = torch.cat([self._pending, x], 1)
        size = self._pending.shape[1]
        return self._step(size - size % self.model.latency().chunk)

    def finish(self) -> Tensor:
        """Ends all streams; returns the rest of their log-probs."""
        num_outputs = int(self.out_lens.max()) + self.model.delay
        chunk = self.model.latency().chunk
        missing = max(0, num_outputs * self.model.subsampling.factor - self._stepped - self._pending.shape[1])
        missing += -(self._pending.shape[1] + missing) % chunk
        self._pending = torch.nn.functional.pad(self._pending, (0, 0, 0, missing))
        return self._step(self._pending.shape[1])

    @torch.no_grad()
    def _step(self, size: int) -> Tensor:
        """Runs the model over the first `size` pending frames."""
        x, self._pending = self._pending[:, :size], self._pending[:, size:]
        if not size:
            return self.model.output.weight.new_zeros(len(x), 0, self.model.output.out_features)
        lens = (self._received - self._stepped).clamp(0, size)
        log_probs, self._state = self.model.step(x, lens, self._state)
        self._stepped += size
        skipped = min(self._to_skip, log_probs.shape[1])
        self._to_skip -= skipped
        return log_probs[:, skipped:]
