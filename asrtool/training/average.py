"""Means of weights: of checkpoints, and of all steps so far."""

import torch
from torch import Tensor, nn


class RunningMean:
    """The mean of a model's weights over all steps, the past with the weight `decay`; 1 is the plain mean.

    The first steps are averaged plainly, so that the start of the training does not linger.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay, self.steps = decay, 0
        self.weights = [p.detach().clone() for p in model.parameters()]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights after a step."""
        self.steps += 1
        weight = max(1 - self.decay, 1 / self.steps)
        torch._foreach_lerp_(self.weights, [p.detach() for p in model.parameters()], weight)

    def state_dict(self) -> dict:
        """For a checkpoint; whole tensors, where the model's are parted over ranks."""
        return {"steps": self.steps, "weights": [w.full_tensor() if is_parted(w) else w for w in self.weights]}

    def load_state_dict(self, state: dict) -> None:
        """Undo `state_dict`."""
        self.steps = state["steps"]
        for tensor, value in zip(self.weights, state["weights"], strict=True):
            tensor.copy_(part_like(value, tensor) if is_parted(tensor) else value)


def is_parted(tensor: Tensor) -> bool:
    """Whether ranks have a part of it each (FSDP2)."""
    return hasattr(tensor, "full_tensor")


def part_like(whole: Tensor, parted: Tensor) -> Tensor:
    """This rank's part of a tensor that all have whole."""
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(whole, parted.device_mesh, parted.placements)
