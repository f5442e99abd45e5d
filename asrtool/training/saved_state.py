"""Whether what a checkpoint holds beside the weights can be restored: looked at before anything of it is used.

Each check raises one of tensor_files.DAMAGE; the caller names the file.
"""

import math
import random
from typing import Any

import torch
from torch import Tensor, nn

from asrtool.training.average import RunningMean

MOMENTS = {"exp_avg", "exp_avg_sq"}  # Adam's, each of its weight's shape


def check_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """The state of an optimiser: as many weights, moments of their shapes, and settings of the same types.

    Weights are numbered, or named where the state was gathered from shards.
    """
    groups, theirs = optimizer.param_groups, saved["param_groups"]
    weights = dict(enumerate(weight for group in groups for weight in group["params"]))
    weights |= dict(model.named_parameters())
    if [len(group["params"]) for group in theirs] != [len(group["params"]) for group in groups]:
        raise ValueError("its optimiser has other weights")
    for ours, group in zip(groups, theirs, strict=True):
        for name in ours.keys() - {"params"}:
            _require_like(group[name], ours[name], name)
    for key, state in saved["state"].items():
        for name in MOMENTS:
            _require_finite(state[name], weights[key].shape, f"the optimiser's {name}")
        _require_finite(torch.as_tensor(state["step"]), torch.Size(), "the optimiser's step")


def check_mean(mean: RunningMean | None, saved: dict[str, Any] | None) -> None:
    """The running mean of the weights, where there is one."""
    if mean is None:
        return
    _require_like(saved["steps"], 0, "steps")
    for ours, theirs in zip(mean.weights, saved["weights"], strict=True):
        _require_finite(theirs, ours.shape, "the mean of the weights")


def check_blocks(model: nn.Module, saved: dict[str, Any] | None) -> None:
    """The filter of BMUF, where there is one."""
    if saved is None:
        return
    _require_like(saved["steps"], 0.0, "steps")
    for name in ("weights", "delta"):
        for weight, theirs in zip(model.parameters(), saved[name], strict=True):
            _require_finite(theirs, weight.shape, f"the block filter's {name}")


def check_random(saved: dict[str, Any]) -> None:
    """The states of the generators."""
    version, internal, gauss = saved["python"]
    random.Random().setstate((version, tuple(internal), gauss))
    _require_like(0.0 if gauss is None else gauss, 0.0, "python's generator")
    torch.Generator().set_state(saved["torch"].cpu())
    for state in saved.get("cuda", []):
        _require_like(state, saved["torch"], "cuda")


def check_hours(saved: Any) -> None:
    """Hours of work so far."""
    _require_like(saved, 0.0, "device_hours")


def _require_finite(tensor: Any, shape: torch.Size, name: str) -> None:
    if not isinstance(tensor, Tensor) or tensor.shape != shape or not tensor.isfinite().all():
        raise ValueError(f"{name} is not finite, or of another shape")


def _require_like(value: Any, ours: Any, name: str) -> None:
    """A value of the same type, finite where it is a number."""
    if isinstance(ours, float) and type(value) is int:
        value = float(value)
    if type(value) is not type(ours):
        raise TypeError(f"{name} is a {type(value).__name__}, expected {type(ours).__name__}")
    for number in value if isinstance(value, tuple | list) else [value]:
        if isinstance(number, float) and not math.isfinite(number):
            raise ValueError(f"{name} is not finite")
