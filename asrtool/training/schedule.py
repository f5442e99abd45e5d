"""Learning rate by step."""

import math

from asrtool.config import Config
from asrtool.distributed import Ranks


def learning_rate(config: Config, step: int, ranks: int = 1) -> float:
    """The rate of step 1, 2, ...: linear warmup to `lr`, then the configured decay, to 0 after `max_steps`.

    "inverse_sqrt" falls as lr * sqrt(warmup_steps / step) and never reaches 0; "noam" is the same with a peak of
    lr / sqrt(dim * warmup_steps) (arXiv 1706.03762, section 5.3). "one_cycle" rises from lr / 25 and falls to nearly 0,
    both along a cosine (arXiv 1708.07120).
    """
    training = config.training
    peak, warmup = training.lr * _scale(config, ranks), training.warmup_steps
    if training.schedule == "noam":
        return peak / math.sqrt(config.model.dim) * min(step**-0.5, step * warmup**-1.5)
    if training.schedule == "one_cycle":
        return peak * _one_cycle(step, warmup, training.max_steps)
    if step <= warmup:
        return peak * step / warmup
    if training.schedule == "inverse_sqrt":
        return peak * math.sqrt(max(warmup, 1) / step)
    done = min(1.0, (step - warmup) / (training.max_steps + 1 - warmup))
    return peak * {"linear": 1 - done, "cosine": cosine(done), "none": 1.0}[training.schedule]


def _one_cycle(step: int, warmup: int, last: int) -> float:
    if step <= warmup:
        return 1 - 0.96 * cosine(step / warmup)
    return 1e-5 + (1 - 1e-5) * cosine(min(1.0, (step - warmup) / max(last - warmup, 1)))


def cosine(done: float) -> float:
    """From 1 to 0."""
    return (1 + math.cos(math.pi * done)) / 2


def step_seconds(config: Config, ranks: int) -> float:
    """Audio in a step of all ranks, at most."""
    return config.data.batch_seconds * config.training.accumulate_grad_batches * ranks


def _scale(config: Config, ranks: int) -> float:
    meant_for = config.training.lr_reference_seconds
    return step_seconds(config, ranks) / meant_for if meant_for else 1.0


def describe_rate(config: Config, ranks: Ranks) -> str:
    """The peak of the rate beside the audio in a step, since the one means nothing without the other."""
    training, seconds = config.training, step_seconds(config, ranks.world_size)
    peak = learning_rate(config, max(training.warmup_steps, 1), ranks.world_size)
    parts = f"{config.data.batch_seconds:g} s x {training.accumulate_grad_batches} batches x {ranks.world_size} ranks"
    return f"at most {seconds:g} s of audio a step ({parts}); peak rate {peak:.3g}, {peak / seconds:.2e} for a second"
