"""Learning-rate schedules: the learning rate of each step."""

import math

from asrtool.config import TrainingConfig


def learning_rate(training: TrainingConfig, step: int, dim: int, scale: float = 1.0) -> float:
    """Returns the learning rate of step 1, 2, ...: linear warmup to `lr` times `scale`, then the configured schedule.

    "linear" and "cosine" fall to 0 after `max_steps`, "none" stays at the peak. "inverse_sqrt" falls as
    lr * sqrt(warmup_steps / step) and never reaches 0; "noam" is the same with a peak of lr / sqrt(dim * warmup_steps)
    for a model of width `dim` (arXiv 1706.03762, section 5.3). "one_cycle" rises from lr / 25 and falls to nearly 0,
    both along a cosine (arXiv 1708.07120).
    """
    peak = training.lr * scale
    warmup = training.warmup_steps
    if training.schedule == "noam":
        return peak / math.sqrt(dim) * min(step**-0.5, step * warmup**-1.5)
    if training.schedule == "one_cycle":
        return peak * _one_cycle(step, warmup, training.max_steps)
    if step <= warmup:
        return peak * step / warmup
    if training.schedule == "inverse_sqrt":
        return peak * math.sqrt(max(warmup, 1) / step)
    if training.schedule == "none":
        return peak
    progress = min(1.0, (step - warmup) / (training.max_steps + 1 - warmup))
    return peak * (1 - progress if training.schedule == "linear" else cosine_decay(progress))


def _one_cycle(step: int, warmup: int, max_steps: int) -> float:
    if step <= warmup:
        return 1 - 0.96 * cosine_decay(step / warmup)
    return 1e-5 + (1 - 1e-5) * cosine_decay(min(1.0, (step - warmup) / max(max_steps - warmup, 1)))


def cosine_decay(progress: float) -> float:
    """Returns a factor that falls from 1 to 0 along half a cosine while `progress` goes from 0 to 1."""
    return (1 + math.cos(math.pi * progress)) / 2


def seconds_per_step(batch_seconds: float, accumulate_grad_batches: int, world_size: int) -> float:
    """Returns the largest amount of audio, padding counted, in a step of all ranks."""
    return batch_seconds * accumulate_grad_batches * world_size


def reference_scale(training: TrainingConfig, step_seconds: float) -> float:
    """Returns the factor of the learning rate that follows from the audio in a step; 1 without lr_reference_seconds."""
    return step_seconds / training.lr_reference_seconds if training.lr_reference_seconds else 1.0


def describe_learning_rate(training: TrainingConfig, dim: int, batch_seconds: float, world_size: int) -> str:
    """Returns a log line with the peak of the learning rate and the audio in a step, on which the rate depends."""
    seconds = seconds_per_step(batch_seconds, training.accumulate_grad_batches, world_size)
    peak = learning_rate(training, max(training.warmup_steps, 1), dim, reference_scale(training, seconds))
    factors = f"{batch_seconds:g} s x {training.accumulate_grad_batches} batches x {world_size} ranks"
    return (
        f"at most {seconds:g} s of audio per step ({factors}); peak learning rate {peak:.3g}, "
        f"{peak / seconds:.2e} per second of audio"
    )
