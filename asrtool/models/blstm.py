"""Bidirectional LSTMs: over whole utterances, and latency-controlled."""

import math

import torch
from torch import Tensor, nn

from asrtool.config import ModelConfig
from asrtool.models.dropout import Dropout
from asrtool.models.masks import padding_mask


class BlstmLayer(nn.Module):
    """Forward and backward LSTM of D/2 cells each. Padded, not packed: packing costs ten times the time on CPU."""

    def __init__(self, dim: int):
        super().__init__()
        self.ahead = nn.LSTM(dim, dim // 2, batch_first=True)
        self.back = nn.LSTM(dim, dim // 2, batch_first=True)

    def backward_pass(self, x: Tensor, keep: Tensor) -> Tensor:
        """(N, T, D), from each utterance's last frame to its first; the frames that are kept are the first ones."""
        order = reversal(keep)[:, :, None]
        y, _ = self.back(x.gather(1, order.expand_as(x)))
        return y.gather(1, order.expand_as(y))

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        """(N, T, D), (N, T) bool; returns (N, T, D)."""
        return torch.cat([self.ahead(x)[0], self.backward_pass(x, keep)], dim=-1)


def reversal(keep: Tensor) -> Tensor:
    """(N, T) indices that turn the kept frames at the start of each row around:

    keep 1 1 1 .   ->   2 1 0 3
    """
    index = torch.arange(keep.shape[1], device=keep.device)
    return torch.where(keep, (keep.sum(1, keepdim=True) - 1 - index).clamp(min=0), index)


class Blstm(nn.Module):
    """A stack of bidirectional layers with dropout between them."""

    chunk, streams = 1, False
    left = right = math.inf

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.layers = nn.ModuleList(BlstmLayer(config.dim) for _ in range(config.layers))
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, x_lens: Tensor) -> Tensor:
        """(N, T, D), (N,); returns (N, T, D)."""
        keep = padding_mask(x_lens, x.shape[1])
        for layer in self.layers:
            x = self.dropout(layer(x, keep))
        return x
