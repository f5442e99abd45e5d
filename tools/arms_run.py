"""The trainings of tools/arms.py: an arm with a seed, started, continued and stopped; several at a time."""

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
from collections.abc import Callable
from pathlib import Path

from arms_claim import Claim

from asrtool.config import Config
from asrtool.config_file import differences, load_config
from asrtool.errors import UserError
from asrtool.files import write_json

logger = logging.getLogger("asrtool")

POLL = 0.1  # seconds between looks at the trainings: nothing beside them
INTERRUPTED = (130, -signal.SIGINT)  # exit statuses of a training that was asked to stop: to be continued, no result


class Run:
    """An arm with a seed, in `folder`; the files beside it have its name and .log or .json.

    `outcome` is "finished", "diverged", "failed", or "" while there is something left to do; `seconds` are those of all
    its processes; `dev` has pairs of a step and its dev loss; `final` is the last of these and `mean` their mean, NaN
    where the run diverged, None where there is none that counts; `ratios` are those of the gradient norms of the lowest
    and the highest block, where they were logged. Raises UserError where it was started with other settings.
    """

    def __init__(self, claim: Claim, name: str, seed: int, work: Path, threads: int):
        self.name, self.arm, self.seed, self.folder = name, claim.arms[name], seed, work / name / str(seed)
        self.processes = self.arm.processes or claim.processes
        conf, settings = claim.settings(name)
        settings = [*settings, f"seed={seed}"]
        self.config = load_config(conf, settings)
        self.command = [*launcher(self.processes), "train", str(conf), "--exp", str(self.folder), "--resume"]
        self.command += ["--threads", str(threads), *(part for value in settings for part in ("--set", value))]
        if self.arm.after:
            self.command += ["--init-from", str(work / self.arm.after / str(seed) / "checkpoints" / "warmup.pt")]
        self.command += self.arm.options
        start = {"options": list(self.arm.options), "processes": self.processes, "after": self.arm.after}
        self.settings = {"config": self.config.model_dump(mode="json"), "arm": start}
        self.read()
        if not self.same(self.settings | self.record):
            raise UserError(f"{self.folder} was run with other settings; give another --work, or remove {self.folder}*")

    def same(self, settings: dict) -> bool:
        """Whether these are the settings of this run."""
        start = {key: settings["arm"][key] for key in self.settings["arm"]}
        return start == self.settings["arm"] and not differences(Config.model_validate(settings["config"]), self.config)

    def read(self) -> None:
        """Look at the record and at the log, of which a last line that a crash cut short is no part."""
        record, log = self.folder.with_suffix(".json"), self.folder / "log.jsonl"
        self.record = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
        text = log.read_text(encoding="utf-8") if log.is_file() else ""
        rows = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        self.steps = max((row["step"] for row in rows), default=0)
        self.hours = max((row.get("hours", 0.0) for row in rows), default=0.0)
        self.seconds = self.record.get("seconds", 0.0)
        self.outcome = outcome(rows, self.record.get("status"))
        self.dev = [(row["step"], row["loss"]) for row in rows if row["event"] == "dev"]
        ended = self.dev and self.outcome == "finished"
        lost = math.nan if self.outcome == "diverged" else None
        self.final = self.dev[-1][1] if ended else lost
        self.mean = statistics.fmean(loss for _, loss in self.dev) if ended else lost
        layers = [[row[name] for name in sorted(row) if name.startswith("layer_")] for row in rows]
        self.ratios = [norms[0] / norms[-1] for norms in layers if norms and norms[-1]]

    def measured(self, measure: str) -> float:
        """Its final or its mean dev loss; infinite where it failed or diverged."""
        loss = self.final if measure == "final" else self.mean
        return math.inf if loss is None or math.isnan(loss) else loss

    def note(self, status: int | None) -> None:
        """Write down how the process ended (None: it did not), and read what it did."""
        values = {"status": status, "seconds": time.monotonic() - self.began, **self.settings}
        write_json(self.folder.with_suffix(".json"), values)
        self.read()

    def start(self, threads: int, directory: Path) -> None:
        """Start the training, in a session of its own: a terminal's Ctrl-C must reach it once, by way of `stop`."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with open(self.folder.with_suffix(".log"), "a", encoding="utf-8") as log:
            try:
                fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the training inherits the lock with the file
            except BlockingIOError as error:
                raise UserError(f"{self.folder} is being trained already; wait for that to end") from error
            print(f"\n$ {shlex.join(self.command)}", file=log, flush=True)
            self.began = time.monotonic() - self.seconds
            self.note(None)
            files = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT, "cwd": directory}
            environment = os.environ | {"OMP_NUM_THREADS": str(threads)}  # else torchrun sets it, and complains
            self.process = subprocess.Popen(self.command, **files, env=environment, start_new_session=True)
        logger.info(f"{time.strftime('%H:%M:%S')} {self.name}, seed {self.seed}: started")

    def end(self) -> None:
        """Write down and say how the training ended."""
        self.note(None if self.process.returncode in INTERRUPTED else self.process.returncode)
        what = f"{self.outcome or 'interrupted'} after {self.seconds / 60:.1f} min"
        what += f", dev loss {self.dev[-1][1]:.4g}" if self.dev else ""
        what += f": {self.last_line()}" if self.outcome in ("failed", "diverged") else ""
        logger.info(f"{time.strftime('%H:%M:%S')} {self.name}, seed {self.seed}: {what}")

    def last_line(self) -> str:
        """The error of the last process or, where asrtool named none, its last line."""
        log = self.folder.with_suffix(".log").read_text(encoding="utf-8", errors="replace")
        lines = [line.strip() for line in log[log.rfind("\n$ ") + 1 :].splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("asrtool: error: ")]  # torchrun says more after it
        return (errors or lines)[-1].removeprefix("asrtool: error: ").replace(str(self.folder.parents[1]), "WORK")


def outcome(rows: list[dict], status: int | None) -> str:
    """What the rows of a log and the exit status of the last process (None: it did not exit by itself) come to."""
    events = {row["event"] for row in rows}
    if "finished" in events or (status == 0 and "stopped" not in events):
        return "finished"
    if status is None:
        return ""
    finite = all(math.isfinite(row.get("loss", 0)) for row in rows)
    return "failed" if finite and "stopped" not in events else "diverged"


def launcher(processes: int) -> list[str]:
    """How asrtool is started: by this Python, or by torchrun where it is to be several processes."""
    many = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [sys.executable, *(many if processes > 1 else []), "-m", "asrtool"]


def run_all(runs: list[Run], jobs: int, threads: int, directory: Path, ended: Callable[[Run], None]) -> None:
    """Run them, `jobs` processes at a time or one run, each when the one that it comes after is over, well or not."""
    waiting, running = list(runs), []
    try:
        while waiting or running:
            for run in [run for run in running if run.process.poll() is not None]:
                running.remove(run)
                run.end()
                ended(run)
            not_over = {(run.name, run.seed) for run in (*waiting, *running)}
            ready = [run for run in waiting if (run.arm.after, run.seed) not in not_over]
            for run in ready:
                if running and sum(min(one.processes, jobs) for one in (*running, run)) > jobs:
                    break
                run.start(threads, directory)
                waiting.remove(run)
                running.append(run)
            time.sleep(POLL)
    finally:
        stop(running)


def stop(running: list[Run]) -> None:
    """Pass Ctrl-C on: at the first a training writes its checkpoint, at the second it stops at once."""
    for run in running:
        run.process.send_signal(signal.SIGINT)
    try:
        for run in running:
            run.process.wait()
            run.note(None)
    except KeyboardInterrupt:
        stop(running)
