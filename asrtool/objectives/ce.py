"""Frame-level cross entropy on alignments: the first training criterion of hybrid acoustic models."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from asrtool.data.batch import NO_LABEL, Batch
from asrtool.device import to_device
from asrtool.objectives.objective import Objective


class CrossEntropy(Objective):
    """Cross entropy of the aligned unit (the blank where no unit is aligned), summed over the frames of an utterance.

    An output frame covers `factor` feature frames, and has the label of the one in the middle, or of the last one of
    its utterance. `smoothing` is the share of each frame's target that is spread over all units (Szegedy et al. 2016,
    section 7).
    """

    def __init__(self, factor: int, smoothing: float = 0.0):
        self.factor = factor
        self.smoothing = smoothing

    def __str__(self) -> str:
        return "ce: frame-level cross entropy on the alignments of the manifest"

    def min_frames(self, units: Sequence[int]) -> int:
        """The fewest output frames with which an utterance can be trained on: one."""
        return 1

    def __call__(self, log_probs: Tensor, out_lens: Tensor, batch: Batch) -> Tensor:
        """(N,) nats from log_probs (N, T', V); 0 for an utterance that has no units or no alignment."""
        size = log_probs.shape[1]
        is_padding = torch.arange(size) >= out_lens[:, None]  # (N, T')
        labels = self.labels(batch, size).masked_fill(is_padding, NO_LABEL)
        with torch.autocast(log_probs.device.type, enabled=False):
            loss = cross_entropy(
                log_probs.float().transpose(1, 2),  # (N, V, T')
                to_device(labels, log_probs.device),
                ignore_index=NO_LABEL,
                reduction="none",
                label_smoothing=self.smoothing,
            )
        return loss.sum(1) * to_device(batch.target_lens > 0, loss.device)

    def labels(self, batch: Batch, frames: int) -> Tensor:
        """Labels of output frames (N, frames); NO_LABEL where the feature frame has none."""
        assert batch.labels is not None  # the loader reads alignments for this objective
        middle = torch.arange(frames) * self.factor + self.factor // 2
        return batch.labels.gather(1, torch.minimum(middle, batch.feature_lens[:, None] - 1))
