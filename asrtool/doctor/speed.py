"""A speed figure of this machine in some seconds: matrix products, and training steps of a small encoder."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from asrtool.config import ModelConfig
from asrtool.data.features import FRAME_SHIFT
from asrtool.device import describe_device, lacks_bf16, pick_device, torch_threads
from asrtool.doctor.findings import Finding, Severity
from asrtool.machine import cpu_flags, usable_cores
from asrtool.models.acoustic import AcousticModel
from asrtool.precision import autocast

MATRIX_SIZE = 1024  # rows and columns on a CPU: 2 GFLOP a product
GPU_MATRIX_SIZE = 8192  # a GPU is busy only with large products
BATCH, FRAMES, NUM_BINS, UNITS = 4, 400, 80, 500  # 16 seconds of audio
MODEL = ModelConfig(layers=4, dim=256, heads=4, ff_dim=1024, normalise="none")
LEAST_SCALING = 1.3  # all threads against one; two cores of one processor reach 1.6 to 1.9
BUSY = 0.7  # load average per core from which other programs are slowing down this one


@dataclass(frozen=True)
class Speed:
    """Measured speed: `gflops` of matrix products by name, `encoder` in seconds of audio per second of training."""

    device: str
    threads: int
    gflops: dict[str, float]
    encoder: dict[str, float]  # by precision
    load: float  # load average of the last minute before the measurement, per usable core


def measure_speed(seconds: float = 5.0) -> Speed:
    """Returns the speed of the default device, measured for about `seconds` in all."""
    load = os.getloadavg()[0] / usable_cores()
    device = pick_device()
    threads = torch.get_num_threads()
    has_bf16 = not lacks_bf16(device)
    share = seconds / 6  # six measurements
    gflops = {}
    if device.type == "cpu" and threads > 1:
        with torch_threads(1):
            gflops["fp32, 1 thread"] = matrix_gflops(device, torch.float32, share)
            if has_bf16:
                gflops["bf16, 1 thread"] = matrix_gflops(device, torch.bfloat16, share)
    of_threads = f", {threads} thread{'' if threads == 1 else 's'}" if device.type == "cpu" else ""
    gflops[f"fp32{of_threads}"] = matrix_gflops(device, torch.float32, share)
    if has_bf16:
        gflops[f"bf16{of_threads}"] = matrix_gflops(device, torch.bfloat16, share)
    precisions = ("fp32", "bf16") if has_bf16 else ("fp32",)
    encoder = {precision: encoder_speed(device, precision, share) for precision in precisions}
    return Speed(describe_device(device), threads, gflops, encoder, load)


def matrix_gflops(device: torch.device, dtype: torch.dtype, seconds: float) -> float:
    """Returns the speed of square matrix products in 10^9 operations per second."""
    size = MATRIX_SIZE if device.type == "cpu" else GPU_MATRIX_SIZE
    matrix = torch.ones(size, size, dtype=dtype, device=device) / size
    products_per_second = _rate(lambda: matrix @ matrix, device, seconds)
    return 2 * size**3 * products_per_second / 1e9


def encoder_speed(device: torch.device, precision: str, seconds: float) -> float:
    """Returns the seconds of audio per second of forward and backward passes of a small Transformer (MODEL)."""
    model = AcousticModel(MODEL, NUM_BINS, UNITS).to(device).train()
    features = torch.zeros(BATCH, FRAMES, NUM_BINS, device=device)  # (N, T, F)
    lens = torch.full((BATCH,), FRAMES, dtype=torch.int64)

    def step() -> None:
        with autocast(precision, device):
            log_probs, _ = model(features, lens.to(device))
        log_probs[..., 0].float().sum().backward()

    return _rate(step, device, seconds) * BATCH * FRAMES * FRAME_SHIFT


def _rate(work: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Returns how often `work` runs per second; the first run, which allocates, does not count."""
    work()
    _wait(device)
    start_time = time.perf_counter()
    runs = 0
    while time.perf_counter() - start_time < seconds:
        work()
        _wait(device)
        runs += 1
    return runs / (time.perf_counter() - start_time)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def check_speed(speed: Speed) -> Iterator[Finding]:
    """Yields findings about a measurement: a busy machine, threads that do not help, bf16 that does not help."""
    if speed.load > BUSY:
        cause = f"other programs were running: a load of {speed.load:.1f} per core in the last minute"
        yield Finding("busy-machine", Severity.NOTE, "speed", cause, "see `top`; measure again when they have ended")
    one, all_threads = speed.gflops.get("fp32, 1 thread"), speed.gflops.get(f"fp32, {speed.threads} threads")
    if one and all_threads and all_threads < LEAST_SCALING * one and speed.load <= BUSY:
        cause = f"{speed.threads} threads are {all_threads / one:.1f} times as fast as one"
        remedy = f"compare `--threads 1` with `--threads {speed.threads}`, and see whether a container limits the cores"
        yield Finding("threads-do-not-help", Severity.WARNING, "speed", cause, remedy)
    fp32, bf16 = speed.encoder.get("fp32"), speed.encoder.get("bf16")
    if fp32 and bf16 and bf16 < fp32:
        cause = f"bf16 is slower than fp32 here ({bf16:.0f} and {fp32:.0f} seconds of audio per second)"
        yield Finding("slow-bf16", Severity.WARNING, "speed", cause, "set training.precision to fp32")


def speed_facts(speed: Speed) -> dict[str, object]:
    """Returns the measurement for the report."""
    model = f"training a small Transformer ({MODEL.layers} layers, dim {MODEL.dim})"
    return {
        "device": speed.device,
        "matrix products": {name: f"{value:,.0f} GFLOP/s" for name, value in speed.gflops.items()},
        model: {name: f"{value:,.0f} seconds of audio per second" for name, value in speed.encoder.items()},
    }


def instruction_facts() -> dict[str, str]:
    """Returns which of the instructions that make bf16 and fp32 fast this CPU has, for the report."""
    flags = cpu_flags()
    if not flags:
        return {}
    names = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "AVX-512 bf16", "amx_bf16": "AMX bf16"}
    return {"instructions": ", ".join(shown for flag, shown in names.items() if flag in flags) or "none of AVX, AMX"}


def check_instructions(has_bf16: bool) -> Iterator[Finding]:
    """Yields a note for a CPU without bf16 instructions."""
    if not has_bf16:
        cause = "this CPU has no bf16 instructions: training.precision bf16 falls back to fp32"
        yield Finding(
            "no-bf16", Severity.NOTE, "CPU", cause, "nothing to do; training on a GPU or a newer CPU is faster"
        )
