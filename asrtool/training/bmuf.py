"""Blockwise model-update filtering (Chen & Huo, ICASSP 2016): workers train apart and meet after a block of steps."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from asrtool.config import Config
from asrtool.distributed import SINGLE_PROCESS, Ranks
from asrtool.errors import UserError
from asrtool.models.acoustic import AcousticModel
from asrtool.training.parallel import Alone, Ddp


class BlockFilter:
    """The filter of block t, for any number of tensors:

        G(t)     = mean of the workers' weights - S(t-1)           S: what they started the block from
        Delta(t) = momentum * Delta(t-1) + rate * G(t)
        W(t)     = W(t-1) + Delta(t)
        S(t)     = W(t), or with Nesterov's momentum W(t) + momentum * Delta(t)

    W and S are kept apart: were S(t-1) taken for W(t-1), the look-ahead would add up from block to block.
    """

    def __init__(self, weights: Iterable[Tensor], momentum: float, rate: float = 1.0, nesterov: bool = False):
        self.weights = [w.detach().clone() for w in weights]
        self.start = [w.clone() for w in self.weights]
        self.delta = [torch.zeros_like(w) for w in self.weights]
        self.momentum, self.rate, self.nesterov = momentum, rate, nesterov
        self.steps = 0.0  # that Delta stands for, were all gradients alike (rho)

    def meet(self, means: Iterable[Tensor], steps: int) -> float:
        """Take in the means of the workers' weights after `steps` local steps; `start` is then S(t).

        Returns for how many steps the way from S(t-1) to S(t) stands, were all gradients alike.
        """
        for weight, start, delta, mean in zip(self.weights, self.start, self.delta, means, strict=True):
            delta.mul_(self.momentum).add_(mean - start, alpha=self.rate)
            weight.add_(delta)
            start.copy_(weight)
            if self.nesterov:
                start.add_(delta, alpha=self.momentum)
        before, self.steps = self.steps, self.momentum * self.steps + self.rate * steps
        return self.steps + (self.momentum * (self.steps - before) if self.nesterov else 0.0)


def filtered_moment(beta: float, before: Tensor, mean: Tensor, steps: int, way: float) -> Tensor:
    """Adam's moment after the `way` steps that a block stands for (Chen, Ding & Huo, ICASSP 2020).

    `before` the block all workers had the same one, `mean` is that of theirs after `steps` of their own. With g the
    mean gradient (or its square), mean = beta^steps before + (1 - beta^steps) g; here `way` takes the place of `steps`.
    """
    gradient = (mean - beta**steps * before) / (1 - beta**steps)
    return beta**way * before + (1 - beta**way) * gradient


class Bmuf(Alone):
    """Workers of one machine each, with ddp inside them; checkpoints and validations wait for a meeting."""

    def __init__(self, config: Config, ranks: Ranks):
        super().__init__(config, ranks)
        from torch import distributed

        parallel, size = config.parallel, config.parallel.ranks_per_worker or ranks.local_world_size
        if ranks.world_size % size:
            raise UserError(f"{ranks.world_size} ranks are not workers of parallel.ranks_per_worker={size} each")
        self.workers = ranks.world_size // size
        momentum = parallel.block_momentum
        self.momentum = 1 - 1 / self.workers if momentum is None else momentum
        mine, place = divmod(ranks.rank, size)
        groups = [distributed.new_group(range(w * size, (w + 1) * size)) for w in range(self.workers)]
        self.leaders = distributed.new_group(range(0, ranks.world_size, size))
        self.group, self.leader, self.leads = groups[mine], mine * size, place == 0
        self.sharing = Ranks(place, size, group=self.group) if size > 1 else SINGLE_PROCESS
        self.inner = Ddp(config, self.sharing) if size > 1 else Alone(config, SINGLE_PROCESS)
        self.inner.group = self.group
        self.since = 0  # steps in this block

    def wrap(self, model: AcousticModel) -> nn.Module:
        """As inside the worker."""
        from torch import distributed

        for tensor in model.state_dict().values():
            distributed.broadcast(tensor, src=0)
        return self.inner.wrap(model)

    def collecting(self, last: bool) -> AbstractContextManager:
        """As inside the worker."""
        return self.inner.collecting(last)

    def start(self, model: AcousticModel, optimizer: Optimizer) -> None:
        """The first block starts here."""
        parallel = self.config.parallel
        self.filter = BlockFilter(model.parameters(), self.momentum, parallel.block_lr, parallel.nesterov)
        self._moments = self._copy_moments(optimizer)

    def after_step(self, model: AcousticModel, optimizer: Optimizer, finish: bool) -> bool:
        """The workers meet at the end of a block."""
        self.since += 1
        if self.since < self.config.parallel.block_steps and not finish:
            return False
        self.meet(model, optimizer)
        return True

    @torch.no_grad()
    def meet(self, model: AcousticModel, optimizer: Optimizer) -> None:
        """All ranks have the same weights and moments afterwards."""
        steps, self.since = self.since, 0
        weights = list(model.parameters())
        way = self.filter.meet(self._means(weights), steps)
        for weight, start in zip(weights, self.filter.start, strict=True):
            weight.copy_(start)
        if self.config.parallel.block_moments == "reset":
            optimizer.state.clear()
        else:
            self._filter_moments(optimizer, steps, way)
        self._moments = self._copy_moments(optimizer)

    def _filter_moments(self, optimizer: Optimizer, steps: int, way: float) -> None:
        for group in optimizer.param_groups:
            for name, beta in zip(("exp_avg", "exp_avg_sq"), group["betas"], strict=True):
                states = [optimizer.state[p] for p in group["params"] if p in optimizer.state]
                means = self._means([state[name] for state in states])
                for state, mean in zip(states, means, strict=True):
                    before = self._moments.get(id(state), {}).get(name, torch.zeros_like(mean))
                    state[name].copy_(filtered_moment(beta, before, mean, steps, way))
                    if name == "exp_avg_sq":
                        state[name].clamp_(min=0)  # rounding
            for p in group["params"]:
                if p in optimizer.state:
                    optimizer.state[p]["step"] += way - steps

    def _copy_moments(self, optimizer: Optimizer) -> dict[int, dict[str, Tensor]]:
        names = ("exp_avg", "exp_avg_sq")
        return {id(s): {name: s[name].clone() for name in names} for s in optimizer.state.values()}

    def _means(self, tensors: list[Tensor]) -> list[Tensor]:
        """Over the workers: their first ranks average, and tell the others."""
        from torch import distributed

        flat = torch.cat([t.flatten() for t in tensors]) if tensors else torch.zeros(0)
        if self.leads:
            distributed.all_reduce(flat, group=self.leaders)
            flat /= self.workers
        if self.sharing.world_size > 1:
            distributed.broadcast(flat, src=self.leader, group=self.group)
        parts = flat.split([t.numel() for t in tensors])
        return [part.view_as(t) for part, t in zip(parts, tensors, strict=True)]

    def states(self, model: AcousticModel, optimizer: Optimizer) -> dict[str, Any]:
        """Of a meeting."""
        kept = {"weights": self.filter.weights, "delta": self.filter.delta, "steps": self.filter.steps}
        return super().states(model, optimizer) | {"bmuf": kept}

    def load(self, model: AcousticModel, optimizer: Optimizer, state: dict[str, Any]) -> None:
        """Undo `states`."""
        super().load(model, optimizer, state)
        if "bmuf" not in state:  # another training's weights
            return
        self.start(model, optimizer)
        kept = state["bmuf"]
        for name in ("weights", "delta"):
            for tensor, value in zip(getattr(self.filter, name), kept[name], strict=True):
                tensor.copy_(value)
        self.filter.steps = kept["steps"]
