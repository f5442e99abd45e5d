"""Muon: an optimizer of matrices, whose steps change all directions of a matrix alike."""

from collections.abc import Iterable
from typing import Any

import torch

from asrtool.device import lacks_bf16

MOMENTUM = 0.95  # coefficient of the running mean of the gradient
ADAMW_SIZE = 0.2  # root mean square of AdamW's updates at a learning rate of 1 (arXiv 2502.16982, section 2.2)

NEWTON_SCHULZ_STEPS = 5
NEWTON_SCHULZ_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Jordan et al. 2024


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) with updates of the size of AdamW's (Liu et al., arXiv 2502.16982).

    The running mean of a matrix's gradient is replaced by the nearest matrix whose singular values are all about 1.
    As torch.optim.Muon, but that one computes in bf16 on every processor: without bf16 instructions 20 times slower.
    """

    def __init__(self, matrices: Iterable[torch.nn.Parameter], lr: float, lr_factor: float, weight_decay: float):
        defaults = {"lr": lr, "lr_factor": lr_factor, "weight_decay": weight_decay, "momentum": MOMENTUM}
        super().__init__(matrices, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Updates all matrices that have a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group)

    def _update(self, weight: torch.nn.Parameter, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        mean = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        direction = orthogonalise(gradient.lerp(mean, group["momentum"]))
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(direction, alpha=-group["lr"] * ADAMW_SIZE * max(weight.shape) ** 0.5)


def orthogonalise(matrix: torch.Tensor) -> torch.Tensor:
    """Returns a matrix with the singular vectors of `matrix` and singular values between about 0.7 and 1.2.

    Five steps of a Newton-Schulz iteration of degree five (Jordan et al. 2024), in bf16 where the processor has it.
    Singular values far below the largest, by a factor of 1,000, are not raised as far.
    """
    a, b, c = NEWTON_SCHULZ_COEFFICIENTS
    x = matrix if lacks_bf16(matrix.device) else matrix.bfloat16()
    is_tall = matrix.shape[0] > matrix.shape[1]
    if is_tall:
        x = x.T
    x = x / x.norm().clamp(min=1e-7)  # so that no singular value is above 1
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x
