"""Run an experiment that is written down as arms x seeds, and write its table.

python tools/arms.py CLAIM.yaml --work exp/depth                                 # runs what is not done, prints a table
python tools/arms.py CLAIM.yaml --work exp/depth --results egs/yesno/README.md   # puts it there

CLAIM.yaml, where `conf` is relative to the file itself, and `set` and `options` are those of `asrtool train`:

  name: Depth-scaled initialisation           # the heading
  claim: "from 24 layers on, only depth-scaled initialisation trains"
  seeds: [1, 2, 3]
  conf: ../conf/transformer_24l.yaml
  set: [training.max_steps=300]               # of all arms
  threshold: 0.5                              # if given: at which step the dev loss was first below it
  arms:
    default: {set: [model.init.scheme=default]}
    deep: {set: [model.init.scheme=depth_scaled]}
    warm: {options: [--phase, warmup, --warmup-hours, 0.5]}
    many: {after: warm, processes: 8}         # torchrun, from WORK/warm/SEED/checkpoints/warmup.pt
  compare: [[deep, default]]                  # differences of the final dev losses, seed by seed

A run has the folder WORK/ARM/SEED; SEED.log is its output, SEED.json how it was started and ended. Ctrl-C lets each
training write its checkpoint, and the same command continues. A run that failed is a result: --retry-failed repeats it.
"""

import argparse
import fcntl
import json
import math
import os
import shlex
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import ConfigDict, Field, ValidationError, model_validator

from asrtool.config import Config, Count, Positive, Section, differences, load_config
from asrtool.errors import AsrtoolError, UserError, nearest, require_file
from asrtool.files import write_json, write_text
from asrtool.markdown import put, table
from asrtool.progress import say

POLL = 0.1  # seconds between looks at the trainings: nothing beside them
INTERRUPTED = (130, -signal.SIGINT)  # exit statuses of a training that was asked to stop: to be continued, no result


class Arm(Section):
    """What one arm does differently."""

    model_config = ConfigDict(coerce_numbers_to_str=True)
    set: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    processes: Positive = 1
    after: str | None = None


Name = Annotated[str, Field(pattern=r"^\w[\w.+-]*$")]  # a folder is called so


