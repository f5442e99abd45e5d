"""Feeds changed files to a reader in a child process, and keeps the files that the reader mishandles.

A reader returns, or raises an AsrtoolError (or InvalidEntry) whose lines are short. Anything else is a finding: another
exception, a signal, a shell, a connection, or more time or memory than tests/fuzz/child.py allows. The engine is our
own because hypothesis generates values, not files, at a tenth of the speed, and because atheris measures the coverage
of Python code alone, while half of what can break here is native.
"""

import io
import os
import select
import signal
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.child import run_inputs
from tests.fuzz.driver import Driver, Inputs

WAIT = 60  # seconds of silence after which an input that does not compute counts as a hang, on a busy machine
FINDING = "finding.txt"  # next to the input: the folder where it was read, the fault, how to repeat it
MAX_FINDINGS = 20  # kinds, after which a driver stops


@dataclass
class Result:
    """The number of `inputs` that were read; `findings` has the file of one input for each kind of finding."""

    inputs: int = 0
    findings: dict[str, Path] = field(default_factory=dict)


def fuzz(driver: Driver, seconds: float, work: Path, kept: Path, seed: int = 1) -> Result:
    """Fuzzes with `driver` for `seconds`, in the new folder `work`; inputs of findings go to the folder `kept`."""
    work.mkdir(parents=True)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        originals = {path.absolute(): path.read_bytes() for path in driver.seeds(work)}
    run = _Run(Inputs(driver, originals, seed), work, kept, time.monotonic() + seconds)
    first = 0
    while True:
        first = run.child_from(first)
        if time.monotonic() > run.end or len(run.result.findings) >= MAX_FINDINGS:
            return run.result


@dataclass
class _Run:
    inputs: Inputs
    work: Path
    kept: Path
    end: float  # of time.monotonic()
    result: Result = field(default_factory=Result)

    def child_from(self, first: int) -> int:
        """Runs one child from input number `first` until the end or its death; returns the number to continue with."""
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(reading)
            run_inputs(self.inputs, first, self.end, writing)
        os.close(writing)
        number, ended, valid = first, False, None
        with os.fdopen(reading, "rb", buffering=0) as pipe:
            while select.select([pipe], [], [], WAIT)[0] and (line := pipe.readline()):
                kind, value = line.decode().rstrip("\n").split("\t", 1)
                if kind == "found":
                    self.keep(value, number, valid)
                elif kind == "read":
                    number, valid, self.result.inputs = int(value), None, self.result.inputs + 1
                valid = Path(value) if kind == "valid" else valid
                ended = kind == "end"
        death = _end_of(child)
        if not ended:
            self.keep(death, number, valid)
        for path, content in self.inputs.originals.items():
            path.write_bytes(content)
        return number + (valid is None)

    def keep(self, kind: str, number: int, valid: Path | None) -> None:
        """Stores the input of a finding, one of each kind: number `number`, or a valid file."""
        kind = f"a valid file: {kind}" if valid else kind
        if kind in self.result.findings:
            return
        target, content = (valid, self.inputs.originals[valid]) if valid else self.inputs.make(number)
        path = self.kept / f"{self.inputs.driver.name}-{'valid' if valid else number}" / target.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        repeat = f"python3 -m tests.fuzz {self.inputs.driver.name} --repeat {path}"
        (path.parent / FINDING).write_text(f"{self.work}\n{kind}\n{repeat}\n", encoding="utf-8")
        self.result.findings[kind] = path


def _end_of(child: int) -> str:
    """Returns how a child ended that closed its pipe, or became silent; it is killed if it lives."""
    for _ in range(10):  # the pipe closes a moment before the process is gone
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            signalled = os.WIFSIGNALED(status)
            return f"ends by signal {os.WTERMSIG(status)}" if signalled else f"ends with {os.WEXITSTATUS(status)}"
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return f"hangs for {WAIT} s"
