"""The optimizer of a training."""

import torch
from torch import nn

from asrtool.config import TrainingConfig


def create_optimizer(model: nn.Module, training: TrainingConfig) -> torch.optim.AdamW:
    """Returns AdamW, fused. Weight decay applies to matrices only: norms and biases would only shrink."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": training.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=training.lr, betas=training.betas, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the learning rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr
