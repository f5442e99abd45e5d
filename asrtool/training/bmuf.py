"""Blockwise model-update filtering (BMUF; Chen & Huo, ICASSP 2016).

Workers train independently for a block of steps; then their weights are averaged and filtered.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from asrtool.config import ParallelConfig
from asrtool.distributed import SINGLE_PROCESS, Ranks
from asrtool.errors import UserError
from asrtool.training.optimizer import counts_steps, moments
from asrtool.training.parallel import Ddp, Strategy


class BlockFilter:
    """The filter of block t, for any number of tensors:

        G(t)     = mean of the workers' weights - S(t-1)           S: the weights from which they started the block
        Delta(t) = momentum * Delta(t-1) + lr * G(t)
        W(t)     = W(t-1) + Delta(t)
        S(t)     = W(t), or with Nesterov's momentum W(t) + momentum * Delta(t)

    W and S are kept separately: with S(t-1) instead of W(t-1), the look-ahead would add up from block to block.
    """

    def __init__(self, weights: Iterable[Tensor], momentum: float, lr: float = 1.0, nesterov: bool = False):
        self.weights = [weight.detach().clone() for weight in weights]
        self.start = [weight.clone() for weight in self.weights]
        self.delta = [torch.zeros_like(weight) for weight in self.weights]
        self.momentum = momentum
        self.lr = lr
        self.nesterov = nesterov
        self.steps = 0.0  # rho: the number of local steps that would move the weights by Delta, with equal gradients

    def update(self, means: Iterable[Tensor], steps: int) -> float:
        """Filters the means of the workers' weights after `steps` local steps; `self.start` is S(t) then.

        Returns the number of local steps that would move the weights from S(t-1) to S(t), with equal gradients.
        """
        for weight, start, delta, mean in zip(self.weights, self.start, self.delta, means, strict=True):
            delta.mul_(self.momentum).add_(mean - start, alpha=self.lr)
            weight.add_(delta)
            start.copy_(weight)
            if self.nesterov:
                start.add_(delta, alpha=self.momentum)
        steps_before = self.steps
        self.steps = self.momentum * self.steps + self.lr * steps
        return self.steps + (self.momentum * (self.steps - steps_before) if self.nesterov else 0.0)


def filtered_moment(beta: float, before: Tensor, mean: Tensor, steps: int, block_steps: float) -> Tensor:
    """Returns an optimiser's moment after `block_steps`, from `BlockFilter.update` (Chen, Ding & Huo, ICASSP 2020).

    `before` is the moment with which all workers started the block, `mean` the mean of their moments after `steps`
    local steps. With g the mean gradient (or its square), mean = beta^steps before + (1 - beta^steps) g; the result is
    the same formula with `block_steps` instead of `steps`.
    """
    gradient = (mean - beta**steps * before) / (1 - beta**steps)
    return beta**block_steps * before + (1 - beta**block_steps) * gradient


class Bmuf(Strategy):
    """BMUF: each worker is a group of ranks, by default those of one machine, with DDP inside.

    `skips_layers`: see Ddp. Checkpoints and validations are postponed to the next synchronisation.
    """

    def __init__(self, parallel: ParallelConfig, ranks: Ranks, skips_layers: bool):
        from torch import distributed

        self.parallel = parallel
        size = parallel.ranks_per_worker or ranks.local_world_size
        if ranks.world_size % size:
            raise UserError(f"{ranks.world_size} ranks are not workers of parallel.ranks_per_worker={size} each")
        self.num_workers = ranks.world_size // size
        self.momentum = 1 - 1 / self.num_workers if parallel.block_momentum is None else parallel.block_momentum
        worker, rank_in_worker = divmod(ranks.rank, size)
        groups = [distributed.new_group(range(w * size, (w + 1) * size)) for w in range(self.num_workers)]
        self.group = groups[worker]
        self.leader_group = distributed.new_group(range(0, ranks.world_size, size))  # the first rank of each worker
        self.leader_rank = worker * size
        self.is_leader = rank_in_worker == 0
        super().__init__(Ranks(rank_in_worker, size, group=self.group) if size > 1 else SINGLE_PROCESS)
        self.inner: Strategy
        if size > 1:
            self.inner = Ddp(self.gradient_group, parallel.gradient_compression, skips_layers)
        else:
            self.inner = Strategy(SINGLE_PROCESS)
        self.steps_in_block = 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """Gives all workers the first rank's weights, and wraps the model for the ranks inside a worker."""
        from torch import distributed

        for tensor in model.state_dict().values():
            distributed.broadcast(tensor, src=0)
        return self.inner.wrap(model)

    def accumulating(self, last: bool) -> AbstractContextManager:
        """Returns the context of the strategy inside a worker."""
        return self.inner.accumulating(last)

    def start(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Starts the first block with the weights of `model` and the moments of `optimizer`."""
        parallel = self.parallel
        self.filter = BlockFilter(model.parameters(), self.momentum, parallel.block_lr, parallel.nesterov)
        self._moments = _copy_moments(optimizer)

    def synchronise(self, model: nn.Module, optimizer: Optimizer, force: bool) -> bool:
        """Synchronises the workers at the end of a block, or earlier with `force`."""
        self.steps_in_block += 1
        if self.steps_in_block < self.parallel.block_steps and not force:
            return False
        self.finish_block(model, optimizer)
        return True

    @torch.no_grad()
    def finish_block(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Averages and filters weights and moments, which are then the same on all ranks."""
        steps = self.steps_in_block
        self.steps_in_block = 0
        weights = list(model.parameters())
        block_steps = self.filter.update(self._means(weights), steps)
        for weight, start in zip(weights, self.filter.start, strict=True):
            weight.copy_(start)
        if self.parallel.block_moments == "reset":
            optimizer.state.clear()
        else:
            self._filter_moments(optimizer, steps, block_steps)
        self._moments = _copy_moments(optimizer)

    def _filter_moments(self, optimizer: Optimizer, steps: int, block_steps: float) -> None:
        """Averages and filters the moments of all weights, and how often each was updated, where it is counted."""
        for group in optimizer.param_groups:
            for name, beta in moments(group).items():
                for state, before, mean in self._averaged(optimizer, group["params"], name):
                    state[name] = filtered_moment(beta, before, mean, steps, block_steps)
                    if name == "exp_avg_sq":
                        state[name].clamp_(min=0)  # rounding may make it negative
            if counts_steps(group):
                for state, before, mean in self._averaged(optimizer, group["params"], "step"):
                    state["step"] = before + (mean - before) * (block_steps / steps)

    def _averaged(
        self, optimizer: Optimizer, weights: Sequence[Tensor], name: str
    ) -> Iterator[tuple[dict[str, Tensor], Tensor, Tensor]]:
        """Yields the optimizer's state of each weight, its value `name` before the block, and the workers' mean of it.

        It is 0 for a weight that was never updated: with model.layer_drop, workers update different weights.
        """
        states = [optimizer.state[weight] for weight in weights]
        zeros = [torch.zeros(() if name == "step" else weight.shape, device=weight.device) for weight in weights]
        means = self._means([state.get(name, zero) for state, zero in zip(states, zeros, strict=True)])
        for weight, state, zero, mean in zip(weights, states, zeros, means, strict=True):
            yield state, self._moments.get(weight, {}).get(name, zero), mean

    def _means(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The mean of each tensor over the workers: the leaders average, and broadcast inside their workers."""
        from torch import distributed

        flat = torch.cat([tensor.flatten() for tensor in tensors]) if tensors else torch.zeros(0)
        if self.is_leader:
            distributed.all_reduce(flat, group=self.leader_group)
            flat /= self.num_workers
        if self.gradient_group.world_size > 1:
            distributed.broadcast(flat, src=self.leader_rank, group=self.group)
        parts = flat.split([tensor.numel() for tensor in tensors])
        return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]

    def state_dicts(self, model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
        """Returns the state at a synchronisation, with the filter's."""
        block_filter = {"weights": self.filter.weights, "delta": self.filter.delta, "steps": self.filter.steps}
        return super().state_dicts(model, optimizer) | {"bmuf": block_filter}

    def load_state_dicts(self, model: nn.Module, optimizer: Optimizer, state: dict[str, Any]) -> None:
        """Restores what `state_dicts` returned. Without a state of the filter, as of one process, the filter starts."""
        super().load_state_dicts(model, optimizer, state)
        self.start(model, optimizer)  # S: the model was saved at a synchronisation, so that its weights are S(t)
        if "bmuf" not in state:
            return
        saved = state["bmuf"]
        for tensor, value in zip(self.filter.weights, saved["weights"], strict=True):
            tensor.copy_(value)
        for tensor, value in zip(self.filter.delta, saved["delta"], strict=True):
            tensor.copy_(value)
        self.filter.steps = saved["steps"]


def _copy_moments(optimizer: Optimizer) -> dict[Tensor, dict[str, Tensor]]:
    """Copies of the state of each weight that has been updated: its moments, and the number of updates, if counted."""
    return {weight: {name: value.clone() for name, value in state.items()} for weight, state in optimizer.state.items()}
