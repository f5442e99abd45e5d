"""The cost of the training engine, compared with bare PyTorch.

steps       Epochs of the real loop, `asrtool.training.train.training_loop`: sampler, loader, guards, log, all ranks.
            Baseline: a bare loop over the same batches, which are in memory: forward, backward, clipping, a fused
            AdamW step and nothing else. It starts from the same weights and draws the same dropout, and the difference
            of the final weights is printed. Loader processes run in parallel, and do not count in the column per CPU
            second. These epochs have no validation and no checkpoint.
checkpoint  `save_session`, for each of --dims: collects the state, writes it, syncs it to the disk, removes the
            previous one. Baseline: torch.save of the same state to the same disk and its removal, without sync. The
            rate is in MB; the environment variable TMPDIR selects the disk.
padding     The share of padding in the batches. Baseline: the same without buckets. It is quick, and more meaningful
            with batches of the usual size: --parts padding --minutes 60 --batch-seconds 120.
ddp         `asrtool train` under torchrun on the CPU: two processes with one thread each that share their gradients.
            Baseline: two independent trainings of one process with one thread at the same time, so that they share
            memory and caches in the same way. The efficiency is the ratio of their times_real_time, which is taken from
            log.jsonl for the later half of the steps.
"""

import argparse
import copy
import logging
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import corpus
import torch
from common import Report, Run, parse, parser
from lhotse import CutSet
from loader import Epoch, report_padding
from torch import nn

from asrtool.config import Config
from asrtool.config_file import save_config
from asrtool.data.batch import Batch
from asrtool.data.lhotse_sets import open_cuts
from asrtool.data.manifest import transcripts
from asrtool.data.sampling import TrainingSampler
from asrtool.device import pick_device
from asrtool.distributed import SINGLE_PROCESS
from asrtool.interrupts import Interrupts
from asrtool.logs import log_to_stderr
from asrtool.objectives.ctc import ctc_loss
from asrtool.readers import read_jsonl
from asrtool.text.tokenizer import save_tokenizer
from asrtool.text.tokenizer_training import train_tokenizer
from asrtool.training.log import TrainingLog
from asrtool.training.optimizer import create_optimizer
from asrtool.training.resume import save_session, session_state
from asrtool.training.session import Session
from asrtool.training.start import start_session
from asrtool.training.train import training_loop

logger = logging.getLogger("asrtool")

STEPS_AIM = 0.97  # of the bare loop's throughput
SAVE_EVERY = 300.0  # seconds between checkpoints
SAVE_AIM = 0.01  # of the time
NO_STEP = 10**9  # steps
RANKS = 2


class Engine:
    """A training that goes on by an epoch with each call; its loader and log stay open, as within one `train`."""

    def __init__(self, session: Session, log: TrainingLog):
        self.session, self.log = session, log
        self.taken: list[Batch] = []  # of the last epoch
        self.stream = session.step_batches()
        session.step_batches = self._epoch  # where it ends, the loop ends, with neither validation nor checkpoint

    def __call__(self) -> None:
        torch.manual_seed(1)
        self.taken.clear()
        training_loop(self.session, self.log, Interrupts())

    def _epoch(self) -> Iterator[list[Batch]]:
        for step in self.stream:
            self.taken += step
            yield step
            if step[-1].next_position.epoch > step[-1].position.epoch:
                return


class BareLoop:
    """A minimal training loop over the batches of the engine's last epoch."""

    def __init__(self, engine: Engine):
        self.batches, self.device = engine.taken, engine.session.device
        self.model = copy.deepcopy(engine.session.model).train()
        self.optimizer = create_optimizer(self.model, engine.session.config.training)
        self.clip = engine.session.config.training.max_grad_norm

    def __call__(self) -> None:
        torch.manual_seed(1)
        for batch in self.batches:
            norm = self._step(batch)
        norm.item()  # waits for the device

    def _step(self, batch: Batch) -> torch.Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        log_probs, lens = self.model(batch.features.to(self.device), batch.feature_lens.to(self.device))
        losses = ctc_loss(log_probs, lens, batch.targets.to(self.device), batch.target_lens.to(self.device))
        (losses.sum() * (1 / int(batch.target_lens.sum()))).backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        return norm


