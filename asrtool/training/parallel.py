"""Parallel strategies: how several processes train one model. torchrun starts them (asrtool/distributed.py).

    strategy   gradients are averaged over       weights
    none       one process                       whole
    ddp        all ranks, in every step          whole on every rank, the same on all
    fsdp       all ranks, in every step          sharded over the ranks, gathered while they are needed
    bmuf       the ranks of a BMUF worker        whole; workers diverge, and are averaged after every block (bmuf.py)

Each strategy is `Strategy` or a class derived from it; the training loop uses only the methods of `Strategy`.
"""

import inspect
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from asrtool.distributed import Ranks, sum_over_ranks
from asrtool.errors import UserError

BUCKETS = 8  # of the gradients of a model
SMALLEST_BUCKET = 1.0  # MB: each costs some messages, however small
LARGEST_BUCKET = 25.0  # MB: torch's own
# Groups of DistributedDataParallel, until Python ends. If its reducer were the last owner of a group, the group would
# wait for gloo's threads while the reducer holds Python's lock, and one of them may need that lock: a rank would hang.
_kept_groups: list[Any] = []


class Strategy:
    """One process, and the methods that every parallel strategy has."""

    has_whole_model = True  # each rank has all weights, and can run the model without the others

    def __init__(self, ranks: Ranks):
        self.gradient_group = ranks  # the ranks whose gradients are averaged: they take each step together

    def wrap(self, model: nn.Module) -> nn.Module:
        """Returns the module to call for a forward pass with gradients. Called before the optimizer is created."""
        return model

    def start(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Called once when model and optimizer have the state from which training starts."""

    def accumulating(self, last: bool) -> AbstractContextManager:
        """Returns the context for the forward and backward pass of a batch; `last`: of the last batch of a step.

        Ranks exchange gradients in the last batch only.
        """
        return nullcontext()

    def sum_over_group(self, *numbers: float) -> list[float]:
        """Returns the sum of each of the `numbers` over the ranks whose gradients are averaged."""
        return sum_over_ranks(self.gradient_group, *numbers)

    def synchronise(self, model: nn.Module, optimizer: Optimizer, force: bool) -> bool:
        """Called after every step. Returns True if all ranks now have the same weights; `force` makes sure of it."""
        return True

    def state_dicts(self, model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
        """Returns "model", "optimizer" and the strategy's own state for a checkpoint.

        Called on all ranks; only the first rank's result is complete.
        """
        return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}

    def load_state_dicts(self, model: nn.Module, optimizer: Optimizer, state: dict[str, Any]) -> None:
        """Restores what `state_dicts` returned; "optimizer" may be missing. The weights must fit the model."""
        model.load_state_dict(state["model"])
        if "optimizer" in state:
            optimizer.load_state_dict(state["optimizer"])

    def whole_weights(self, model: nn.Module) -> dict[str, torch.Tensor]:
        """Returns whole weights by name. Called on all ranks; only the first rank's result is complete."""
        return model.state_dict()


def bucket_megabytes(parameter_bytes: int) -> float:
    """Returns the size of the buckets in which ddp sends gradients: BUCKETS of them, within limits.

    A bucket is sent when all of its gradients are there. With torch's size, a small model has a single one, and nothing
    is sent before the backward pass ends.
    """
    return min(LARGEST_BUCKET, max(SMALLEST_BUCKET, parameter_bytes / BUCKETS / 2**20))


def _buffers_option(kind: type) -> str:
    """The argument of DistributedDataParallel for sending buffers; torch 2.13 renamed it."""
    names = inspect.signature(kind).parameters
    return "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"


class Ddp(Strategy):
    """torch's DistributedDataParallel: gradients are exchanged while the backward pass runs.

    `compression` is parallel.gradient_compression. `skips_layers`: a step may leave out layers, which get no gradient.
    """

    def __init__(self, ranks: Ranks, compression: str = "none", skips_layers: bool = False):
        super().__init__(ranks)
        self.compression = compression
        self.skips_layers = skips_layers

    def wrap(self, model: nn.Module) -> nn.Module:
        """Returns DDP around the model."""
        from torch import distributed
        from torch.nn.parallel import DistributedDataParallel

        _kept_groups.append(self.gradient_group.group or distributed.group.WORLD)
        device = next(model.parameters()).device
        options: dict[str, Any] = {_buffers_option(DistributedDataParallel): False}  # buffers do not change
        self.module = DistributedDataParallel(
            model,
            device_ids=[device] if device.type == "cuda" else None,
            process_group=self.gradient_group.group,
            gradient_as_bucket_view=True,
            bucket_cap_mb=bucket_megabytes(sum(p.numel() * p.element_size() for p in model.parameters())),
            find_unused_parameters=self.skips_layers,
            **options,
        )
        self._compress_gradients(device)
        return self.module

    def _compress_gradients(self, device: torch.device) -> None:
        from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

        if self.compression == "bf16" and device.type == "cpu":
            raise UserError("parallel.gradient_compression bf16 needs GPUs; use fp16")
        if self.compression != "none":
            hook = getattr(default_hooks, f"{self.compression}_compress_hook")
            self.module.register_comm_hook(self.gradient_group.group, hook)

    def accumulating(self, last: bool) -> AbstractContextManager:
        """Suppresses the exchange of gradients in all but the last batch of a step."""
        return nullcontext() if last else self.module.no_sync()


class Fsdp(Strategy):
    """torch's FSDP2: every rank keeps its shards of weights, gradients and moments."""

    has_whole_model = False

    def wrap(self, model: nn.Module) -> nn.Module:
        """Shards the model in place, block by block."""
        from torch.distributed.fsdp import fully_shard

        for block in getattr(model.encoder, "blocks", ()):
            fully_shard(block)
        self.module = fully_shard(model)
        return model

    @contextmanager
    def accumulating(self, last: bool) -> Iterator[None]:
        """Suppresses the exchange of gradients in all but the last batch of a step."""
        self.module.set_requires_gradient_sync(last)
        yield

    def state_dicts(self, model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
        """Gathers whole tensors on the first rank."""
        from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

        return {
            "model": self.whole_weights(model),
            "optimizer": get_optimizer_state_dict(model, optimizer, options=self._options()),
        }

    def load_state_dicts(self, model: nn.Module, optimizer: Optimizer, state: dict[str, Any]) -> None:
        """Loads each rank's shards of whole tensors."""
        from torch.distributed.checkpoint.state_dict import set_model_state_dict, set_optimizer_state_dict

        set_model_state_dict(model, state["model"], options=self._options())
        if "optimizer" in state:
            named = _named_state(model, optimizer, state["optimizer"])
            set_optimizer_state_dict(model, optimizer, named, options=self._options())

    def whole_weights(self, model: nn.Module) -> dict[str, torch.Tensor]:
        """Gathers whole weights on the first rank."""
        from torch.distributed.checkpoint.state_dict import get_model_state_dict

        weights = get_model_state_dict(model, options=self._options())
        return {name: weight for name, weight in weights.items() if isinstance(weight, torch.Tensor)}

    def _options(self) -> Any:
        from torch.distributed.checkpoint.state_dict import StateDictOptions

        return StateDictOptions(full_state_dict=True, cpu_offload=True)


def _named_state(model: nn.Module, optimizer: Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
    """Returns an optimizer's state with the names of weights instead of their numbers, which other strategies save."""
    names = {weight: name for name, weight in model.named_parameters()}
    keys: dict[Any, str] = {name: name for name in names.values()}
    keys |= dict(enumerate(names[weight] for group in optimizer.param_groups for weight in group["params"]))
    return {
        "state": {keys[key]: state for key, state in saved["state"].items()},
        "param_groups": [group | {"params": [keys[key] for key in group["params"]]} for group in saved["param_groups"]],
    }
