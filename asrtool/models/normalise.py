"""Feature normalisation as a part of the model, so that training, decoding and an export cannot differ in it."""

import torch
from torch import Tensor, nn


class Normalise(nn.Module):
    """Per bin: (x - mean) / deviation; padding comes out as zero.

    "global": mean and deviation of the training set. "utterance": the utterance's own mean, the deviation around such
    means in the training set; better against channels and voices, but it needs the whole utterance. "none": as it is.
    """

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

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        """(N, T, F) features, (N, T) bool, true where there is data; returns (N, T, F)."""
        keep = keep[:, :, None]
        if self.kind == "global":
            x = (x - self.mean) * self.inverse_deviation
        elif self.kind == "utterance":
            x = x.masked_fill(~keep, 0.0)
            x = (x - x.sum(1, keepdim=True) / keep.sum(1, keepdim=True).clamp(min=1)) * self.inverse_deviation
        return x.masked_fill(~keep, 0.0)
