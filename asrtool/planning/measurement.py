"""The speed and the memory of this machine in training, measured by some steps of the model that is planned."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from asrtool.checkpoint import meta_model
from asrtool.config import Config
from asrtool.data.batch import Batch
from asrtool.data.features import FRAME_SHIFT
from asrtool.device import describe_device, is_out_of_memory, pick_device, torch_threads
from asrtool.errors import UserError
from asrtool.machine import free_memory, usable_cores
from asrtool.models.acoustic import AcousticModel
from asrtool.models.info import UTTERANCE_SECONDS, model_info
from asrtool.objectives.ctc import Ctc
from asrtool.planning.batch_fill import utterances_in_batch
from asrtool.planning.devices import Device
from asrtool.planning.memory import USABLE_MEMORY, WEIGHT, memory
from asrtool.planning.plan import planned_precision, training_flops
from asrtool.planning.processes import speed_of_processes
from asrtool.precision import uses_bf16
from asrtool.training.optimizer import create_optimizer
from asrtool.training.step import batch_loss

logger = logging.getLogger(__name__)

MEASURED_SECONDS = 4.0  # of steps, after a first one that is not counted unless it takes longer
BATCH_SECONDS = 60.0  # of a batch, four utterances, unless data.batch_seconds is less
UNITS_PER_SECOND = 5  # of the transcripts
HINT = "give --device NAME to plan for a listed device"
MATRIX = 1024  # rows and columns of the products that are timed


def measure_this_machine(
    config: Config,
    num_outputs: int,
    devices: int,
    threads: int | None = None,
    utterance_seconds: float = UTTERANCE_SECONDS,
) -> Device:
    """Returns the device of this machine, its GPU or the CPU threads of each of `devices` processes, as measured.

    `threads` is by default the number that torch uses in a training, with OMP_NUM_THREADS or without, but not more than
    the share of the cores of each process. On a CPU as many processes as a training has on this machine are measured at
    once, since they slow each other down. The objective is CTC: others cost more on a CPU. Raises UserError for a model
    that has too many weights, or whose steps need more memory than this machine has free.
    """
    meta_model(config.model, config.features.num_bins, num_outputs)  # refuses a model that is too large
    cores = usable_cores()
    with torch_threads(threads or min(torch.get_num_threads(), max(1, cores // devices))):
        processes = min(devices, max(1, cores // torch.get_num_threads()))
        return _measure(config, num_outputs, pick_device("auto"), utterance_seconds, cores, processes)


def _measure(
    config: Config, num_outputs: int, torch_device: torch.device, utterance_seconds: float, cores: int, processes: int
) -> Device:
    """Returns a device of this machine as measured with the current number of threads."""
    is_gpu = torch_device.type == "cuda"
    logger.info(f"measuring some training steps on {describe_device(torch_device)}")
    use_bf16 = uses_bf16(config.training.precision, torch_device)
    peak = _peak(torch_device, use_bf16)
    device = _device(torch_device, peak, use_bf16, cores)
    planned = config.model_copy(
        update={"training": config.training.model_copy(update={"precision": planned_precision(config, device)})}
    )
    info = model_info(planned, num_outputs, utterance_seconds)
    _require_memory(planned, num_outputs, device, utterance_seconds)
    work = partial(_training_speed, config, num_outputs, torch_device, utterance_seconds)
    try:
        if processes > 1 and not is_gpu:
            num_bytes = int(WEIGHT) * sum(info.parameters.values())
            speed, link = speed_of_processes(processes, torch.get_num_threads(), num_bytes, work)
        else:
            speed, link = work(), device.link
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(f"this machine has too little memory for a training step of the model; {HINT}") from error
    reached = training_flops(planned, info) * speed / peak
    together = f", {processes} processes at once" if processes > 1 and not is_gpu else ""
    logger.info(f"{device.description}{together}: {speed:.0f}x real time, {reached:.0%} of {peak / 1e9:,.0f} GFLOP/s")
    if use_bf16:
        return replace(device, link=link, bf16_utilisation=reached)
    return replace(device, link=link, fp32_utilisation=reached)


def _require_memory(config: Config, num_outputs: int, device: Device, utterance_seconds: float) -> None:
    """Raises UserError if the steps to measure would need more memory than a process has."""
    batch_seconds = _measured_cuts(config, utterance_seconds) * utterance_seconds
    data = config.data.model_copy(update={"batch_seconds": batch_seconds})
    info = model_info(config.model_copy(update={"data": data}), num_outputs, utterance_seconds)
    needed = memory(config, info, device, devices=1).total
    usable = USABLE_MEMORY * device.memory
    if needed > usable:
        raise UserError(
            f"a training step of the model needs {needed / 1e9:.1f} GB for a batch of {batch_seconds:.0f} s, and each "
            f"process has {usable / 1e9:.1f} GB on this machine; {HINT}"
        )


def _device(device: torch.device, peak: float, use_bf16: bool, cores: int) -> Device:
    is_gpu = device.type == "cuda"
    threads = torch.get_num_threads()
    return Device(
        name="this",
        description=describe_device(device),
        fp32=peak,
        bf16=peak if use_bf16 else None,
        fp32_utilisation=1.0,
        bf16_utilisation=1.0,
        memory=float(torch.cuda.mem_get_info(device)[0]) if is_gpu else free_memory() * min(1.0, threads / cores),
        watts=0.0,
        link=10e9,
        per_machine=torch.cuda.device_count() if is_gpu else max(1, cores // threads),
        source="measured by training steps on this machine",
        is_gpu=is_gpu,
        is_measured=True,
    )


def _peak(device: torch.device, use_bf16: bool) -> float:
    """FLOP/s of products of large matrices in the precision of the training."""
    x = torch.randn(MATRIX, MATRIX, device=device, dtype=torch.bfloat16 if use_bf16 else torch.float32)
    return 2 * MATRIX**3 * _times_a_second(lambda: x @ x, device, 0.5)


def _times_a_second(run: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Returns how many times `run` runs in a second, from at least `seconds` and two runs after one to warm up.

    If the first run takes longer than `seconds`, it is the only one.
    """
    start = time.monotonic()
    run()
    _wait(device)
    first = time.monotonic() - start
    if first > seconds:
        return 1 / first
    start, runs = time.monotonic(), 0
    while runs < 2 or time.monotonic() - start < seconds:
        run()
        _wait(device)
        runs += 1
    return runs / (time.monotonic() - start)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _training_speed(config: Config, num_outputs: int, device: torch.device, utterance_seconds: float) -> float:
    """Seconds of audio, padding included, that training steps process in a second."""
    model = AcousticModel(config.model, config.features.num_bins, num_outputs).to(device).train()
    optimizer = create_optimizer(model, config.training)
    batch = _batch(config, num_outputs, utterance_seconds)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        batch_loss(model, batch, device, config.training.precision, Ctc()).sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.training.max_grad_norm)
        optimizer.step()

    return batch.seconds * _times_a_second(step, device, MEASURED_SECONDS)


def _measured_cuts(config: Config, utterance_seconds: float) -> int:
    """The number of utterances in the batch of a measured step."""
    return utterances_in_batch(min(config.data.batch_seconds, BATCH_SECONDS), utterance_seconds)


def _batch(config: Config, num_outputs: int, utterance_seconds: float) -> Batch:
    """Random features of utterances of this length."""
    num_cuts = _measured_cuts(config, utterance_seconds)
    num_frames = round(utterance_seconds / FRAME_SHIFT)
    num_targets = round(utterance_seconds * UNITS_PER_SECOND)
    return Batch(
        ids=[str(number) for number in range(num_cuts)],
        texts=[""] * num_cuts,
        features=torch.randn(num_cuts, num_frames, config.features.num_bins),
        feature_lens=torch.full((num_cuts,), num_frames),
        targets=torch.randint(1, num_outputs, (num_cuts, num_targets)),
        target_lens=torch.full((num_cuts,), num_targets),
        seconds=num_cuts * utterance_seconds,
    )
