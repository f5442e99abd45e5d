"""Where the wall time of a whole training goes, and how much of it is matrix products.

`asrtool.training.train.train` trains in this process, with one rank, as `asrtool train` does: start-up, all steps,
validation, checkpoints, averaging. A clock counts every moment of its main thread for one part, so the shares of the
parts add up to 1. The time until the packages are imported is not in it.

loader      waiting for the next batch: `sampler`, which runs in this process, and the rest. Reading, augmentation and
            padding run in loader processes on other cores; their CPU time is reported.
step        copy to the device, normalisation, front end, encoder, output layer, loss, backward pass (of all of them),
            gradient clipping, optimiser, guards; the rest are masks, the choice of the precision, the host's read of
            the losses, and Python.
after a step    whether to validate, save, stop or roll back, with the check of the weights
validation, checkpoints, logging, loss curves, start-up, rest

Then this process loads batches itself, with one thread, and reports the parts of loading.

At last the same session takes further steps with these batches, in turns without and with torch.profiler. The time of
matrix products in the second, divided by the time of the first, is their share of a step, which the profiler does not
inflate. Their share of the wall time is this share times the share of the steps: products of validation are not
counted. Attention (one fused operation) and convolutions contain products, too; they have shares of their own.

With --set data.tokenizer=FILE, the data are the manifests of the configuration, or those that are set as well;
otherwise noise with random letters, or --cuts with its letters, of which the training set is the dev set, too:

    cd egs/librispeech
    python3 ../../tools/bench/training_time.py conf/five_hours.yaml --threads 2 \\
        --set data.tokenizer=data/lang_phone/tokenizer.json

The machine should be quiet. Without --steps, the training has as many steps as the configuration says.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from unittest.mock import patch

import corpus
import torch
from common import CHECKOUT, Report, parse, parser
from part_times import PartClock
from profiling import as_text, record_loss, seconds_by_kind
from training_parts import STATISTICS, STEP, VALIDATION, objectives_of, time_loading, time_training

from asrtool.checkpoint import initial_checkpoint
from asrtool.config import Config
from asrtool.config_file import load_config
from asrtool.data.batch import Batch
from asrtool.data.feature_store import store_features
from asrtool.data.manifest import transcripts
from asrtool.device import pick_device
from asrtool.errors import AsrtoolError
from asrtool.logs import log_to_stderr
from asrtool.precision import uses_bf16
from asrtool.text.tokenizer import save_tokenizer
from asrtool.text.tokenizer_training import train_tokenizer
from asrtool.training.resume import InitialWeights
from asrtool.training.session import Session
from asrtool.training.step import training_step

CONFIG = CHECKOUT / "egs" / "librispeech" / "conf" / "five_hours.yaml"
SHOWN = 0.001  # share of the wall time from which a part has a line of its own; the JSON file has all parts


def report_parts(report: Report, clock: PartClock, session: Session) -> None:
    """The share of each part in the wall time, the longest first, and the CPU time of the processes."""
    wall = clock.wall()
    audio = session.progress.seconds
    report.fact("wall time of the training, s", wall, f"{session.progress.step:,} steps, {audio / 3600:.2f} h of audio")
    report.fact("audio s a second", audio / wall, "start-up, validation and checkpoints included")
    report.values["parts"] = {name: asdict(part) for name, part in clock.parts.items()}
    others = 0.0
    for name, part in sorted(clock.parts.items(), key=lambda item: -item[1].wall):
        if part.wall < SHOWN * wall:
            others += part.wall
            continue
        each = f"{part.calls:,} times {1000 * part.wall / part.calls:.3g} ms"
        report.fact(f"share of the wall time, {name}", part.wall / wall, f"{part.wall:.2f} s; {each}")
    report.fact("share of the wall time, other parts", others / wall, f"of less than {SHOWN:.1%} each")
    for group in ("step", "loader", "start-up", "logging", "checkpoints"):
        seconds = clock.wall(group)
        report.fact(f"share of the wall time, all of {group}", seconds / wall, f"{seconds:.1f} s")
    cpu = sum(part.cpu for part in clock.parts.values())
    report.fact("CPU seconds of the training process", cpu, f"{cpu / wall:.2f} cores")
    for name in ("loader", VALIDATION, STATISTICS):
        seconds = clock.parts[name].children if name in clock.parts else 0.0
        report.fact(f"CPU seconds of loader processes, {name}", seconds, f"{seconds / wall:.3f} cores")


def report_products(report: Report, clock: PartClock, session: Session, steps: list[list[Batch]]) -> None:
    """The share of matrix products and other kinds of operations in steps, and in the whole training."""
    plain, kinds = measure_kinds(session, steps * max(1, report.arguments.repeats), report.arguments.limit)
    wall = sum(plain)
    shares = {kind: seconds / wall for kind, seconds in kinds.most_common()}
    report.fact("time of a step by kind of operation", as_text(shares), f"{len(plain)} steps")
    report.fact("operations with the profiler / steps without", sum(shares.values()), "the rest up to 1 is Python")
    of_step = shares.get("matrix products", 0.0)
    report.fact("share of a step, matrix products", of_step, f"{1000 * wall / len(plain):.0f} ms a step")
    report.fact("share of the wall time, matrix products", of_step * clock.wall(STEP) / clock.wall(), "in the steps")


def measure_kinds(session: Session, steps: list[list[Batch]], limit: float) -> tuple[list[float], Counter[str]]:
    """Returns the seconds of each step without the profiler, and the sum of each kind of operation with it.

    After `limit` seconds no further step is taken.
    """
    walls: list[float] = []
    kinds: Counter[str] = Counter()
    training_step(session, steps[0])  # a warm-up
    start = time.perf_counter()
    with ExitStack() as stack:
        for kind in objectives_of(session):
            stack.enter_context(patch.object(kind, "__call__", record_loss(kind.__call__)))
        for batches in steps:
            begin = time.perf_counter()
            if walls and begin - start > limit:
                break
            training_step(session, batches)
            if session.device.type == "cuda":
                torch.cuda.synchronize(session.device)  # the update of the weights
            walls.append(time.perf_counter() - begin)
            kinds.update(seconds_by_kind(partial(training_step, session, batches), session.device))
    return walls, kinds


def report_loading(report: Report, clock: PartClock, count: int) -> None:
    """The time to load the batches of `count` steps in this process, by parts."""
    report.fact("ms to load the batches of a step, one thread", 1000 * clock.wall() / count, f"{count} steps")
    for name, part in sorted(clock.parts.items(), key=lambda item: -item[1].wall):
        report.fact(f"share of loading, {name}", part.wall / clock.wall())
    report.fact("share of loading, all augmentation", clock.wall("augmentation") / clock.wall())


def synthetic_data(arguments: argparse.Namespace, folder: Path) -> list[str]:
    """Returns settings with a manifest of stored features of noise, or of --cuts, and its letters as units."""
    cuts, stored, tokenizer = corpus.manifest(arguments, folder), folder / "fbank.jsonl.gz", folder / "tokenizer.json"
    store_features(cuts, stored)
    save_tokenizer(train_tokenizer("char", transcripts([cuts])), tokenizer)
    return [f"data.train={stored}", f"data.dev={stored}", f"data.tokenizer={tokenizer}"]


def make_config(arguments: argparse.Namespace, folder: Path) -> Config:
    """Returns the configuration of the training; with few --steps, its learning rate warms up for half of them."""
    has_data = any(one.startswith("data.tokenizer=") for one in arguments.overrides)
    settings = [] if has_data else synthetic_data(arguments, folder)
    settings += QUICK_SETTINGS if arguments.quick else []
    path = arguments.config or CONFIG
    config = load_config(path, [*settings, *arguments.overrides])
    if arguments.steps:
        warmup = min(config.training.warmup_steps, arguments.steps // 2)
        settings += [f"training.max_steps={arguments.steps}", f"training.warmup_steps={warmup}"]
    return load_config(path, [*settings, *arguments.overrides])


def options() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    command_line = parser(__doc__, repeats=1)
    corpus.add_options(command_line, minutes=20)
    add = command_line.add_argument
    add("config", type=Path, nargs="?", help="configuration [default: LibriSpeech's five_hours]")
    add("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="setting; repeatable")
    add("--init-from", type=Path, help="checkpoint, experiment or pack to start from")
    add("--exp", type=Path, help="experiment folder to write and keep [default: a temporary one]")
    add("--steps", type=int, help="steps of the training [default: training.max_steps of the configuration]")
    text = "further steps that are loaded here; a quarter of them is profiled [default: %(default)s]"
    add("--sample", type=int, default=40, help=text)
    add("--threads", type=int, default=1, help="threads of the training process [default: %(default)s]")
    add("--device", default="cpu", help="cpu, cuda, cuda:N or auto [default: %(default)s]")
    return command_line


QUICK = {"minutes": 0.3, "steps": 3, "sample": 4}
QUICK_SETTINGS = ["model.dim=16", "model.heads=2", "model.layers=2", "model.ff_dim=32", "model.subsampling.channels=2"]
QUICK_SETTINGS += ["data.batch_seconds=20"]


def main() -> int:
    """Measures and reports."""
    arguments = parse(options(), **QUICK)
    arguments.device = str(pick_device(arguments.device))
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as name:
        try:
            config = make_config(arguments, Path(name))
            report = Report("training_time", arguments, "audio s", arguments.device)
            in_bf16 = uses_bf16(config.training.precision, torch.device(arguments.device))
            report.fact("precision", "bf16" if in_bf16 else "fp32", f"configured: {config.training.precision}")
            initial = InitialWeights(initial_checkpoint(arguments.init_from)) if arguments.init_from else None
            session, clock = time_training(config, arguments.exp or Path(name) / "exp", arguments.device, initial)
            report_parts(report, clock, session)
            steps, loading_clock = time_loading(session, arguments.sample)
            report_loading(report, loading_clock, arguments.sample)
            report_products(report, clock, session, steps[: max(1, arguments.sample // 4)])
        except AsrtoolError as error:
            print(f"training_time: {error}", file=sys.stderr)
            return error.exit_status
        report.finish()
    return 0


if __name__ == "__main__":
    log_to_stderr()
    sys.exit(main())
