"""Transformer language models over BPE units: what comes next in a sentence."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from asrtool.config import Model
from asrtool.models.masks import padding_mask
from asrtool.models.transformer import TransformerEncoder

BOUNDARY = 0  # the unit before the first of a sentence, and behind its last; a tokenizer's blank, which spells nothing


@dataclass(frozen=True)
class Shape:
    """How large the model is; feed-forward layers are four times as wide as `dim`."""

    dim: int = 256
    layers: int = 6
    heads: int = 4
    dropout: float = 0.1


class TransformerLm(nn.Module):
    """Pre-Norm blocks in which a unit sees those before it; the output shares the embedding's matrix (1608.05859)."""

    def __init__(self, size: int, shape: Shape):
        super().__init__()
        sizes = {"dim": shape.dim, "layers": shape.layers, "heads": shape.heads, "ff_dim": 4 * shape.dim}
        self.units = nn.Embedding(size, shape.dim)
        nn.init.normal_(self.units.weight, std=shape.dim**-0.5)
        self.encoder = TransformerEncoder(Model(**sizes, dropout=shape.dropout, mask="sliding", right=0))
        self.encoder.packs = False  # a batch has sentences of one length, many of them: one product is faster
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, units: Tensor, lens: Tensor) -> Tensor:
        """The log-prob of every unit after each of `units` (N, T) int64, of which `lens` (N,) are there.

        Returns (sum of lens, V) float32, the sentences one after the other.
        """
        y = self.encoder(self.units(units), lens)[padding_mask(lens, units.shape[1])]
        return nn.functional.linear(y, self.units.weight, self.bias).float().log_softmax(-1)
