"""Parallel strategies: how several processes train one model. They come from torchrun (asrtool/distributed.py).

    strategy   gradients are averaged over       weights
    none       one process                       whole
    ddp        all ranks, in every step          whole on every rank, the same on all
    fsdp       all ranks, in every step          parted over the ranks, together while they are needed
    bmuf       the ranks of a worker             whole; workers drift apart and meet every block (bmuf.py)

One class each with the same methods; the training loop knows no more of them than `Alone` shows.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from asrtool.config import Config
from asrtool.distributed import Ranks, sum_over_ranks
from asrtool.errors import UserError
from asrtool.models.acoustic import AcousticModel


class Alone:
    """One process."""

    whole = True  # each rank has the whole model, and can run it by itself

    def __init__(self, config: Config, ranks: Ranks):
        self.config, self.ranks = config, ranks
        self.sharing = ranks  # those whose gradients are averaged: a step is theirs together

    def wrap(self, model: AcousticModel) -> nn.Module:
        """What is to be called for a forward pass with gradients; before the optimiser is made."""
        self.module = model
        return model

    def start(self, model: AcousticModel, optimizer: Optimizer) -> None:
        """Training begins, or goes on, from these."""

    def collecting(self, last: bool) -> AbstractContextManager:
        """Around the forward and backward pass of one of the batches of a step; ranks talk in the last alone."""
        return nullcontext()

    def total(self, *numbers: float) -> list[float]:
        """Sums over the ranks whose gradients are averaged."""
        return sum_over_ranks(self.sharing, *numbers)

    def after_step(self, model: AcousticModel, optimizer: Optimizer, finish: bool) -> bool:
        """Whether the weights are now the same on all ranks; `finish` asks for it."""
        return True

    def states(self, model: AcousticModel, optimizer: Optimizer) -> dict[str, Any]:
        """For a checkpoint: "model", "optimizer" and what else there is. All ranks take part; the first's counts."""
        return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}

    def load(self, model: AcousticModel, optimizer: Optimizer, state: dict[str, Any]) -> None:
        """Undo `states`, as far as `state` goes; weights that do not fit were refused before."""
        model.load_state_dict(state["model"])
        if "optimizer" in state:
            optimizer.load_state_dict(state["optimizer"])

    def weights(self, model: AcousticModel) -> dict[str, torch.Tensor]:
        """Whole weights by name. All ranks take part; the first's count."""
        return model.state_dict()


class Ddp(Alone):
    """torch's DistributedDataParallel: gradients travel while the backward pass goes on."""

    group = None  # all ranks

    def wrap(self, model: AcousticModel) -> nn.Module:
        """Without compression, or with what is sent in half the bits."""
        from torch.nn.parallel import DistributedDataParallel

        device = next(model.parameters()).device
        self.module = DistributedDataParallel(
            model,
            device_ids=[device] if device.type == "cuda" else None,
            process_group=self.group,
            forward_sync_buffers=False,  # they do not change
            gradient_as_bucket_view=True,
            find_unused_parameters=self.config.model.layer_drop > 0,
        )
        self._compress()
        return self.module

    def _compress(self) -> None:
        from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

        kind = self.config.parallel.gradient_compression
        if kind == "bf16" and next(self.module.parameters()).device.type == "cpu":
            raise UserError("parallel.gradient_compression bf16 needs GPUs; use fp16")
        if kind != "none":
            self.module.register_comm_hook(self.group, getattr(default_hooks, f"{kind}_compress_hook"))

    def collecting(self, last: bool) -> AbstractContextManager:
        """Only the last backward pass of a step sends."""
        return nullcontext() if last else self.module.no_sync()


class Fsdp(Alone):
    """torch's FSDP2: every rank keeps its part of weights, gradients and moments."""

    whole = False

    def wrap(self, model: AcousticModel) -> nn.Module:
        """In place, block by block."""
        from torch.distributed.fsdp import fully_shard

        for block in getattr(model.encoder, "blocks", ()):
            fully_shard(block)
        self.module = fully_shard(model)
        return model

    @contextmanager
    def collecting(self, last: bool) -> Iterator[None]:
        """Only the last backward pass of a step sends."""
        self.module.set_requires_gradient_sync(last)
        yield

    def states(self, model: AcousticModel, optimizer: Optimizer) -> dict[str, Any]:
        """Whole tensors on the first rank."""
        from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

        return {
            "model": self.weights(model),
            "optimizer": get_optimizer_state_dict(model, optimizer, options=self._options()),
        }

    def load(self, model: AcousticModel, optimizer: Optimizer, state: dict[str, Any]) -> None:
        """Every rank takes its part of the whole."""
        from torch.distributed.checkpoint.state_dict import set_model_state_dict, set_optimizer_state_dict

        set_model_state_dict(model, state["model"], options=self._options())
        if "optimizer" in state:
            set_optimizer_state_dict(model, optimizer, state["optimizer"], options=self._options())

    def weights(self, model: AcousticModel) -> dict[str, torch.Tensor]:
        """Gathered on the first rank."""
        from torch.distributed.checkpoint.state_dict import get_model_state_dict

        return get_model_state_dict(model, options=self._options())

    def _options(self):
        from torch.distributed.checkpoint.state_dict import StateDictOptions

        return StateDictOptions(full_state_dict=True, cpu_offload=True)
