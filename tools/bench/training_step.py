"""Training of an encoder and of the whole model, in seconds of audio per second.

encoder     Forward and backward of `asrtool.models.transformer.TransformerEncoder` on random frames. Baseline:
            torch.nn.TransformerEncoder of the same size (Pre-Norm, SiLU, final norm, batch first, padding mask), on the
            same frames with the same position encodings and parameter count. With dropout 0 both compute the same
            function: weights are copied over and the largest difference of the outputs is printed. With dropout torch
            also draws masks over attention weights and inside the feed-forward layer, which asrtool omits on
            purpose; the measurement includes this difference.
            "matrix products alone" are the products of a layer's matrices, forward and twice backward, of the same
            shapes and type, in the same turns: the speed of a step that did nothing else. The ratio of both is the
            share of the machine's matrix rate that a step reaches. Padding counts as lost.
kinds       The same share for Transformer-XL, chunks, a sliding mask and Conformer convolutions (--kinds), without
            another encoder to compare with. Only pairs of frames that see each other count as work.
model       `asrtool.training.step.training_step`, all of it: normalisation, front end, encoder, CTC over --units,
            gradient clipping, AdamW. Baseline: the same step with torch.nn.TransformerEncoder as the encoder.
memory      The memory of two steps of an encoder in their own process: weights, gradients, activations.

Frames are encoder frames of 40 ms; padding does not count as audio. bf16 is autocast. On a CPU
without bf16 instructions asrtool computes in fp32 instead (asrtool/training/precision.py), and so does the baseline.
"""

import argparse
import os
from pathlib import Path

import torch
from common import Report, Run, parse, parser
from encoders import (
    ENCODERS,
    KINDS,
    QUICK,
    EncoderStep,
    TorchEncoder,
    add_sizes,
    copy_weights,
    lengths,
    models,
    peak_memory,
    products_alone,
    seconds,
    settle,
)
from profiling import as_text, time_by_kind

from asrtool.config import Config, ModelConfig
from asrtool.data.batch import Batch
from asrtool.device import pick_device
from asrtool.distributed import SINGLE_PROCESS
from asrtool.models.acoustic import AcousticModel, make_encoder
from asrtool.models.masks import padding_mask
from asrtool.models.transformer import TransformerEncoder
from asrtool.objectives.ctc import Ctc
from asrtool.objectives.objective import Objective
from asrtool.training.experiment_folder import DroppedCuts
from asrtool.training.optimizer import create_optimizer
from asrtool.training.parallel import Strategy
from asrtool.training.session import Session
from asrtool.training.step import training_step

MODEL_DROPOUT = 0.1  # of whole steps, as in training


class ModelStep:
    """Steps of the whole model, as training takes them."""

    def __init__(self, torch_encoder: bool, config: Config, arguments: argparse.Namespace, device: torch.device):
        model = AcousticModel(config.model, config.features.num_bins, arguments.units)
        if torch_encoder:
            model.encoder = TorchEncoder(config.model)
        self.session = make_session(model.to(device).train(), config, device, Ctc())
        self.batch = make_batch(arguments, config)

    def __call__(self) -> None:
        training_step(self.session, [self.batch])


def make_session(model: AcousticModel, config: Config, device: torch.device, objective: Objective) -> Session:
    """Returns as much of a training session as a step needs."""
    nowhere = Path(os.devnull)  # a bad step, which is no whole step to measure, fails because it cannot be noted there
    return Session(
        config=config,
        experiment=nowhere,
        ranks=SINGLE_PROCESS,
        device=device,
        tokenizer=None,
        objective=objective,
        model=model,
        strategy=Strategy(SINGLE_PROCESS),
        train_model=model,
        optimizer=create_optimizer(model, config.training),
        ema=None,
        dropped=DroppedCuts(),
    )


def make_batch(arguments: argparse.Namespace, config: Config) -> Batch:
    """Random features and targets; a unit every four frames (160 ms), about what BPE of 500 units gives."""
    lens, factor = lengths(arguments), config.model.subsampling.factor
    features = torch.randn(arguments.batch, factor * arguments.frames[1], config.features.num_bins)
    target_lens = lens // 4
    targets = torch.randint(1, arguments.units, (arguments.batch, int(target_lens.max())))
    names = [str(number) for number in range(arguments.batch)]
    return Batch(
        ids=names,
        texts=names,
        features=features,
        feature_lens=factor * lens,
        targets=targets,
        target_lens=target_lens,
        seconds=seconds(arguments),
    )


