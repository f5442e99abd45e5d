"""Connectionist temporal classification (Graves et al. 2006)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import ctc_loss as torch_ctc_loss

from asrtool.data.batch import Batch


def frames_needed(units: Sequence[int]) -> int:
    """The fewest output frames that can spell `units`: one each, and a blank between equal neighbours."""
    return len(units) + sum(a == b for a, b in zip(units, units[1:], strict=False))


def ctc_loss(log_probs: Tensor, out_lens: Tensor, targets: Tensor, target_lens: Tensor, blank: int = 0) -> Tensor:
    """Negative log-likelihood of each utterance, (N,) in nats.

    log_probs (N, T', V) float32; targets (N, U) padded. 0, and no gradient, where `out_lens` < `frames_needed`,
    which no path can spell.
    """
    with torch.autocast(log_probs.device.type, enabled=False):
        log_probs = log_probs.float().transpose(0, 1)
        return torch_ctc_loss(log_probs, targets, out_lens, target_lens, blank, reduction="none", zero_infinity=True)


class Ctc:
    """CTC as an objective: the units of a batch's targets."""

    intermediate = 0.0  # see asrtool/objectives/objective.py

    def __str__(self) -> str:
        return "ctc"

    def frames_needed(self, units: Sequence[int]) -> int:
        """The fewest output frames that can spell `units`."""
        return frames_needed(units)

    def __call__(self, log_probs: Tensor, out_lens: Tensor, batch: Batch) -> Tensor:
        """(N,) nats; 0 for an utterance that has no units, or more than its frames can spell."""
        targets, lens = batch.targets.to(log_probs.device), batch.target_lens.to(log_probs.device)
        return ctc_loss(log_probs, out_lens, targets, lens) * (lens > 0)
