"""Bidirectional LSTM over whole utterances."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from asrtool.config import ModelConfig
from asrtool.models.dropout import Dropout
from asrtool.models.interface import Encoder
from asrtool.models.masks import padding_mask


class BlstmLayer(nn.Module):
    """Forward and backward LSTM of D/2 cells each. Padded, not packed: packing takes ten times as long on a CPU."""

    def __init__(self, dim: int):
        super().__init__()
        self.ahead = nn.LSTM(dim, dim // 2, batch_first=True)  # forward in time
        self.back = nn.LSTM(dim, dim // 2, batch_first=True)  # backward in time

    def backward_pass(self, x: Tensor, padding_mask: Tensor) -> Tensor:
        """(N, T, D) to (N, T, D/2), from each utterance's last frame to its first; padding is at the end."""
        order = reversal(padding_mask)[:, :, None]  # (N, T, 1)
        y, _ = self.back(x.gather(1, order.expand_as(x)))
        return y.gather(1, order.expand_as(y))

    def forward(self, x: Tensor, padding_mask: Tensor) -> Tensor:
        """(N, T, D) and (N, T) bool, False at padding; returns (N, T, D)."""
        return torch.cat([self.ahead(x)[0], self.backward_pass(x, padding_mask)], dim=-1)


def reversal(padding_mask: Tensor) -> Tensor:
    """(N, T) indices that reverse the valid frames at the start of each row:

    padding_mask 1 1 1 .   ->   2 1 0 3
    """
    index = torch.arange(padding_mask.shape[1], device=padding_mask.device)
    last = padding_mask.sum(1, keepdim=True) - 1  # (N, 1)
    return torch.where(padding_mask, (last - index).clamp(min=0), index)


class Blstm(Encoder):
    """A stack of bidirectional layers with dropout between them."""

    layers: Sequence[BlstmLayer]

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.chunk = 1
        self.left = math.inf
        self.right = math.inf
        self.can_stream = False
        layers = [BlstmLayer(config.dim) for _ in range(config.layers)]
        self.layers = nn.ModuleList(layers)  # type: ignore[assignment]  # torch has no type for its elements
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, x_lens: Tensor) -> Tensor:
        """(N, T, D), (N,); returns (N, T, D)."""
        mask = padding_mask(x_lens, x.shape[1])
        for layer in self.layers:
            x = self.dropout(layer(x, mask))
        return x
