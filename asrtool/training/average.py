"""Averages of weights: over checkpoints, and over all steps of a training."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def mean_weights(models: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Returns the mean of models' weights by name, summed in float64, with one model in memory at a time."""
    sums: dict[str, Tensor] = {}
    dtypes: dict[str, torch.dtype] = {}
    count = 0
    for weights in models:
        count += 1
        for name, tensor in weights.items():
            sums[name] = sums[name] + tensor.double() if name in sums else tensor.double()
            dtypes[name] = tensor.dtype
    return {name: (tensor / count).to(dtypes[name]) for name, tensor in sums.items()}


class EmaWeights:
    """The exponential moving average (EMA) of a model's weights over all steps; with `decay` 1 it is the plain mean.

    The first steps are averaged with equal weights, so that the start of the training does not linger.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.steps = 0
        self.weights = [parameter.detach().clone() for parameter in model.parameters()]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Adds the weights after a step to the average."""
        self.steps += 1
        share = max(1 - self.decay, 1 / self.steps)
        torch._foreach_lerp_(self.weights, [parameter.detach() for parameter in model.parameters()], share)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Replaces the weights of `model` by their average."""
        for parameter, average in zip(model.parameters(), self.weights, strict=True):
            parameter.copy_(average)

    def state_dict(self) -> dict[str, Any]:
        """Returns the state for a checkpoint, with whole tensors where the model is sharded over ranks."""
        return {"steps": self.steps, "weights": [gathered(weight) for weight in self.weights]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.steps = state["steps"]
        for tensor, value in zip(self.weights, state["weights"], strict=True):
            tensor.copy_(shard_like(value, tensor) if is_sharded(tensor) else value)


def is_sharded(tensor: Tensor) -> bool:
    """Returns True if the tensor is sharded over ranks (FSDP2)."""
    return hasattr(tensor, "full_tensor")


def gathered(tensor: Tensor) -> Tensor:
    """Returns the whole tensor on every rank, if it is sharded; else the tensor itself."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined] # a DTensor has it


def shard_like(whole: Tensor, sharded: Tensor) -> Tensor:
    """Returns this rank's shard of a tensor that every rank has whole, sharded as `sharded` is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(sharded, DTensor)
    return distribute_tensor(whole, sharded.device_mesh, sharded.placements)


def are_finite(tensors: Iterable[Tensor]) -> bool:
    """Returns True if all values are finite; of sharded tensors only this rank's shards are looked at."""
    local = (tensor.to_local() if is_sharded(tensor) else tensor for tensor in tensors)  # type: ignore[attr-defined]
    return bool(torch.stack([tensor.isfinite().all() for tensor in local]).all())
