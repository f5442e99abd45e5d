"""Training steps of large Transformers on a GPU, with and without torch.compile: speed, utilisation and memory.

`asrtool.training.step.training_step`, all of it, in bf16: normalisation, front end, encoder, CTC over --units, gradient
clipping, AdamW, the guard's read. Baseline: the same step without training.compile. The compiled step runs with batches
of several lengths, as in training; the figures are of the longest.

MFU is the share of the measured rate of a large bf16 product (--matrix) that the encoder's necessary matrix products
take: for valid frames only, forward and twice backward, without front end and output layer. It is a lower bound.
Memory is the most that tensors took in steps of the longest batch.
"""

import argparse
import time
from unittest import mock

import torch
from common import Report, Run, parse, parser
from encoders import add_sizes, lengths, matrix_flops, settle
from training_step import make_batch, make_session

from asrtool.config import Config
from asrtool.models.acoustic import AcousticModel
from asrtool.objectives.ctc import Ctc
from asrtool.training import compile as module
from asrtool.training.step import training_step

SHORTER = (1.0, 0.7, 0.85)  # lengths of the batches before the measurement: sizes become variables at the second one


class Step:
    """Steps of the whole model, as training takes them."""

    def __init__(self, config: Config, arguments: argparse.Namespace, device: torch.device):
        use_compile = config.training.compile
        model = AcousticModel(config.model, config.features.num_bins, arguments.units, pack_frames=not use_compile)
        model.to(device).train()
        if use_compile:
            with mock.patch.object(module, "BACKEND", arguments.backend):
                module.compile_blocks(model, device)
        self.session = make_session(model, config, device, Ctc())
        self.batch = make_batch(arguments, config)
        self.device = device
        self.seconds = self._warm_up(arguments, config)

    def _warm_up(self, arguments: argparse.Namespace, config: Config) -> float:
        """Takes steps with batches of several lengths; returns their seconds."""
        start = time.perf_counter()
        for share in SHORTER:
            frames = [max(4, int(share * size)) for size in arguments.frames]
            shorter = argparse.Namespace(**{**vars(arguments), "frames": frames})
            training_step(self.session, [make_batch(shorter, config)])
        self()
        return time.perf_counter() - start

    def __call__(self) -> None:
        training_step(self.session, [self.batch])
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # the update, which nothing reads in the step


def matrix_rate(size: int, device: torch.device, precision: str) -> float:
    """Returns FLOP/s of a product of two matrices (size, size): the best of some turns."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    one, other = torch.randn(2, size, size, device=device).to(dtype)
    best = 0.0
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(10):
            product = one @ other
        product[0, 0].item()  # waits for the device
        best = max(best, 10 * 2 * size**3 / (time.perf_counter() - start))
    return best


def measure(report: Report, arguments: argparse.Namespace, device: torch.device, layers: int, dim: int) -> None:
    """One size of model."""
    precision = arguments.precisions[-1]
    sizes = {"layers": layers, "dim": dim, "heads": max(1, dim // 64), "ff_dim": 4 * dim, "dropout": 0.1}
    name = f"{layers} x {dim}, {precision}"
    runs, steps = [], {}
    for what, use_compile in (("compiled", True), ("not compiled", False)):
        training = {"precision": precision, "compile": use_compile}
        torch.manual_seed(1)
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
        step = Step(Config(model=sizes, training=training), arguments, device)
        report.fact(f"s of the first {len(SHORTER) + 1} steps, {name}, {what}", step.seconds)
        if device.type == "cuda":
            report.fact(f"GB at most, {name}, {what}", (torch.cuda.max_memory_allocated(device) - before) / 1e9)
        else:
            report.fact(f"GB at most, {name}, {what}", "not measured: no GPU")
        runs.append(Run(what, step, step.batch.seconds))
        steps[what] = step
    report.compare(name, runs, layers=layers, dim=dim, precision=precision)
    flops = matrix_flops(steps["compiled"].session.config.model, lengths(arguments))
    for what in steps:
        rate = report.rate(name, "rate", what) / steps[what].batch.seconds * flops
        report.fact(f"MFU, {name}, {what}", rate / report.values["facts"]["matrix rate, FLOP/s"], "of the matrix rate")


def options() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    command_line = parser(__doc__, repeats=10, limit=12.0)
    add_sizes(command_line)
    command_line.set_defaults(device="auto", dims=[512, 1024], batch=64, precisions=["bf16"])
    command_line.add_argument("--depths", type=int, nargs="+", default=[12, 24], help="layers [default: 12 24]")
    command_line.add_argument("--units", type=int, default=500, help="output units [default: %(default)s]")
    command_line.add_argument("--matrix", type=int, default=8192, help="size of the matrices [default: %(default)s]")
    command_line.add_argument("--backend", default=module.BACKEND, help="of torch.compile [default: %(default)s]")
    return command_line


def main() -> None:
    """Measures and reports."""
    quick = {"dims": [32], "depths": [1], "batch": 2, "frames": [6, 8], "units": 11, "matrix": 64}
    arguments = parse(options(), **quick, backend="eager")
    device = settle(arguments)
    torch.manual_seed(1)
    report = Report("gpu_steps", arguments, "audio s", arguments.device)
    report.fact("matrix rate, FLOP/s", matrix_rate(arguments.matrix, device, arguments.precisions[-1]))
    for dim in arguments.dims:
        for layers in arguments.depths:
            measure(report, arguments, device, layers, dim)
    report.finish()


if __name__ == "__main__":
    main()
