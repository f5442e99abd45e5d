"""Queries, keys and values of Transformer-XL, whose memory has no gradient, with one matrix product."""

from typing import Any

import torch
from torch import Tensor, nn


class MemoryProjection(torch.autograd.Function):
    """Applies a layer to x for the chunk's own frames, and to `memory` for those that later chunks see.

    Both have the same numbers, but different gradients: the gradient of `memory` does not reach x (arXiv 1901.02860,
    section 3.2). So the forward pass computes one product, and the backward pass has one product for the gradient of
    the weights, from the sum of both gradients.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, memory: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x and memory (N, T, D), weight (3D, D), bias (3D,); returns q (N, T, D), and kv (N, T, 2D) of both."""
        ctx.save_for_backward(x, weight)
        ctx.memory_dtype = memory.dtype
        dim = x.shape[-1]
        qkv = nn.functional.linear(x, weight, bias)  # (N, T, 3D)
        return qkv[..., :dim], qkv[..., dim:], qkv[..., dim:]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of x, memory, weight and bias."""
        x, weight = ctx.saved_tensors
        dim = x.shape[-1]
        past = grads[2]
        grad = torch.cat(grads[:2], dim=-1)  # (N, T, 3D)
        grad_x = grad @ weight
        grad_memory = None
        if ctx.needs_input_grad[1]:
            grad_memory = (past @ weight[dim:]).to(ctx.memory_dtype)
        grad[..., dim:] += past
        rows = grad.flatten(0, -2)  # (N * T, 3D)
        return grad_x, grad_memory, rows.t() @ x.flatten(0, -2), rows.sum(0)


def project_with_memory(layer: nn.Linear, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns q (N, T, D) and kv (N, T, 2D) of x, and the same kv with the gradient of `memory`, also in autocast."""
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    return MemoryProjection.apply(x.to(dtype), memory, layer.weight.to(dtype), layer.bias.to(dtype))
