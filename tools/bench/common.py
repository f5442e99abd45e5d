"""Shared parts of the benchmarks: options, timing in turns, facts about the machine, the table and the JSON file.

A machine is never quite idle, and its clock speed changes. So candidates run in turns (A B A B), and ratios are
computed for each turn. Look at the spread of a ratio before its median.
"""

import argparse
import json
import math
import os
import platform
import resource
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

CHECKOUT = Path(__file__).resolve().parents[2]
MINIMUM_TURN = 0.05  # seconds; faster calls are repeated within a turn, so that a delay of 1 ms is 2 %
PACKAGES = ("torch", "lhotse", "numpy", "soundfile", "lilcom", "kaldi-native-fbank", "click")


class Run(NamedTuple):
    """A candidate to time: `call` does `amount` of work, in the unit of its report."""

    name: str
    call: Callable[[], object]
    amount: float = 1.0


def parser(description: str, repeats: int, limit: float = 60.0) -> argparse.ArgumentParser:
    """Returns a parser with the options of all benchmarks; `description` explains what is compared with what."""
    command_line = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command_line.add_argument(
        "--json", metavar="FILE", help="file for the figures; '-' is stdout, and the table goes to stderr"
    )
    command_line.add_argument(
        "--quick", action="store_true", help="tiny sizes, to test that the benchmark runs; the figures mean nothing"
    )
    command_line.add_argument(
        "--repeats",
        type=int,
        default=repeats,
        help="number of turns of each candidate; 0: the warm-up counts, for runs of minutes [default: %(default)s]",
    )
    text = "seconds after which a comparison gets no further turn [default: %(default)g]"
    command_line.add_argument("--limit", type=float, default=limit, help=text)
    return command_line


def parse(command_line: argparse.ArgumentParser, **quick) -> argparse.Namespace:
    """Returns the options of the command line; --quick replaces the defaults by `quick`, but no given option."""
    if command_line.parse_args().quick:
        command_line.set_defaults(repeats=1, **quick)
    return command_line.parse_args()


def in_turns(
    runs: Sequence[Run], repeats: int, quick: bool = False, limit: float = 60.0
) -> list[tuple[list[float], list[float]]]:
    """Returns wall and CPU seconds of each turn of each run, in turns A B A B after one warm-up; at least one turn.

    With `repeats` = 0 the warm-up is the only turn.
    """
    loops, start = [], time.perf_counter()
    warm_ups = [_clock(run.call, 1) for run in runs]
    if repeats == 0:
        return [([wall], [cpu]) for wall, cpu in warm_ups]
    for wall, _ in warm_ups:
        loops.append(1 if quick else max(1, math.ceil(MINIMUM_TURN / max(wall, 1e-9))))
    times: list[tuple[list[float], list[float]]] = [([], []) for _ in runs]
    for turn in range(repeats):
        if turn and time.perf_counter() - start > limit:
            break
        for run, count, (walls, cpus) in zip(runs, loops, times, strict=True):
            wall, cpu = _clock(run.call, count)
            walls.append(wall)
            cpus.append(cpu)
    return times


def _clock(call: Callable[[], object], count: int) -> tuple[float, float]:
    """Returns mean wall and CPU seconds of `count` calls; CPU time includes child processes that ended meanwhile."""
    cpu, wall = _cpu_seconds(), time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - wall) / count, (_cpu_seconds() - cpu) / count