class Bench:
    """The comparisons of one precision and number of threads."""

    def __init__(self, report: Report, arguments: argparse.Namespace, precision: str, threads: int):
        self.report, self.arguments, self.device = report, arguments, pick_device(arguments.device)
        self.labels = {"precision": precision, "threads": threads}

    def run(self) -> None:
        """All of them."""
        for dropout in self.arguments.dropouts:
            for model in models(self.arguments, dropout):
                self.compare_encoders(model)
            for kind in self.arguments.kinds:
                for model in models(self.arguments, dropout, kind):
                    self.measure_kind(kind, model)
        for model in models(self.arguments, MODEL_DROPOUT):
            self.compare_models(model)

    def compare_encoders(self, model: ModelConfig) -> None:
        """Compares encoder steps with the matrix products alone."""
        alone = products_alone(model, self.arguments, self.device, self.labels["precision"])
        steps = {name: self._step(make(model), model) for name, make in ENCODERS.items()}
        if self.arguments.compile:
            compiled = {name: self._step(torch.compile(make(model)), model) for name, make in ENCODERS.items()}
            steps = {f"{name}, compiled": step for name, step in compiled.items()} | steps
        runs = [Run(name, step, seconds(self.arguments)) for name, step in steps.items()]
        case = self._case("encoder", model)
        self.report.compare(case, [alone, *runs], **self.labels, dim=model.dim, dropout=model.dropout)
        self._report_share(case)
        if self.arguments.profile:
            for name in ENCODERS:
                self.report.fact(f"time of {name}, {case}", as_text(time_by_kind(steps[name], self.device)))

    def measure_kind(self, kind: str, model: ModelConfig) -> None:
        """Compares steps of an encoder of one of KINDS with its matrix products alone."""
        alone = products_alone(model, self.arguments, self.device, self.labels["precision"])
        step = self._step(make_encoder(model), model)
        case = self._case(kind, model)
        runs = [Run("asrtool", step, seconds(self.arguments)), alone]
        self.report.compare(case, runs, **self.labels, dim=model.dim, dropout=model.dropout)
        self.report.fact(f"share of the matrix rate, {case}", self.report.rate(case, "ratio"))
        if self.arguments.profile:
            self.report.fact(f"time of asrtool, {case}", as_text(time_by_kind(step, self.device)))

    def _report_share(self, case: str) -> None:
        alone, ours, theirs = (self.report.rate(case, what=name) for name in ("matrix products alone", *ENCODERS))
        self.report.fact(f"share of the matrix rate, {case}", ours / alone, f"torch.nn: {theirs / alone:.3g}")

    def _step(self, encoder: torch.nn.Module, model: ModelConfig) -> EncoderStep:
        return EncoderStep(encoder, model.dim, self.arguments, self.device, self.labels["precision"])

    def compare_models(self, model: ModelConfig) -> None:
        """Whole steps."""
        config = Config(model=model, training={"precision": self.labels["precision"]})
        steps = [ModelStep(kind, config, self.arguments, self.device) for kind in (False, True)]
        runs = [Run(name, step, step.batch.seconds) for name, step in zip(ENCODERS, steps, strict=True)]
        case = self._case("model", model)
        self.report.compare(case, runs, **self.labels, dim=model.dim, dropout=model.dropout)
        if self.arguments.profile:
            self.report.fact(f"time of asrtool, {case}", as_text(time_by_kind(steps[0], self.device)))

    def _case(self, name: str, model: ModelConfig) -> str:
        threads = f"{self.labels['threads']} thr, " if self.device.type == "cpu" else ""
        return f"{name} {model.dim}, {self.labels['precision']}, {threads}dropout {model.dropout:g}"


@torch.no_grad()
def report_agreement(report: Report, arguments: argparse.Namespace) -> None:
    """That both encoders are the same function with the same number of parameters; once in float32 on the CPU."""
    model, lens = models(arguments, 0.0)[0], lengths(arguments)
    ours, theirs = TransformerEncoder(model), TorchEncoder(model)
    copy_weights(ours, theirs)
    x = torch.randn(arguments.batch, arguments.frames[1], model.dim)
    difference = (ours(x, lens) - theirs(x, lens))[padding_mask(lens, x.shape[1])].abs().max()
    report.fact("largest difference of the outputs", float(difference), "the encoders with the same weights")
    counts = [sum(p.numel() for p in encoder.parameters()) for encoder in (ours, theirs)]
    report.fact("parameters of the encoder", counts[0], f"torch.nn: {counts[1]}")


def report_memory(report: Report, arguments: argparse.Namespace) -> None:
    """Peak memory of steps, each in a process of its own."""
    for precision in arguments.precisions:
        for dropout in arguments.dropouts:
            for model in models(arguments, dropout):
                ours, theirs = (peak_memory(name, model, arguments, precision) / 1e6 for name in ENCODERS)
                name = f"MB at most, encoder {model.dim}, {precision}, dropout {dropout:g}"
                report.fact(name, ours, f"torch.nn: {theirs:,.0f}, {theirs / max(ours, 1e-9):.2f} times as much")


def report_aims(report: Report, arguments: argparse.Namespace) -> None:
    """How much faster than the baseline, at full size and where narrow, and how close to the matrix rate."""
    for row in report.values["rows"]:
        if row["what"] == "asrtool" and row["case"].startswith("encoder"):
            limit = 1.0 if row["dim"] != max(arguments.dims) else 2.0 if row["dropout"] else 1.5
            report.aim(f"speed, {row['case']}", row["ratio"], limit)
    for name, value in list(report.values["facts"].items()):
        if name.startswith("share") and ", bf16" in name:
            report.aim(name, value, share_aim(name))


def share_aim(name: str) -> float:
    """The share of the matrix rate that a step is to reach: with more threads and dropout, a little less."""
    if ", encoder" not in name:
        return 0.65
    return 0.87 - 0.05 * (", 1 thr" not in name) - 0.03 * ("dropout 0.1" in name)


def options() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    command_line = parser(__doc__, repeats=5, limit=300.0)
    add_sizes(command_line)
    command_line.add_argument(
        "--units", type=int, default=500, help="output units of the whole model [default: %(default)s]"
    )
    command_line.add_argument(
        "--kinds", nargs="*", choices=KINDS, default=list(KINDS), help="further kinds of encoders [default: all]"
    )
    command_line.add_argument("--profile", action="store_true", help="report the time by kind of operation")
    return command_line


def main() -> None:
    """Measure and report."""
    arguments = parse(options(), **QUICK, units=11, profile=True)
    settle(arguments)
    torch.manual_seed(1)
    report = Report("training_step", arguments, "audio s", arguments.device)
    report.values["threads"] = arguments.threads
    report_agreement(report, arguments)
    for precision in arguments.precisions:
        for threads in arguments.threads:
            torch.set_num_threads(threads)
            Bench(report, arguments, precision, threads).run()
    report_memory(report, arguments)
    report_aims(report, arguments)
    report.finish()


if __name__ == "__main__":
    main()
