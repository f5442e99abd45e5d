"""Runs the benchmarks that need a GPU, one after the other, within one limit of time; called by gpu.sh.

Each part runs in a process of its own: an error on the GPU, or a part that takes too long, ends that part alone. A
summary says what ran, what failed and why, and what was left out. The exit status is 1 if a part failed.
"""

import argparse
import importlib
import importlib.util
import json
import multiprocessing
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "egs" / "librispeech" / "conf"
LIMIT = 640.0  # seconds for all parts: eleven minutes with the start
QUICK_LIMIT = 600.0  # seconds for a part with --quick, which takes a few: its machine may be busy
STREAMING = [str(CONF / f"{name}.yaml") for name in ("transformer_xl_12l", "transformer_12l_chunk")]


class Part(NamedTuple):
    """A benchmark script with its options, or a command."""

    name: str
    limit: float  # seconds
    options: list[str] = []
    quick: list[str] = []  # options with --quick, besides --quick itself
    script: str = ""  # module in this folder
    command: Callable[[Path], list[str]] | None = None
    needs: tuple[str, ...] = ()  # packages without which the part is left out
    wishes: tuple[str, ...] = ()  # packages without which a row of it is left out


PARTS = [
    Part(
        "tests",
        60,
        command=lambda _: [sys.executable, "-m", "pytest", "-q", *GPU_TESTS],
        needs=("pytest", "hypothesis"),
    ),
    Part("steps", 210, script="gpu_steps", wishes=("triton",)),
    Part("depth", 100, script="gpu_depth"),
    Part("objectives", 80, ["--device", "cuda"], ["--memory-frames"], "objectives", wishes=("k2",)),
    Part("decoding", 40, script="gpu_decoding"),
    Part("streaming", 50, [*STREAMING, "--device", "cuda", "--repeats", "5"], script="streaming"),
    Part(
        "digits",
        200,
        command=lambda out: ["bash", str(ROOT / "egs/digits/run.sh"), "--work", str(out / "digits"), "--jobs", JOBS],
        needs=("espeakng_loader",),
    ),
]
GPU_TESTS = [str(ROOT / "tests" / "objectives" / "test_cuda_graphs.py")]
JOBS = str(os.cpu_count() or 2)
ONLY_IN_FULL = {"tests", "digits"}  # minutes on a CPU, and run by other tests


class Outcome(NamedTuple):
    """The result of a part."""

    part: str
    state: str  # "done", "failed" or "left out"
    seconds: float
    reason: str = ""


def main() -> int:
    """Runs the parts, and prints and writes the summary; returns the exit status."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("out", type=Path, help="folder for the figures")
    options.add_argument("--quick", action="store_true", help="tiny sizes, to test that all of it runs")
    options.add_argument(
        "--parts", nargs="+", choices=[part.name for part in PARTS], help="parts to run [default: all]"
    )
    arguments = options.parse_args()
    if not arguments.quick and not torch.cuda.is_available():
        print("no GPU: torch.cuda.is_available() is False; --quick tests the scripts without one")
        return 2
    start = time.monotonic()
    outcomes = []
    for part in PARTS:
        if arguments.parts and part.name not in arguments.parts:
            continue
        print(f"\n== {part.name}", flush=True)
        outcome = run_part(part, arguments.out, arguments.quick, LIMIT - (time.monotonic() - start))
        outcomes.append(outcome)
    print(f"\n== summary: {device_name()}, torch {torch.__version__}, {time.monotonic() - start:.0f} s")
    for outcome in outcomes:
        reason = f": {outcome.reason}" if outcome.reason else ""
        print(f"{outcome.part}: {outcome.state} in {outcome.seconds:.0f} s{reason}")
    rows = [outcome._asdict() for outcome in outcomes]
    (arguments.out / "summary.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return int(any(outcome.state == "failed" for outcome in outcomes))


def device_name() -> str:
    """The GPU, or that there is none."""
    return "no GPU" if not torch.cuda.is_available() else torch.cuda.get_device_name()


def run_part(part: Part, out: Path, quick: bool, seconds_left: float) -> Outcome:
    """Runs one part, unless something that it needs is missing."""
    missing = [name for name in part.needs if not importlib.util.find_spec(name)]
    for name in part.wishes:
        if not importlib.util.find_spec(name):
            print(f"{name} is not installed: what is compared with it or made with it is left out")
    if missing:
        return Outcome(part.name, "left out", 0, f"{', '.join(missing)} is not installed")
    if quick and part.name in ONLY_IN_FULL:
        return Outcome(part.name, "left out", 0, "not with --quick")
    limit = QUICK_LIMIT if quick else min(part.limit, seconds_left)
    if limit < 5:
        return Outcome(part.name, "left out", 0, "no time left")
    start = time.monotonic()
    if part.command:
        problem = run_command(part.command(out), limit)
    elif quick:
        problem = run_forked(part, ["--quick", *part.quick, "--json", str(out / f"{part.name}.json")], limit)
    else:
        options = [*part.options, "--json", str(out / f"{part.name}.json")]
        problem = run_command([sys.executable, script_of(part), *options], limit)
    return Outcome(part.name, "failed" if problem else "done", time.monotonic() - start, problem)


def run_command(command: list[str], limit: float) -> str:
    """Runs a command; returns what went wrong."""
    try:
        done = subprocess.run(command, timeout=limit, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return f"stopped after {limit:.0f} s"
    return f"exit status {done.returncode}" if done.returncode else ""


def script_of(part: Part) -> str:
    """The script of a part."""
    return str(Path(__file__).with_name(f"{part.script}.py"))


def run_forked(part: Part, options: list[str], limit: float) -> str:
    """Runs a script in a process that has imported torch already; returns what went wrong.

    For tests: with --quick the imports would take longer than the rest. This process must not have used a GPU.
    """
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_run_main, args=(part, options))
    process.start()
    process.join(limit)
    if process.is_alive():
        process.kill()
        process.join()
        return f"stopped after {limit:.0f} s"
    return f"exit status {process.exitcode}" if process.exitcode else ""


def _run_main(part: Part, options: list[str]) -> None:
    sys.argv = [script_of(part), *options]
    try:
        sys.exit(importlib.import_module(part.script).main())
    except Exception:
        traceback.print_exc(limit=-8)
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
