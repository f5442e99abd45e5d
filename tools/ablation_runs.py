"""The trainings of tools/ablations.py: a variant with a seed, started, continued and stopped; several at a time."""

import fcntl
import json
import logging
import math
import os
import shlex
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ablation_definition import Ablation

from asrtool.config import Config
from asrtool.config_file import differences, load_config
from asrtool.errors import UserError
from asrtool.files import write_json

logger = logging.getLogger("asrtool")

POLL_SECONDS = 0.1  # between looks at the trainings
INTERRUPTED = (130, -signal.SIGINT)  # exit statuses of a training that was asked to stop: it will be continued


class Run:
    """The training of a variant with a seed, in `folder`; the files FOLDER.log and FOLDER.json are next to it.

    `overrides` are further settings of the configuration. `data` identifies the training data beyond their paths; it is
    recorded where it is given. Raises UserError if the folder holds a training with other settings.

    Attributes:
        outcome: "finished", "diverged", "failed", or "" while something is left to do.
        seconds: time of all processes so far.
        dev: pairs of a step and its dev loss.
        final, mean: the last dev loss and the mean of all; NaN if the run diverged, None if it has no valid loss.
        gradient_ratios: gradient norm of the lowest block over that of the highest block, where they were logged.
    """

    def __init__(
        self,
        ablation: Ablation,
        name: str,
        seed: int,
        work: Path,
        threads: int,
        overrides: Sequence[str] = (),
        data: str | None = None,
    ):
        self.name = name
        self.variant = ablation.variants[name]
        self.seed = seed
        self.folder = work / name / str(seed)
        self.processes = self.variant.processes or ablation.processes
        conf, settings = ablation.settings(name)
        settings = [*settings, *overrides, f"seed={seed}"]
        self.config = load_config(conf, settings)
        self.command = [*launcher(self.processes), "train", str(conf), "--exp", str(self.folder), "--resume"]
        self.command += ["--threads", str(threads), *(part for value in settings for part in ("--set", value))]
        if self.variant.after:
            self.command += ["--init-from", str(work / self.variant.after / str(seed) / "checkpoints" / "warmup.pt")]
        self.command += self.variant.options
        start = {"options": list(self.variant.options), "processes": self.processes, "after": self.variant.after}
        if data is not None:
            start["data"] = data
        self.settings = {"config": self.config.model_dump(mode="json"), "variant": start}
        self.read()
        if not self.has_settings(self.settings | self.record):
            raise UserError(f"{self.folder} was run with other settings; give another --work, or remove {self.folder}*")

    def has_settings(self, settings: dict) -> bool:
        """Returns True if these are the settings of this run. Data count where both name them."""
        own = self.settings["variant"]
        start = {key: settings["variant"].get(key, own[key]) for key in own}
        return start == own and not differences(Config.model_validate(settings["config"]), self.config)

    def read(self) -> None:
        """Reads the record and the log, without a last line that a crash cut short."""
        record_path = self.folder.with_suffix(".json")
        log_path = self.folder / "log.jsonl"
        self.record = json.loads(record_path.read_text(encoding="utf-8")) if record_path.is_file() else {}
        text = log_path.read_text(encoding="utf-8") if log_path.is_file() else ""
        rows = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        self.steps = max((row["step"] for row in rows), default=0)
        self.hours = max((row.get("hours", 0.0) for row in rows), default=0.0)
        self.seconds = self.record.get("seconds", 0.0)
        self.outcome = outcome(rows, self.record.get("status"))
        self.dev = [(row["step"], row["loss"]) for row in rows if row["event"] == "dev"]
        without_loss = math.nan if self.outcome == "diverged" else None
        has_loss = self.dev and self.outcome == "finished"
        self.final = self.dev[-1][1] if has_loss else without_loss
        self.mean = statistics.fmean(loss for _, loss in self.dev) if has_loss else without_loss
        norms_by_layer = [[row[name] for name in sorted(row) if name.startswith("layer_")] for row in rows]
        self.gradient_ratios = [norms[0] / norms[-1] for norms in norms_by_layer if norms and norms[-1]]

    def loss(self, measure: str) -> float:
        """Returns the final or the mean dev loss; infinity if the run failed or diverged."""
        loss = self.final if measure == "final" else self.mean
        return math.inf if loss is None or math.isnan(loss) else loss

    def write_record(self, status: int | None) -> None:
        """Records the exit status of the process (None: it has not ended), and reads the log."""
        record = {"status": status, "seconds": time.monotonic() - self.start_time, **self.settings}
        write_json(self.folder.with_suffix(".json"), record)
        self.read()

    def start(self, threads: int, directory: Path) -> None:
        """Starts the training in its own session, so that Ctrl-C in a terminal reaches it once, through `stop`."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with open(self.folder.with_suffix(".log"), "a", encoding="utf-8") as log:
            try:
                fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the training inherits the lock with the file
            except BlockingIOError as error:
                raise UserError(f"{self.folder} is being trained already; wait for that to end") from error
            print(f"\n$ {shlex.join(self.command)}", file=log, flush=True)
            self.start_time = time.monotonic() - self.seconds
            self.write_record(None)
            files = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT, "cwd": directory}
            environment = os.environ | {"OMP_NUM_THREADS": str(threads)}  # otherwise torchrun sets it, with a warning
            self.process = subprocess.Popen(self.command, **files, env=environment, start_new_session=True)
        logger.info(f"{self.name}, seed {self.seed}: started")

    def end(self) -> None:
        """Records and logs how the training ended."""
        status = self.process.returncode
        self.write_record(None if status in INTERRUPTED else status)
        text = f"{self.outcome or 'interrupted'} after {self.seconds / 60:.1f} min"
        if self.dev:
            text += f", dev loss {self.dev[-1][1]:.4g}"
        if self.outcome in ("failed", "diverged"):
            text += f": {self.last_line()}"
        logger.info(f"{self.name}, seed {self.seed}: {text}")

    def last_line(self) -> str:
        """Returns the error of the last process or, if asrtool printed none, the last line of its output."""
        log = self.folder.with_suffix(".log").read_text(encoding="utf-8", errors="replace")
        lines = [line.strip() for line in log[log.rfind("\n$ ") + 1 :].splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("asrtool: error: ")]  # torchrun prints more after it
        return (errors or lines)[-1].removeprefix("asrtool: error: ").replace(str(self.folder.parents[1]), "WORK")


def outcome(rows: list[dict], status: int | None) -> str:
    """Returns the outcome of a run from the rows of its log and the exit status of its last process (None: running)."""
    events = {row["event"] for row in rows}
    if "finished" in events or (status == 0 and "stopped" not in events):
        return "finished"
    if status is None:
        return ""
    finite = all(math.isfinite(row.get("loss", 0)) for row in rows)
    return "failed" if finite and "stopped" not in events else "diverged"


def launcher(processes: int) -> list[str]:
    """Returns the command that starts asrtool: this Python, or torchrun for several processes."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [sys.executable, *(torchrun if processes > 1 else []), "-m", "asrtool"]


def run_all(runs: list[Run], jobs: int, threads: int, directory: Path, on_end: Callable[[Run], None]) -> None:
    """Runs the trainings, with at most `jobs` processes at a time, or one training if it alone has more.

    A variant with `after` starts when the run that it depends on has ended, successfully or not.
    """
    waiting, running = list(runs), []
    try:
        while waiting or running:
            for run in [run for run in running if run.process.poll() is not None]:
                running.remove(run)
                run.end()
                on_end(run)
            unfinished = {(run.name, run.seed) for run in (*waiting, *running)}
            ready = [run for run in waiting if (run.variant.after, run.seed) not in unfinished]
            for run in ready:
                if running and sum(min(one.processes, jobs) for one in (*running, run)) > jobs:
                    break
                run.start(threads, directory)
                waiting.remove(run)
                running.append(run)
            time.sleep(POLL_SECONDS)
    finally:
        stop(running)


def stop(running: list[Run]) -> None:
    """Passes Ctrl-C on: the first makes a training write its checkpoint, the second stops it at once."""
    for run in running:
        run.process.send_signal(signal.SIGINT)
    try:
        for run in running:
            run.process.wait()
            run.write_record(None)
    except KeyboardInterrupt:
        stop(running)