def _cpu_seconds() -> float:
    used = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def environment(device: str = "cpu") -> dict:
    """Returns facts about machine and software. Call it after the number of threads is set."""
    import torch

    import asrtool
    from asrtool.device import describe_device, pick_device
    from asrtool.machine import usable_cores

    return {
        "command": command_of_this_process(),
        "device": describe_device(pick_device(device)),
        "threads": torch.get_num_threads(),
        "cores": usable_cores(),
        "load": round(os.getloadavg()[0], 2),  # of the last minute before the start: load by other processes
        "platform": platform.platform(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {"python": platform.python_version(), "asrtool": asrtool.__version__} | _versions(),
    }


def command_of_this_process() -> str:
    """Returns the command line that started this program, relative to the checkout and without --json."""
    program, *rest = sys.argv
    words = []
    while rest:
        word = rest.pop(0)
        if word == "--json":
            rest = rest[1:]
        elif not word.startswith("--json="):
            words.append(word)
    path = Path(program).resolve()
    shown = path.relative_to(CHECKOUT) if path.is_relative_to(CHECKOUT) else path.name
    return shlex.join(["python3", str(shown), *words])


def write_json(values: Any, destination: str | Path | None) -> None:
    """Writes the figures of a benchmark as JSON to a file, or to stdout for "-"; None writes nothing."""
    text = json.dumps(values, indent=1, default=str) + "\n"
    if str(destination) == "-":
        print(text, end="")
    elif destination:
        Path(destination).write_text(text, encoding="utf-8")


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


class Report:
    """The figures of one benchmark: printed as they are measured, written as JSON at the end.

    Columns: `median s`, wall time of a call; the rate in `unit`/s by wall time and by CPU time (sum over all threads
    and processes, so nearly independent of the load by other processes); `speed`, relative to the baseline: the median
    over the turns, with the lowest and the highest turn.
    """

    def __init__(self, name: str, arguments: argparse.Namespace, unit: str, device: str = "cpu", extra: Sequence = ()):
        self.arguments, self.unit, self.extra = arguments, unit, list(extra)
        self.out = sys.stderr if arguments.json == "-" else sys.stdout
        sizes = {key: value for key, value in vars(arguments).items() if key != "json"}
        self.values: dict = {"benchmark": name, **environment(device), "sizes": sizes, "unit": unit}
        self.values |= {"columns": self.extra, "rows": [], "facts": {}, "fact_baselines": {}, "aims": []}
        self._print_head()

    def _print_head(self) -> None:
        values = self.values
        versions = ", ".join(f"{name} {number}" for name, number in values["versions"].items())
        print(
            f"{values['benchmark']}: {values['device']}, {values['cores']} cores, load {values['load']}", file=self.out
        )
        print(f"{versions}\nsizes: {', '.join(f'{k} {v}' for k, v in values['sizes'].items())}\n", file=self.out)
        numbers = ["median s", f"{self.unit}/s", f"{self.unit}/CPU s", *self.extra, "speed", "(turns)"]
        print(_line("case", "what", numbers), file=self.out)

    def compare(self, case: str, runs: Sequence[Run], extra: Callable[[float], dict] | None = None, **labels) -> None:
        """Times `runs` in turns; the last one is the baseline. `extra(rate)` returns values of the extra columns."""
        times = in_turns(runs, self.arguments.repeats, self.arguments.quick, self.arguments.limit)
        baseline = [wall / runs[-1].amount for wall in times[-1][0]]
        for run, (walls, cpus) in zip(runs, times, strict=True):
            speeds = [base * run.amount / wall for base, wall in zip(baseline, walls, strict=True)]
            row = {"case": case, "what": run.name, "baseline": run is runs[-1], **labels}
            row |= _figures(run.amount, walls, cpus, speeds)
            row |= extra(row["rate"]) if extra else {}
            self.values["rows"].append(row)
            self._print_row(row)

    def _print_row(self, row: dict) -> None:
        numbers = [_short(row[key]) for key in ("seconds", "rate", "rate_cpu", *self.extra)]
        spread = "baseline" if row["baseline"] else f"({row['ratio_low']:.2f}-{row['ratio_high']:.2f})"
        print(_line(row["case"], row["what"], [*numbers, f"{row['ratio']:.2f}", spread]), file=self.out, flush=True)

    def rate(self, case: str, key: str = "rate", what: str | None = None) -> float:
        """Returns a figure of the row of `case` named `what`, by default of the first row."""
        rows = (row for row in self.values["rows"] if row["case"] == case)
        return next(row[key] for row in rows if what in (None, row["what"]))

    def fact(self, name: str, value, baseline: str = "") -> None:
        """Adds a figure that is not a time; `baseline` says what to compare it with."""
        self.values["facts"][name] = value
        if baseline:
            self.values["fact_baselines"][name] = baseline
        shown = _short(value) if isinstance(value, float) else value
        print(f"{name}: {shown}{f' ({baseline})' if baseline else ''}", file=self.out, flush=True)

    def aim(self, name: str, value: float, limit: float, at_most: bool = False) -> None:
        """Adds whether a figure reaches its aim. It does not change the exit status, which is for errors."""
        reached = value <= limit if at_most else value >= limit
        self.values["aims"].append({"name": name, "value": value, "limit": limit, "reached": reached})
        verdict = "reached" if reached else "missed"
        print(f"aim: {name} {'<=' if at_most else '>='} {limit:g}: {_short(value)}, {verdict}", file=self.out)

    def finish(self) -> None:
        """Writes the JSON file, if one was requested."""
        write_json(self.values, self.arguments.json)


def _figures(amount: float, walls: list[float], cpus: list[float], speeds: list[float]) -> dict:
    seconds, cpu = statistics.median(walls), statistics.median(cpus)
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "rate": amount / seconds,
        "rate_cpu": amount / max(cpu, 1e-9),
        "ratio": statistics.median(speeds),
        "ratio_low": min(speeds),
        "ratio_high": max(speeds),
        "turns": walls,
    }


def _line(case: str, what: str, numbers: Sequence[str]) -> str:
    return f"{case:34} {what:26} " + " ".join(f"{number:>13}" for number in numbers)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
