"""Learning rate by step."""

import math

from asrtool.config import Training


def learning_rate(training: Training, step: int) -> float:
    """The rate of step 1, 2, ...: linear warmup to `lr`, then the configured decay, to 0 after `max_steps`.

    "inverse_sqrt" falls as lr * sqrt(warmup_steps / step) and never reaches 0 (arXiv 1706.03762, section 5.3).
    """
    warmup = training.warmup_steps
    if step <= warmup:
        return training.lr * step / warmup
    if training.decay == "inverse_sqrt":
        return training.lr * math.sqrt(max(warmup, 1) / step)
    done = min(1.0, (step - warmup) / (training.max_steps + 1 - warmup))
    share = {"linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2, "none": 1.0}[training.decay]
    return training.lr * share
