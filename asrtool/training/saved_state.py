"""The state of a training beside its weights: random generators, and checks of a saved state before any of it is used.

Each check raises one of tensor_files.DAMAGE; the caller names the file.
"""

import math
import random
from typing import Any

import torch
from torch import Tensor, nn

from asrtool.training.average import EmaWeights
from asrtool.training.optimizer import counts_steps, moments


def random_states() -> dict[str, Any]:
    """Returns the states of the generators of Python and torch; training draws nothing from numpy's global one."""
    version, internal, gauss = random.getstate()
    states: dict[str, Any] = {"python": [version, list(internal), gauss], "torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def restore_random_states(states: dict[str, Any]) -> None:
    """Sets the generators to what `random_states` returned."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    torch.set_rng_state(states["torch"].cpu())
    if "cuda" in states and torch.cuda.is_available():
        for device, state in zip(range(torch.cuda.device_count()), states["cuda"], strict=False):
            torch.cuda.set_rng_state(state.cpu(), device)


def check_random_states(saved: dict[str, Any]) -> None:
    """Checks what `restore_random_states` needs."""
    version, internal, gauss = saved["python"]
    random.Random().setstate((version, tuple(internal), gauss))
    _require_like(0.0 if gauss is None else gauss, 0.0, "python's generator")
    torch.Generator().set_state(saved["torch"].cpu())
    for state in saved.get("cuda", []):
        _require_like(state, saved["torch"], "cuda")


def check_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Checks an optimizer's state: as many weights, moments of their shapes, and settings of the same types.

    Weights are numbered, or named where the state was gathered from shards.
    """
    groups = optimizer.param_groups
    saved_groups = saved["param_groups"]
    grouped = {weight: group for group in groups for weight in group["params"]}
    weights: dict[Any, Tensor] = dict(enumerate(grouped)) | dict(model.named_parameters())
    if [len(group["params"]) for group in saved_groups] != [len(group["params"]) for group in groups]:
        raise ValueError("its optimizer has other weights")
    for group, saved_group in zip(groups, saved_groups, strict=True):
        for name in group.keys() - {"params"}:
            _require_like(saved_group[name], group[name], name)
    for key, state in saved["state"].items():
        weight = weights[key]
        for name in moments(grouped[weight]):
            _require_finite(state[name], weight.shape, f"the optimizer's {name}")
        if counts_steps(grouped[weight]):
            _require_finite(torch.as_tensor(state["step"]), torch.Size(), "the optimizer's step")


def check_ema(ema: EmaWeights | None, saved: dict[str, Any] | None) -> None:
    """Checks the averaged weights, where the training keeps an average."""
    if ema is None:
        return
    if saved is None:
        raise ValueError("it has no averaged weights")
    _require_like(saved["steps"], 0, "steps")
    for weight, saved_weight in zip(ema.weights, saved["weights"], strict=True):
        _require_finite(saved_weight, weight.shape, "the averaged weights")


def check_block_filter(model: nn.Module, saved: dict[str, Any] | None) -> None:
    """Checks the state of BMUF's block filter, where there is one."""
    if saved is None:
        return
    _require_like(saved["steps"], 0.0, "steps")
    for name in ("weights", "delta"):
        for weight, saved_weight in zip(model.parameters(), saved[name], strict=True):
            _require_finite(saved_weight, weight.shape, f"the block filter's {name}")


def check_hours(saved: Any) -> None:
    """Checks the device hours so far."""
    _require_like(saved, 0.0, "device_hours")


def _require_finite(tensor: Any, shape: torch.Size, name: str) -> None:
    if not isinstance(tensor, Tensor) or tensor.shape != shape or not tensor.isfinite().all():
        raise ValueError(f"{name} is not finite, or of another shape")


def _require_like(value: Any, expected: Any, name: str) -> None:
    """Checks that a value has the type of `expected`, and is finite where it is a number."""
    if isinstance(expected, float) and type(value) is int:
        value = float(value)
    if isinstance(expected, tuple) and type(value) is list:  # into which torch turns betas where weights are sharded
        value = tuple(value)
    if type(value) is not type(expected):
        raise TypeError(f"{name} is a {type(value).__name__}, expected {type(expected).__name__}")
    for number in value if isinstance(value, tuple | list) else [value]:
        if isinstance(number, float) and not math.isfinite(number):
            raise ValueError(f"{name} is not finite")
