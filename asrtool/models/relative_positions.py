"""Transformer-XL's relative positions (arXiv 1901.02860, section 3.3), and the sinusoids that they are made of."""

import math
from typing import Any

import torch
from torch import Tensor, nn


class RelativePositions(nn.Module):
    """The position terms of Transformer-XL's score (arXiv 1901.02860, section 3.3):

        score(i, j) = [(q_i + u) . k_j  +  (q_i + v) . (W_r R_(i-j))] / sqrt(d_head)

    with u and v learned for each head, R sinusoidal and W_r without bias. i - j is negative where j is in the future.
    """

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.projection = nn.Linear(dim, dim, bias=False)  # W_r
        self.content_bias = nn.Parameter(torch.zeros(heads, 1, dim // heads))  # u
        self.position_bias = nn.Parameter(torch.zeros(heads, 1, dim // heads))  # v
        # R and W_r R of the last call, with what they were computed from: the steps of a stream all have the same
        # distances. Key and value are one attribute, so that threads never see the key of one with the other's value.
        self._encodings: tuple[tuple, Tensor] | None = None
        self._projected: tuple[tuple, Tensor] | None = None

    def forward(self, q: Tensor, keys: int, offset: int) -> Tensor:
        """The position terms (N, H, Q, keys) of queries (N, H, Q, D/H); the caller adds the content terms.

        Query i is at the position of key i + offset.
        """
        r = self._project(*self._distances(q, keys, offset), q)
        return self._scores(q, r, keys)

    def step(self, q: Tensor, keys: int, offset: int) -> Tensor:
        """`forward` for a step of a stream: without gradient, W_r R is computed again only where weights changed."""
        first, end = self._distances(q, keys, offset)
        weight = self.projection.weight
        if torch.is_grad_enabled() or torch.compiler.is_exporting() or weight.is_inference():  # which have no version
            return self._scores(q, self._project(first, end, q), keys)
        key = (first, end, q.dtype, weight.device, weight.data_ptr(), weight._version)
        cached = self._projected
        if cached is None or cached[0] != key:
            cached = (key, self._project(first, end, q).contiguous())
            self._projected = cached
        return self._scores(q, cached[1], keys)

    def _scores(self, q: Tensor, r: Tensor, keys: int) -> Tensor:
        """q (N, H, Q, D/H), r (H, D/H, Q + keys); returns (N, H, Q, keys).

        One product for each head: with a product for each utterance and head, torch would copy r for each utterance.
        """
        q = (q + self.position_bias).transpose(0, 1)  # (H, N, Q, D/H)
        scores = q.flatten(1, 2) @ r  # (H, N * Q, Q + keys)
        scores = scores.view(*q.shape[:3], -1).transpose(0, 1)  # (N, H, Q, Q + keys)
        return relative_shift(scores, keys)

    def _project(self, first: int, end: int, q: Tensor) -> Tensor:
        """W_r R / sqrt(D/H) of the distances first, ..., end + 1, (H, D/H, first - end), in the dtype of q."""
        r = self.projection(self._encode(first, end, q.device).to(q.dtype)) / math.sqrt(q.shape[-1])
        return r.unflatten(-1, (-1, q.shape[-1])).permute(1, 2, 0)  # (first - end, H, D/H) before the permutation

    @staticmethod
    def _distances(q: Tensor, keys: int, offset: int) -> tuple[int, int]:
        """The largest of all i - j, the smallest less 2: one more than the scores have, for `relative_shift`."""
        return q.shape[-2] - 1 + offset, offset - keys - 1

    def _encode(self, first: int, end: int, device: torch.device) -> Tensor:
        """R of the distances first, first - 1, ..., end + 1; (first - end, D)."""
        dim = self.projection.in_features
        if torch.compiler.is_compiling():  # also for export: distances are symbols then, which cannot be compared
            return sinusoids(torch.arange(first, end, -1, device=device), dim)
        key = (first, end, device)
        cached = self._encodings
        if cached is None or cached[0] != key:
            with torch.inference_mode(False):  # training, too, may use what a stream in inference mode has computed
                cached = (key, sinusoids(torch.arange(first, end, -1, device=device), dim))
            self._encodings = cached
        return cached[1]


def relative_shift(x: Tensor, keys: int) -> Tensor:
    """Scores (..., Q, Q + keys) by distance, the largest first, to scores (..., Q, keys) by key.

    The scores of query i begin in column Q - 1 - i. With Q 2, keys 3:

        . a b c .  ->  a b c
        d e f . .      d e f

    In the flattened rows, the scores of query i + 1 begin Q + keys - 1 places after those of query i: dropping the
    first Q - 1 places and cutting the rest into rows of that length puts them below each other.
    """
    if torch.is_grad_enabled() and x.requires_grad and not torch.compiler.is_compiling():
        return RelativeShift.apply(x, keys)
    return _shifted_view(x, keys)


class RelativeShift(torch.autograd.Function):
    """`relative_shift` whose gradient is written once, not once for each of its slices."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keys: int) -> Tensor:
        """Scores (..., Q, Q + keys) by distance; returns (..., Q, keys) by key."""
        if x.stride()[-2:] != (x.shape[-1], 1):
            x = x.contiguous()  # rows that follow each other, of which there is a view
        ctx.shape = x.shape
        ctx.strides = torch.empty_like(x, device="meta").stride()  # x's own, unless x has gaps
        return _shifted_view(x, keys)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """The gradient by distance, zero where a query has no key at the distance."""
        grad_x = grad.new_empty_strided(ctx.shape, ctx.strides).zero_()
        _shifted_view(grad_x, grad.shape[-1]).copy_(grad)
        return grad_x, None


def _shifted_view(x: Tensor, keys: int) -> Tensor:
    """The view that `relative_shift` returns."""
    queries, distances = x.shape[-2:]
    x = x.flatten(-2)  # (..., Q * (Q + keys))
    x = x[..., queries - 1 : queries - 1 + queries * (distances - 1)]
    return x.unflatten(-1, (queries, distances - 1))[..., :keys]  # (..., Q, Q + keys - 1) to (..., Q, keys)


def sinusoids(positions: Tensor, dim: int) -> Tensor:
    """(..., dim) encodings of positions (...), sines before cosines (arXiv 1706.03762, section 3.5)."""
    dtype = torch.float64 if positions.dtype == torch.float64 else torch.float32
    rates = torch.exp(torch.arange(0, dim, 2, device=positions.device, dtype=dtype) * (-math.log(10000.0) / dim))
    angles = positions[..., None] * rates  # (..., dim / 2)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)[..., :dim]
