"""Frame-level cross entropy on alignments: the criterion that hybrid acoustic models begin with."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from asrtool.data.batch import NO_LABEL, Batch


class CrossEntropy:
    """-ln of the aligned unit, added up over the frames of an utterance; the blank where no unit is.

    `factor` frames of 10 ms are one of the model's; it answers for the one in their middle. `smoothing` gives this
    share of each frame to all units alike (Szegedy et al. 2016, section 7).
    """

    intermediate = 0.0  # see asrtool/objectives/objective.py

    def __init__(self, factor: int, smoothing: float = 0.0):
        self.factor, self.smoothing = factor, smoothing

    def __str__(self) -> str:
        return "ce: frame-level cross entropy on the alignments of the manifest"

    def frames_needed(self, units: Sequence[int]) -> int:
        """The fewest output frames that training can use: one."""
        return 1

    def __call__(self, log_probs: Tensor, out_lens: Tensor, batch: Batch) -> Tensor:
        """(N,) nats; 0 for an utterance that has no units or no alignment."""
        labels = self.labels(batch, log_probs.shape[1]).to(log_probs.device)
        beyond = torch.arange(log_probs.shape[1], device=log_probs.device) >= out_lens[:, None]
        labels = labels.masked_fill(beyond, NO_LABEL)
        with torch.autocast(log_probs.device.type, enabled=False):
            loss = cross_entropy(
                log_probs.float().transpose(1, 2),
                labels,
                ignore_index=NO_LABEL,
                reduction="none",
                label_smoothing=self.smoothing,
            )
        return loss.sum(1) * (batch.target_lens.to(loss.device) > 0)

    def labels(self, batch: Batch, frames: int) -> Tensor:
        """(N, frames) of the model's frames, from those of 10 ms; NO_LABEL where there is none."""
        middle = torch.arange(frames) * self.factor + self.factor // 2
        return batch.labels[:, middle.clamp(max=batch.labels.shape[1] - 1)]