class Claim(Section):
    """A claim and the experiment about it."""

    name: Annotated[str, Field(pattern=r"^.+$")]
    claim: str
    seeds: Annotated[frozenset[Count], Field(min_length=1)]
    conf: Path
    set: tuple[str, ...] = ()
    threshold: float | None = None
    arms: Annotated[dict[Name, Arm], Field(min_length=1)]
    compare: tuple[tuple[str, str], ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> "Claim":
        for name in [*self.arms, *(name for pair in self.compare for name in pair)]:
            self.needed(name)
        return self

    def needed(self, name: str | None) -> list[str]:
        """An arm and those it comes after. Raises ValueError where there is no such arm, or no first one."""
        names: list[str] = []
        while name is not None:
            if name not in self.arms:
                raise ValueError(f"there is no arm '{name}' ({nearest(name, self.arms)})")
            if name in names:
                raise ValueError(f"arms wait for each other: {' after '.join([*names, name])}")
            names.append(name)
            name = self.arms[name].after
        return names


def load_claim(path: Path) -> Claim:
    """The claim in a YAML file. Raises UserError for whatever is wrong with it."""
    require_file(path, "claim", "give a YAML file as in --help")
    try:
        claim = Claim.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise UserError(f"{path}: {'; '.join(map(_explain, error.errors()))}") from error
    return claim.model_copy(update={"conf": (path.parent / claim.conf).resolve()})


def _explain(error: dict) -> str:
    where = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        valid = (Arm if error["loc"][0] == "arms" else Claim).model_fields
        return f"unknown key '{where}' ({nearest(str(error['loc'][-1]), valid)})"
    return f"{where}: {error['msg'].removeprefix('Value error, ')}".removeprefix(": ")


class Run:
    """An arm with a seed, in `folder`; the files beside it have its name and .log or .json.

    `outcome` is "finished", "diverged", "failed", or "" while there is something left to do; `seconds` are those of all
    its processes; `dev` has pairs of a step and its dev loss; `final` is the last of these, NaN where the run diverged,
    None where there is none that counts. Raises UserError where it was started with other settings.
    """

    def __init__(self, claim: Claim, name: str, seed: int, work: Path, threads: int):
        self.name, self.arm, self.seed, self.folder = name, claim.arms[name], seed, work / name / str(seed)
        settings = [*claim.set, *self.arm.set, f"seed={seed}"]
        config = load_config(claim.conf, settings)
        self.command = [*launcher(self.arm.processes), "train", str(claim.conf), "--exp", str(self.folder), "--resume"]
        self.command += ["--threads", str(threads), *(part for value in settings for part in ("--set", value))]
        if self.arm.after:
            self.command += ["--init-from", str(work / self.arm.after / str(seed) / "checkpoints" / "warmup.pt")]
        self.command += self.arm.options
        self.settings = {"config": config.model_dump(mode="json"), "arm": self.arm.model_dump(mode="json")}
        self.read()
        before = self.settings | self.record
        if differences(Config.model_validate(before["config"]), config) or before["arm"] != self.settings["arm"]:
            raise UserError(f"{self.folder} was run with other settings; give another --work, or remove {self.folder}*")

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
        self.final = self.dev[-1][1] if self.dev and self.outcome == "finished" else None
        self.final = math.nan if self.outcome == "diverged" else self.final

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
        say(f"{time.strftime('%H:%M:%S')} {self.name}, seed {self.seed}: started")

    def end(self) -> None:
        """Write down and say how the training ended."""
        self.note(None if self.process.returncode in INTERRUPTED else self.process.returncode)
        what = f"{self.outcome or 'interrupted'} after {self.seconds / 60:.1f} min"
        what += f", dev loss {self.dev[-1][1]:.4g}" if self.dev else ""
        what += f": {self.last_line()}" if self.outcome in ("failed", "diverged") else ""
        say(f"{time.strftime('%H:%M:%S')} {self.name}, seed {self.seed}: {what}")

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


def run_all(runs: list[Run], jobs: int, threads: int, directory: Path) -> None:
    """Run them, `jobs` at a time, each when the one that it comes after is over, well or not."""
    waiting, running = list(runs), []
    try:
        while waiting or running:
            for run in [run for run in running if run.process.poll() is not None]:
                running.remove(run)
                run.end()
            not_over = {(run.name, run.seed) for run in (*waiting, *running)}
            ready = [run for run in waiting if (run.arm.after, run.seed) not in not_over]
            for run in ready[: max(jobs, 1) - len(running)]:
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


def estimate(values: list[float]) -> str:
    """Mean and 95 % interval by Student's t, "0.41 [0.36, 0.46]", of the finite values, and how many are not."""
    from scipy.stats import t

    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return "diverged" if values else "-"
    mean, interval, lost = statistics.fmean(finite), "n/a", len(values) - len(finite)
    if len(finite) > 1:
        half = t.ppf(0.975, len(finite) - 1) * statistics.stdev(finite) / math.sqrt(len(finite))
        interval = f"{mean - half:.4g}, {mean + half:.4g}"
    return f"{mean:.4g} [{interval}]" + (f", {lost} diverged" if lost else "")


def arm_row(name: str, runs: list[Run], threshold: float | None) -> list[str]:
    """A line of the table: the runs of an arm."""
    over = [run for run in runs if run.outcome]
    finished = [run for run in over if run.outcome == "finished"]
    row = [f"`{name}`", f"{len(finished)} of {len(runs)}"]
    if not over:
        return row
    row += [f"{statistics.fmean(run.steps for run in over):.0f}", f"{statistics.fmean(run.hours for run in over):.2f}"]
    if threshold is not None:  # a run whose loss was never below it counts as later than all others
        below = [next((step for step, loss in run.dev if loss < threshold), math.inf) for run in over]
        median = f"{statistics.median(below):g}".replace("inf", "never")
        row.append(f"{median} ({sum(map(math.isfinite, below))} of {len(below)})")
    best = min((loss for run in over for _, loss in run.dev if math.isfinite(loss)), default=math.nan)
    row += [estimate([run.final for run in over if run.final is not None]), f"{best:.4g}".replace("nan", "-")]
    return [*row, str(len(over) - len(finished)), f"{statistics.fmean(run.seconds for run in over) / 60:.1f} min"]


def compare_row(pair: tuple[str, str], runs: list[Run], loss: int) -> list[str]:
    """A line of the table: the difference of two arms over the seeds where both have a loss, in column `loss`."""
    first, second = ({run.seed: run.final for run in runs if run.name == name} for name in pair)
    paired = [first[seed] - second[seed] for seed in first if None not in (first[seed], second[seed])]
    dashes = ["-"] * (loss - 2)
    return [f"`{pair[0]}` - `{pair[1]}`", f"{len(paired)} of {len(first)}", *dashes, estimate(paired)]


def section(claim: Claim, runs: list[Run], threads: int) -> str:
    """What there is to read about a claim, in Markdown."""
    import torch

    from asrtool.device import describe, pick_device

    torch.set_num_threads(threads)  # which `describe` names
    head = ["arm", "seeds finished", "steps", "hours of audio", "final dev loss", "best", "failed", "time"]
    head[4:4] = [] if claim.threshold is None else [f"dev loss below {claim.threshold:g} at step"]
    rows = [arm_row(name, [run for run in runs if run.name == name], claim.threshold) for name in claim.arms]
    rows += [compare_row(pair, runs, head.index("final dev loss")) for pair in claim.compare]
    failed = [run for run in runs if run.outcome in ("failed", "diverged")]
    parts = [
        f"## {claim.name}",
        f"Claim: {claim.claim}",
        table(head, rows),
        "\n".join(f"- `{run.name}`, seed {run.seed} {run.outcome}: {run.last_line()}" for run in failed),
        "Final dev loss: mean over seeds and its 95 % interval (Student's t); of differences, seed by seed. Steps,\n"
        "hours and time: means over runs that ended. First step below a loss: median. Best: the lowest of all seeds.",
        f"On {describe(pick_device())}:\n\n```\n{shlex.join(['python', *sys.argv])}\n```",
    ]
    return "\n\n".join(filter(None, parts))


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("claim", type=Path, metavar="CLAIM.yaml")
    parser.add_argument("--work", type=Path, required=True, help="folder of all runs")
    parser.add_argument("--results", type=Path, metavar="FILE.md", help="where the table goes instead of stdout")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of each process (%(default)s)")
    parser.add_argument("--only", metavar="ARM,..", help="run these, and what they come after; the table has all arms")
    parser.add_argument("--seeds", metavar="1,2,..", help="instead of those of the claim, in the table too")
    parser.add_argument("--retry-failed", action="store_true", help="run again what failed or diverged")
    text = "where the trainings run: there, relative paths of data.* in the configurations must resolve (here)"
    parser.add_argument("--chdir", type=Path, default=Path(), metavar="DIR", help=text)
    return parser


def run_claim(arguments: argparse.Namespace) -> None:
    """Check everything, run what is left to do, and write what there is by then, even if interrupted."""
    claim, work, threads = load_claim(arguments.claim), arguments.work.resolve(), arguments.threads
    if not arguments.chdir.is_dir():
        raise UserError(f"--chdir {arguments.chdir} is not a folder")
    try:
        seeds = sorted({int(seed) for seed in arguments.seeds.split(",")} if arguments.seeds else claim.seeds)
        wanted = {n for name in (arguments.only or ",".join(claim.arms)).split(",") for n in claim.needed(name)}
    except ValueError as error:
        raise UserError(f"--seeds or --only: {error}") from error
    runs = [Run(claim, name, seed, work, threads) for seed in seeds for name in claim.arms]  # early pairs to compare
    again = ("", "failed", "diverged") if arguments.retry_failed else ("",)
    left = [run for run in runs if run.name in wanted and run.outcome in again]
    try:
        run_all(left, arguments.jobs, threads, arguments.chdir)
    finally:
        made, results = section(claim, runs, threads), arguments.results
        if results:
            markers = (f"<!-- arms: {claim.name} {which} here -->" for which in ("from", "to"))
            write_text(results, put(results.read_text(encoding="utf-8") if results.is_file() else "", *markers, made))
        else:
            print(made)


def main() -> int:
    """Run and report; 2 for what the user did wrong, 130 after Ctrl-C."""
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a shell's background jobs start with it ignored
        signal.signal(number, signal.default_int_handler)
    try:
        run_claim(options().parse_args())
    except AsrtoolError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
