"""A plan of a training of two processes on this machine, compared with the training.

In each turn, `asrtool plan` measures this machine with as many processes at once as the training has, and predicts the
training; then torchrun trains, and a second run resumes it for a step. Printed are predicted / measured:

    speed       seconds of audio that all processes train on in a second, of the later half of the steps
    checkpoint  bytes of a checkpoint, and seconds to write one (`save_session` of a process that does nothing else)
    resume      seconds from the start of torchrun to the first step
    memory      peak memory of the process that needs most

The audio is noise with the lengths of LibriSpeech's utterances. A plan is good if the ratio is between 0.87 and 1.15.
Times depend on the load: run it on a quiet machine.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import corpus
import torch
from common import Report, parse, parser
from engine import fill_moments, last_report, make_data, times_real_time

from asrtool.config import Config
from asrtool.config_file import save_config
from asrtool.distributed import SINGLE_PROCESS
from asrtool.logs import log_to_stderr
from asrtool.planning.measurement import measure_this_machine
from asrtool.planning.operation import OperationOptions, plan_operation
from asrtool.planning.plan import PlanOptions, make_plan, utterance_seconds
from asrtool.planning.training_data import read_training_data
from asrtool.readers import read_jsonl
from asrtool.text.tokenizer import load_tokenizer
from asrtool.training.resume import save_session
from asrtool.training.start import start_session

RANKS = 2
WITHIN = 1.15  # predicted / measured, or its inverse
POLL_SECONDS = 0.02
RESUME_SECONDS = 300.0  # after which a resumed training is given up


class Figures(NamedTuple):
    """What is predicted and measured of a training."""

    speed: float  # seconds of audio a second
    checkpoint_bytes: float
    checkpoint_seconds: float
    resume_seconds: float
    memory_gb: float


def make_config(arguments: argparse.Namespace, folder: Path) -> Config:
    """Returns the configuration of the training: nothing but steps until its end, and two reports."""
    data = make_data(arguments, folder)
    model = {"dim": arguments.dim, "heads": arguments.heads, "ff_dim": 4 * arguments.dim, "layers": arguments.layers}
    model["subsampling"] = {"kind": "vgg", "channels": arguments.channels}
    steps = arguments.steps
    training = {"lr": 1e-4, "warmup_steps": 0, "schedule": "none", "log_every": steps // 2, "max_steps": steps}
    training |= {"validate_every": steps, "save_minutes": None, "precision": arguments.precision}
    return corpus.config(data["train"], data=data, model=model, training=training)


def predict(config: Config) -> Figures:
    """Returns what a plan for this machine says."""
    data = read_training_data(config)
    options = PlanOptions(hours=data.hours, devices=RANKS, data=data)
    units = load_tokenizer(config.data.tokenizer).size
    device = measure_this_machine(config, units, RANKS, threads=1, utterance_seconds=utterance_seconds(options))
    plan = make_plan(config, units, device, options)
    operation = plan_operation(plan, config, OperationOptions())
    return Figures(
        speed=operation.audio_rate,
        checkpoint_bytes=operation.checkpoint_bytes,
        checkpoint_seconds=operation.checkpoint_seconds,
        resume_seconds=operation.resume_seconds,
        memory_gb=plan.memory.total / 1e9,
    )


def measure(config: Config, experiment: Path, file: Path) -> Figures:
    """Returns what the training takes."""
    speed = sum(times_real_time(file, [experiment], RANKS))
    memory = last_report(experiment)["peak_memory_gb"]
    written = max(experiment.glob("checkpoints/step-*.pt"))
    size = written.stat().st_size
    resumed = resume_seconds(config, experiment, file)
    return Figures(
        speed, size, checkpoint_seconds(config, experiment.with_name(f"{experiment.name}-save")), resumed, memory
    )


def checkpoint_seconds(config: Config, experiment: Path) -> float:
    """Returns the time of the second checkpoint of a training whose optimizer has its state."""
    session = start_session(config, experiment, SINGLE_PROCESS, "cpu")
    fill_moments(session)
    save_session(session)
    session.progress.step += 1
    start = time.monotonic()
    save_session(session)
    return time.monotonic() - start


def resume_seconds(config: Config, experiment: Path, file: Path) -> float:
    """Returns the time from the start of torchrun until the first step of the resumed training is in the log."""
    last = config.training.max_steps
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={RANKS}",
        "-m",
        "asrtool",
    ]
    command += ["train", str(file), "--exp", str(experiment), "--device", "cpu", "--threads", "1", "--resume"]
    command += ["--set", f"training.max_steps={last + 1}", "--set", "training.log_every=1"]
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    start = time.monotonic()
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=variables) as process:
        while not any(row["event"] == "train" and row["step"] > last for row in read_jsonl(experiment / "log.jsonl")):
            if process.poll() is not None or time.monotonic() - start > RESUME_SECONDS:
                process.kill()
                sys.exit(f"{' '.join(command)} took no step")
            time.sleep(POLL_SECONDS)
        seconds = time.monotonic() - start
        process.wait()
    return seconds


def options() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    command_line = parser(__doc__, repeats=3, limit=600.0)
    corpus.add_options(command_line, minutes=12)
    add = partial(command_line.add_argument, type=int)
    add("--dim", default=192, help="model width [default: %(default)s]")
    add("--heads", default=4, help="attention heads [default: %(default)s]")
    add("--layers", default=12, help="layers, with a feed-forward width of 4 dims [default: %(default)s]")
    add("--channels", default=16, help="channels of the VGG front end [default: %(default)s]")
    add("--steps", default=30, help="steps of a training, at least 2 [default: %(default)s]")
    add("--workers", default=1, help="loader processes of each process [default: %(default)s]")
    command_line.add_argument("--precision", default="auto", help="precision of the training [default: %(default)s]")
    text = "seconds of audio in a batch [default: %(default)s]"
    command_line.add_argument("--batch-seconds", type=float, default=60, help=text)
    return command_line


QUICK = {
    "minutes": 0.5,
    "dim": 16,
    "heads": 2,
    "layers": 1,
    "channels": 2,
    "batch_seconds": 20,
    "workers": 0,
    "steps": 2,
}


def main() -> None:
    """Measures and reports."""
    arguments = parse(options(), **QUICK)
    torch.set_num_threads(1)
    report = Report("planned_training", arguments, "audio s")
    turns = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = make_config(arguments, folder)
        file = folder / "config.yaml"
        save_config(config, file)
        for turn in range(max(1, arguments.repeats)):
            turns.append((predict(config), measure(config, folder / f"exp-{turn}", file)))
    for place, figure in enumerate(Figures._fields):
        ratios = [predicted[place] / measured[place] for predicted, measured in turns]
        measured = median(measured[place] for _, measured in turns)
        predicted = median(predicted[place] for predicted, _ in turns)
        spread = f"turns: {min(ratios):.2f}-{max(ratios):.2f}; predicted {predicted:.4g}, measured {measured:.4g}"
        report.fact(f"predicted / measured, {figure}", median(ratios), spread)
    speed = report.values["facts"]["predicted / measured, speed"]
    report.aim("speed, predicted and measured, the larger by the smaller", max(speed, 1 / speed), WITHIN, at_most=True)
    report.finish()


if __name__ == "__main__":
    log_to_stderr()
    main()
