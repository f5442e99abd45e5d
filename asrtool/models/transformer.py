"""Transformer encoder over the whole utterance, Pre-Norm (arXiv 1706.03762; Pre-Norm: arXiv 2002.04745)."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from asrtool.config import Model
from asrtool.models.convolution import ResidualConvolution
from asrtool.models.masks import padding_mask


class SelfAttention(nn.Module):
    """Multi-head self-attention. No dropout on the attention weights: on CPU it triples the time of the layer."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(N, T, D) and a bool mask (N, 1, 1 or T, T), true where a frame (row) may look (column)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (N, H, T, D/H)
        y = scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(y.transpose(1, 2).flatten(2))


class FeedForward(nn.Sequential):
    """Position-wise feed-forward layer, without dropout inside: drawing its wide mask costs a sixth of a CPU step."""

    def __init__(self, dim: int, ff_dim: int):
        super().__init__(nn.Linear(dim, ff_dim), nn.SiLU(), nn.Linear(ff_dim, dim))


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)), then the convolution where there is one."""

    def __init__(self, config: Model):
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.dim)
        self.attention = SelfAttention(config.dim, config.heads)
        self.ff_norm = nn.LayerNorm(config.dim)
        self.feed_forward = FeedForward(config.dim, config.ff_dim)
        self.convolution = ResidualConvolution(config.dim, config.dropout) if config.convolution != "none" else None
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        """(N, T, D); `keep` (N, T) bool, true where there is data."""
        x = x + self.dropout(self.attention(self.attention_norm(x), keep[:, None, None, :]))
        x = x + self.dropout(self.feed_forward(self.ff_norm(x)))
        return self.convolution(x, keep[:, :, None]) if self.convolution else x


class TransformerEncoder(nn.Module):
    """Blocks with a final norm. Padded frames are never attended to; what they hold themselves is nobody's input."""

    right_context = math.inf  # frames: each frame sees the whole utterance

    def __init__(self, config: Model):
        super().__init__()
        self.positions = config.positions
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, x: Tensor, x_lens: Tensor) -> Tensor:
        """(N, T, D), (N,); returns (N, T, D)."""
        x = x * math.sqrt(x.shape[2])  # else the positions, and soon the residuals, drown what was heard (section 3.4)
        if self.positions == "sinusoidal":
            x = x + sinusoids(x.shape[1], x.shape[2], x)
        x = self.dropout(x)
        keep = padding_mask(x_lens, x.shape[1])
        for block in self.blocks:
            x = block(x, keep)
        return self.norm(x)


def sinusoids(length: int, dim: int, like: Tensor) -> Tensor:
    """(length, dim) position encodings, sines beside cosines (arXiv 1706.03762, section 3.5)."""
    rates = torch.exp(torch.arange(0, dim, 2, device=like.device) * (-math.log(10000.0) / dim))
    angles = torch.arange(length, device=like.device)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :dim].to(like.dtype)
