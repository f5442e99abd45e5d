"""Muon: an optimizer of matrices, whose steps change all directions of a matrix alike."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from asrtool.device import lacks_bf16
from asrtool.distributed import SINGLE_PROCESS, Ranks

MOMENTUM = 0.95  # coefficient of the running mean of the gradient
ADAMW_SIZE = 0.2  # root mean square of AdamW's updates at a learning rate of 1 (arXiv 2502.16982, section 2.2)

NEWTON_SCHULZ_STEPS = 5
NEWTON_SCHULZ_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Jordan et al. 2024


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) with updates of the size of AdamW's (Liu et al., arXiv 2502.16982).

    The running mean of a matrix's gradient is replaced by the nearest matrix whose singular values are all about 1.
    torch.optim.Muon does the same, but always in bf16, 20 times slower without bf16 instructions, and it computes the
    updates of all matrices on every rank.

    `ranks`: processes with the same weights and gradients. Each computes the updates of its share of the matrices.
    """

    def __init__(
        self,
        matrices: Iterable[torch.nn.Parameter],
        lr: float,
        lr_factor: float,
        weight_decay: float,
        ranks: Ranks = SINGLE_PROCESS,
    ):
        defaults = {"lr": lr, "lr_factor": lr_factor, "weight_decay": weight_decay, "momentum": MOMENTUM}
        super().__init__(matrices, defaults)
        self._ranks = ranks

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Updates all matrices that have a gradient."""
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            for weight in weights:
                self._mean_gradient(weight).lerp_(weight.grad, 1 - group["momentum"])
            for weight, direction in zip(weights, self._directions(weights, group["momentum"]), strict=True):
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(direction, alpha=-group["lr"] * ADAMW_SIZE * max(weight.shape) ** 0.5)

    def _mean_gradient(self, weight: torch.nn.Parameter) -> torch.Tensor:
        state: dict[str, Any] = self.state[weight]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        return state["momentum_buffer"]

    def _directions(self, weights: list[torch.nn.Parameter], momentum: float) -> Iterable[torch.Tensor]:
        """Returns the orthogonalised update of each weight."""
        if self._ranks.world_size == 1:
            return (self._direction(weight, momentum) for weight in weights)
        return self._directions_of_all_ranks(weights, momentum)

    def _direction(self, weight: torch.nn.Parameter, momentum: float) -> torch.Tensor:
        """Returns the orthogonalised update of one weight: its gradient with Nesterov's momentum."""
        assert weight.grad is not None
        return orthogonalise(weight.grad.lerp(self._mean_gradient(weight), momentum))

    def _directions_of_all_ranks(self, weights: list[torch.nn.Parameter], momentum: float) -> list[torch.Tensor]:
        """As `_directions`: each rank computes its share of the updates, and sends them to the others."""
        from torch import distributed

        owners = share_out([_cost(weight) for weight in weights], self._ranks.world_size)
        directions: list[torch.Tensor] = [torch.empty(0)] * len(weights)
        sendings = []
        for rank in sorted(set(owners)):
            share = [number for number, owner in enumerate(owners) if owner == rank]
            sizes = [weights[number].numel() for number in share]
            device = weights[0].device
            # CPUs with and without bf16 instructions may train together.
            dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
            sent = torch.empty(sum(sizes), dtype=dtype, device=device)
            for number, values in zip(share, sent.split(sizes), strict=True):
                directions[number] = values.view_as(weights[number])
                if rank == self._ranks.rank:
                    directions[number].copy_(self._direction(weights[number], momentum))
            sendings.append(distributed.broadcast(sent, group=self._ranks.group, group_src=rank, async_op=True))
        for sending in sendings:
            sending.wait()
        return directions


def share_out(costs: Sequence[float], num_ranks: int) -> list[int]:
    """Returns the rank that does each of the tasks: the most expensive first, to the rank that has the least to do."""
    loads = [0.0] * num_ranks
    owners = [0] * len(costs)
    for task in sorted(range(len(costs)), key=lambda task: -costs[task]):
        owners[task] = loads.index(min(loads))
        loads[owners[task]] += costs[task]
    return owners


def _cost(matrix: torch.Tensor) -> float:
    """Returns the multiplications of a step of the iteration in `orthogonalise`."""
    short, long = sorted(matrix.shape)
    return short**2 * (2 * long + short)


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
