"""Feature normalisation as a part of the model, so that training, decoding and an export cannot differ in it."""

import torch
from torch import Tensor, nn


class Normalise(nn.Module):
    """(x - mean) / deviation of each bin; padding becomes zero.

    "global": mean and deviation of the training set. "utterance": the utterance's own mean, and the training set's
    deviation from such means; more robust to channels and voices, but it needs the whole utterance. "none": no change.
    """

    mean: Tensor  # (F,)
    inverse_deviation: Tensor  # (F,)

    def __init__(self, kind: str, bins: int):
        super().__init__()
        self.kind = kind
        self.register_buffer("mean", torch.zeros(bins))
        self.register_buffer("inverse_deviation", torch.ones(bins))

    @torch.no_grad()
    def set_statistics(self, mean: Tensor, deviation: Tensor) -> None:
        """Statistics of the training set, (F,) each."""
        self.mean.copy_(mean)
        self.inverse_deviation.copy_(1.0 / deviation.clamp(min=1e-3))  # a bin that never changes stays finite

    def forward(self, x: Tensor, padding_mask: Tensor) -> Tensor:
        """(N, T, F) features, (N, T) bool, False at padding; returns (N, T, F)."""
        mask = padding_mask[:, :, None]  # (N, T, 1)
        if self.kind == "global":
            x = (x - self.mean) * self.inverse_deviation
        elif self.kind == "utterance":
            x = x.masked_fill(~mask, 0.0)
            mean = x.sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)  # (N, 1, F)
            x = (x - mean) * self.inverse_deviation
        return x.masked_fill(~mask, 0.0)
