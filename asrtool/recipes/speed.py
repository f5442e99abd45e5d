"""How fast a model trains on this machine, measured by a few training steps on random features."""

import time
from collections.abc import Callable
from contextlib import nullcontext

import torch

from asrtool.config import Config
from asrtool.data.features import FRAME_SHIFT
from asrtool.device import pick_device, torch_threads
from asrtool.models.acoustic import AcousticModel
from asrtool.planning.batch_fill import utterances_in_batch
from asrtool.precision import autocast
from asrtool.training.optimizer import create_optimizer

STEPS = 2  # that are timed; the one before them, which allocates memory, is not
MAX_CPU_BATCH = 30.0  # seconds of audio in a step on a CPU, whose speed hardly depends on it
LOADING_SHARE = 0.15  # of the time of a training that goes to loading, validation and checkpoints
# Speed-up by n threads is n ** this: two threads are 1.4 times as fast as one (trial 27 of egs/librispeech/TUNING.md).
THREAD_EXPONENT = 0.5


def measure_speed(config: Config, num_units: int, cut_seconds: float, cores: int) -> float:
    """Returns how many seconds of audio a second of training takes in, on one device of this machine.

    The batches have cuts of `cut_seconds`. On a CPU one thread is measured by the processor time it takes, so that
    other programs do not matter, and the speed of `cores` threads follows from that. It takes a few seconds.
    """
    device = pick_device()
    is_cpu = device.type == "cpu"
    batch_seconds = min(config.data.batch_seconds, MAX_CPU_BATCH) if is_cpu else config.data.batch_seconds
    count = utterances_in_batch(batch_seconds, cut_seconds)
    frames = max(16, int(cut_seconds / FRAME_SHIFT))
    with torch_threads(1) if is_cpu else nullcontext():
        step = _training_step(config, num_units, (count, frames), device)
        step()
        seconds_per_step = _time(step, time.process_time if is_cpu else time.monotonic)
    speed = count * frames * FRAME_SHIFT / seconds_per_step
    return (1 - LOADING_SHARE) * speed * (cores**THREAD_EXPONENT if is_cpu else 1)


def _training_step(config: Config, num_units: int, shape: tuple[int, int], device: torch.device) -> Callable[[], None]:
    """Returns a function that trains a new model on a random batch of `shape` (cuts, frames)."""
    model = AcousticModel(config.model, config.features.num_bins, num_units).to(device).train()
    optimizer = create_optimizer(model, config.training)
    features = torch.randn(*shape, config.features.num_bins, device=device)  # (N, T, F)
    lens = torch.full(shape[:1], shape[1], device=device)  # (N,)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(config.training.precision, device):
            log_probs, _ = model(features, lens)
        log_probs[..., 0].float().mean().neg().backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return step


def _time(step: Callable[[], None], clock: Callable[[], float]) -> float:
    start_time = clock()
    for _ in range(STEPS):
        step()
    return (clock() - start_time) / STEPS