class Bench:
    """The parts of the benchmark, on one corpus; every training has its own folder."""

    def __init__(self, report: Report, arguments: argparse.Namespace, folder: Path):
        self.report, self.arguments, self.folder = report, arguments, folder
        self.data = make_data(arguments, folder)

    def config(self, size: int = 0, **training) -> Config:
        """The model of the `size`-th of --dims, in a training in which nothing is due but what `training` says."""
        sizes, never = self.arguments, {"max_steps": NO_STEP, "validate_every": NO_STEP, "save_minutes": None}
        dim = sizes.dims[size]
        model = {"dim": dim, "heads": sizes.heads[size], "ff_dim": 4 * dim, "layers": sizes.layers}
        model["subsampling"] = {"kind": "vgg", "channels": sizes.channels}
        # a rate that never changes is one that the bare loop can have, too
        steady = {"lr": 1e-4, "warmup_steps": 0, "schedule": "none", "log_every": sizes.log_every}
        sections = {"model": model, "training": {**never, **steady, **training}}
        return corpus.config(self.data["train"], data=self.data, **sections)

    def session(self, config: Config, name: str) -> Session:
        """Returns a training before its first step."""
        return start_session(config, self.folder / name, SINGLE_PROCESS, self.arguments.device)

    def steps(self) -> None:
        """Compares the real loop with the bare loop."""
        config = self.config()
        session = self.session(config, "steps")
        sampler = TrainingSampler(config.data, config.seed, session.dropped.train, cost=session.utterance_cost)
        epoch = list(Epoch(sampler))
        seconds = sum(entry.duration for item in epoch for entry in item.entries)
        with TrainingLog(session.experiment, 0, NO_STEP) as log:
            engine = Engine(session, log)
            bare = BareLoop(engine)
            case = f"steps, {self._name(0)}"
            self.report.compare(case, [Run("asrtool", engine, seconds), Run("bare loop", bare, seconds)])
        engine.stream.close()  # and with it the loader processes, which would be in the way of the other parts
        self.report.fact("seconds of a step", self.report.rate(case, "seconds") / len(epoch), f"{len(epoch)} in a turn")
        apart = largest_difference(session.model, bare.model)
        self.report.fact("largest difference of the weights", apart, "both loops after the last turn")
        self.report.aim(
            "throughput of the engine relative to the bare loop", self.report.rate(case, "ratio"), STEPS_AIM
        )

    def checkpoint(self) -> None:
        """Measures the cost of a checkpoint for each size."""
        for size in range(len(self.arguments.dims)):
            name = self._name(size)
            session = self.session(self.config(size), f"checkpoint-{size}")
            fill_moments(session)
            megabytes = save_session(session).stat().st_size / 1e6
            ours, theirs = (
                partial(save, session),
                partial(save_plainly, session_state(session), self.folder / "plain.pt"),
            )
            runs = [Run("save_session", ours, megabytes), Run("torch.save, no sync", theirs, megabytes)]
            self.report.compare(f"checkpoint, {name}", runs)
            self.report.fact(f"MB of a checkpoint, {name}", megabytes)
            share = self.report.rate(f"checkpoint, {name}", "seconds") / SAVE_EVERY
            name_of_aim = f"share of time at a checkpoint every {SAVE_EVERY / 60:g} minutes, {name}"
            self.report.aim(name_of_aim, share, SAVE_AIM, at_most=True)

    def padding(self) -> None:
        """Compares padding with and without buckets."""
        report_padding(self.report, self.config())

    def ddp(self) -> None:
        """Compares one training of two processes with two independent trainings, in turns."""
        steps, file = self.arguments.ddp_steps, self.folder / "ddp.yaml"
        save_config(self.config(max_steps=steps, validate_every=steps, log_every=steps // 2), file)
        together, apart = [], []
        for turn in range(self.arguments.repeats):
            logger.info(f"ddp: turn {turn + 1} of {self.arguments.repeats}")
            together.append(sum(times_real_time(file, [self.folder / f"ddp-{turn}"], RANKS)))
            apart.append(sum(times_real_time(file, [self.folder / f"alone-{turn}-{i}" for i in range(RANKS)])))
        ratios = [one / other for one, other in zip(together, apart, strict=True)]
        baseline = f"{RANKS} trainings at once: {statistics.median(apart):.3g}"
        self.report.fact(f"audio s/s of ddp at {RANKS} ranks", statistics.median(together), baseline)
        spread = f"turns: {min(ratios):.2f}-{max(ratios):.2f}"
        self.report.fact(f"efficiency of ddp at {RANKS} ranks", statistics.median(ratios), spread)

    def _name(self, size: int) -> str:
        return f"{self.arguments.layers} x {self.arguments.dims[size]}"


def make_data(arguments: argparse.Namespace, folder: Path) -> dict:
    """The corpus, its tokenizer and how it is loaded, as a section of the configuration; dev is only two cuts."""
    train, dev, tokenizer = corpus.manifest(arguments, folder), folder / "dev.jsonl.gz", folder / "tokenizer.json"
    CutSet.from_cuts(list(open_cuts(train).subset(first=2))).to_file(dev)
    save_tokenizer(train_tokenizer("char", transcripts([train])), tokenizer)
    loading = {"batch_seconds": arguments.batch_seconds, "workers": arguments.workers, "augment": {"spec_augment": {}}}
    return {"train": train, "dev": dev, "tokenizer": tokenizer, **loading}


@torch.no_grad()
def largest_difference(one: nn.Module, other: nn.Module) -> float:
    """Returns the largest difference of the weights of two models of the same shape."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float((ours - theirs).abs().max()) for ours, theirs in pairs)


def fill_moments(session: Session) -> None:
    """Give the optimiser the state that it has from the first step on; a checkpoint is three times as large with it."""
    for parameter in session.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    session.optimizer.step()
    session.optimizer.zero_grad(set_to_none=True)


def save(session: Session) -> None:
    """The checkpoint of a next step, as in training: a new file, for which the last one goes."""
    session.progress.step += 1
    save_session(session)


def save_plainly(state: dict, path: Path) -> None:
    """Write and remove: what stayed in memory unwritten would be written while the other candidate is timed."""
    torch.save(state, path)
    path.unlink()


def times_real_time(config: Path, experiments: list[Path], ranks: int = 1) -> list[float]:
    """Train in all `experiments` at once, each with `ranks` processes; seconds of audio a second of the later half."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    command = [sys.executable, *launcher, "-m", "asrtool", "train", str(config), "--device", "cpu", "--threads", "1"]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(config.parent)}  # torchrun leaves files there
    start = partial(subprocess.Popen, stderr=subprocess.PIPE, text=True, env=variables)
    running = [start([*command, "--exp", str(experiment)]) for experiment in experiments]
    for process, output in [(process, process.communicate()[1]) for process in running]:
        if process.returncode:
            sys.exit(f"{' '.join(process.args)} failed:\n{output}")
    return [last_report(experiment)["times_real_time"] for experiment in experiments]


def last_report(experiment: Path) -> dict:
    """Returns the last row of training in an experiment's log."""
    return [row for row in read_jsonl(experiment / "log.jsonl") if row["event"] == "train"][-1]


PARTS = {"steps": Bench.steps, "checkpoint": Bench.checkpoint, "padding": Bench.padding, "ddp": Bench.ddp}


def options() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    command_line = parser(__doc__, repeats=5, limit=300.0)
    corpus.add_options(command_line, minutes=8)
    command_line.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), help="parts to measure [default: all]"
    )
    command_line.add_argument(
        "--dims",
        type=int,
        nargs="+",
        default=[192, 512],
        help="model widths; `steps` takes the first [default: 192 512]",
    )
    command_line.add_argument(
        "--heads", type=int, nargs="+", default=[4, 8], help="attention heads for each width [default: 4 8]"
    )
    command_line.add_argument(
        "--layers", type=int, default=12, help="layers, with a feed-forward width of 4 dims [default: %(default)s]"
    )
    command_line.add_argument(
        "--channels", type=int, default=16, help="channels of the VGG front end [default: %(default)s]"
    )
    command_line.add_argument(
        "--batch-seconds", type=float, default=30, help="seconds of audio in a batch [default: %(default)s]"
    )
    command_line.add_argument(
        "--workers", type=int, default=1, help="loader processes of a training [default: %(default)s]"
    )
    command_line.add_argument(
        "--log-every", type=int, default=10, help="steps between two lines of the log [default: %(default)s]"
    )
    command_line.add_argument(
        "--ddp-steps", type=int, default=40, help="steps of each training of ddp, at least 2 [default: %(default)s]"
    )
    command_line.add_argument(
        "--threads", type=int, default=1, help="threads of the steps; processes of ddp have 1 [default: %(default)s]"
    )
    command_line.add_argument(
        "--device", default="cpu", help="device, except for ddp: cpu, cuda, cuda:N or auto [default: %(default)s]"
    )
    return command_line


QUICK = {"minutes": 0.3, "dims": [16, 32], "heads": [2, 2], "layers": 1, "channels": 2, "batch_seconds": 20}
QUICK |= {"workers": 0, "log_every": 1, "ddp_steps": 2}


def main() -> None:
    """Measure and report."""
    arguments = parse(options(), **QUICK)
    arguments.device = str(pick_device(arguments.device))
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        report = Report("engine", arguments, "s or MB", arguments.device)
        bench = Bench(report, arguments, Path(folder))
        for part in arguments.parts:
            PARTS[part](bench)
        report.finish()


if __name__ == "__main__":
    log_to_stderr()
    main()
