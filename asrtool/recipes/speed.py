"""How fast a model trains on this machine, measured by a few training steps on random features."""

import time

import torch

from asrtool.config import Config
from asrtool.data.features import FRAME_SHIFT
from asrtool.device import pick_device
from asrtool.models.acoustic import AcousticModel
from asrtool.training.optimizer import create_optimizer
from asrtool.training.precision import autocast

MIN_STEPS, MIN_SECONDS = 2, 2.0  # that are timed; the first step, which allocates memory, does not count
LOADING_SHARE = 0.15  # of the time of a training that goes to loading, validation and checkpoints


def measure_speed(config: Config, num_units: int, cut_seconds: float) -> float:
    """Returns how many seconds of audio a second of training takes in, on one device of this machine.

    The batches have `data.batch_seconds` in cuts of `cut_seconds`. It takes a few seconds.
    """
    device = pick_device()
    model = AcousticModel(config.model, config.features.num_bins, num_units).to(device).train()
    optimizer = create_optimizer(model, config.training)
    count = max(1, round(config.data.batch_seconds / cut_seconds))
    frames = max(16, int(cut_seconds / FRAME_SHIFT))
    features = torch.randn(count, frames, config.features.num_bins, device=device)  # (N, T, F)
    lens = torch.full((count,), frames, device=device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(config.training.precision, device):
            log_probs, _ = model(features, lens)
        log_probs[..., 0].float().mean().neg().backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    step()
    steps = 0
    start_time = time.monotonic()
    while steps < MIN_STEPS or time.monotonic() - start_time < MIN_SECONDS:
        step()
        steps += 1
    seconds_per_step = (time.monotonic() - start_time) / steps
    return (1 - LOADING_SHARE) * count * frames * FRAME_SHIFT / seconds_per_step
