"""Connectionist temporal classification (Graves et al. 2006)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import ctc_loss as torch_ctc_loss

from asrtool.data.batch import Batch
from asrtool.device import to_device
from asrtool.objectives.objective import Objective


def min_frames(units: Sequence[int]) -> int:
    """The fewest output frames for which `units` are CTC-feasible: one each, and a blank between equal neighbours."""
    return len(units) + sum(a == b for a, b in zip(units, units[1:], strict=False))


def ctc_loss(log_probs: Tensor, out_lens: Tensor, targets: Tensor, target_lens: Tensor, blank: int = 0) -> Tensor:
    """Negative log-likelihood of each utterance, summed over all CTC alignments of its targets, (N,) in nats.

    log_probs (N, T', V); targets (N, U) padded, on the same device; the lengths are on the host. 0, and no gradient,
    where the targets are not CTC-feasible: `out_lens` is less than `min_frames`.
    """
    with torch.autocast(log_probs.device.type, enabled=False):
        log_probs = log_probs.float().transpose(0, 1)  # (T', N, V)
        return torch_ctc_loss(log_probs, targets, out_lens, target_lens, blank, reduction="none", zero_infinity=True)


class Ctc(Objective):
    """CTC as an objective: the targets are the units of the transcript."""

    def __str__(self) -> str:
        return "ctc"

    def min_frames(self, units: Sequence[int]) -> int:
        """The fewest output frames for which `units` are CTC-feasible."""
        return min_frames(units)

    def __call__(self, log_probs: Tensor, out_lens: Tensor, batch: Batch) -> Tensor:
        """(N,) nats; 0 for an utterance that has no units, or that is not CTC-feasible."""
        targets = to_device(batch.targets, log_probs.device)
        has_units = to_device(batch.target_lens > 0, log_probs.device)
        return ctc_loss(log_probs, out_lens, targets, batch.target_lens) * has_units
