"""Masks over time."""

import torch


def padding_mask(lens: torch.Tensor, size: int) -> torch.Tensor:
    """(N,) lengths to (N, size) bool, true where there is data:

    lens 3, 1; size 4  ->  1 1 1 .
                           1 . . .
    """
    return torch.arange(size, device=lens.device) < lens[:, None]
