"""Scaled dot-product attention and its masks."""

import math

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from asrtool.models.dropout import dropout as drop


def dot_product_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float, positions: Tensor | None = None
) -> Tensor:
    """Scaled dot-product attention; q (N, H, Q, d), k and v (N, H, K, d), mask as torch's takes it, or None.

    `positions` (N, H, Q, K), if there are any, are added to the scaled scores; they may have a gradient.

    bf16 training on a CPU does it in single operations: the backward pass of torch's own function takes longer than the
    rest of a layer's attention. Its scores are rounded to bf16, like other products.
    """
    if not (torch.is_grad_enabled() and k.dtype == torch.bfloat16 and k.device.type == "cpu"):
        mask = mask if positions is None else add_mask(positions, mask)
        return scaled_dot_product_attention(q, k, v, mask, dropout)
    q = (q * q.shape[-1] ** -0.5).contiguous()  # heads before frames: else each product of both passes copies its own
    k = k.contiguous()
    v = v.contiguous()
    scores = q @ k.transpose(-2, -1)  # (N, H, Q, K)
    if positions is not None:
        scores += positions
    if mask is not None:
        mask = mask if mask.is_floating_point() else torch.where(mask, 0.0, -math.inf)
        scores += mask.to(scores.dtype)  # adding numbers of another type takes as long as a quarter of the layer
    return drop(scores.softmax(-1), dropout) @ v


def add_mask(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Masked scores (..., Q, K); the mask is bool, or numbers to add, or None where nothing is masked."""
    if mask is None:
        return scores
    return scores + mask if mask.is_floating_point() else torch.where(mask, scores, -math.inf)


def unmask_empty_rows(mask: Tensor) -> Tensor:
    """Unmasks every key for queries that would attend to none (padding rows); mask (..., Q, K) bool.

    Softmax over an empty set is NaN in some attention kernels. The outputs of these queries are ignored.
    """
    return mask | ~mask.any(-1, keepdim=True)
