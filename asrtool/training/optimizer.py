"""The optimizer of a training: AdamW for all weights, or Muon for the matrices of the layers and AdamW for the rest."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from asrtool.config import TrainingConfig
from asrtool.distributed import SINGLE_PROCESS, Ranks
from asrtool.models.acoustic import layer_matrices
from asrtool.training.muon import Muon

ADAM_MOMENTS = ("exp_avg", "exp_avg_sq")  # in the order of Adam's betas


def create_optimizer(
    model: nn.Module, training: TrainingConfig, ranks: Ranks = SINGLE_PROCESS
) -> torch.optim.Optimizer:
    """Returns the optimizer that `training` names, for all weights of the model.

    Weight decay applies to matrices only: norms and biases would only shrink. `ranks` have the same whole weights and
    take each step together.
    """
    if training.optimizer == "adamw":
        return _adamw(model.parameters(), training)
    matrices = layer_matrices(model)
    updated_by_muon = {id(weight) for weight in matrices}
    others = [weight for weight in model.parameters() if id(weight) not in updated_by_muon]
    muon = Muon(matrices, training.lr, training.muon_lr_factor, training.weight_decay, ranks)
    return MuonAdamW(muon, _adamw(others, training))


class MuonAdamW(torch.optim.Optimizer):
    """Muon for some weights and AdamW for the others, with the groups and the state of one optimizer."""

    def __init__(self, muon: Muon, adamw: torch.optim.AdamW):
        super().__init__([*muon.param_groups, *adamw.param_groups], {})
        self._parts = (muon, adamw)
        self._share_state()

    def _share_state(self) -> None:
        """Makes the two optimizers work on the groups and the state of this one."""
        muon, adamw = self._parts
        num_muon_groups = len(muon.param_groups)
        muon.param_groups, adamw.param_groups = self.param_groups[:num_muon_groups], self.param_groups[num_muon_groups:]
        muon.state = adamw.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads what `state_dict` returned."""
        super().load_state_dict(state_dict)
        self._share_state()

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Updates all weights that have a gradient."""
        for part in self._parts:
            part.step()


def _adamw(weights: Iterable[nn.Parameter], training: TrainingConfig) -> torch.optim.AdamW:
    weights = list(weights)
    groups = [
        {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": training.weight_decay},
        {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=training.lr, betas=training.betas, fused=True)


def moments(group: dict[str, Any]) -> dict[str, float]:
    """Returns the running means that the optimizer keeps for each weight of a group, with their coefficients."""
    if counts_steps(group):
        return dict(zip(ADAM_MOMENTS, group["betas"], strict=True))
    return {"momentum_buffer": group["momentum"]}


def counts_steps(group: dict[str, Any]) -> bool:
    """Whether the optimizer counts the steps of each weight of a group, as Adam does and Muon does not."""
    return "betas" in group


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the learning rate of all parameter groups: `lr` times the group's factor, where it has one."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_factor", 1.0)
