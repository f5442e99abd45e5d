"""Commands of asrtool as processes of their own, which can be starved, interrupted and killed (server.py)."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE = 90  # seconds for a command of a second or two, on a machine that has other work
KILLED = -signal.SIGKILL


@dataclass(frozen=True)
class Finished:
    """The end of a command: its exit status (negative: the signal), its output, and its peak memory in bytes."""

    status: int
    printed: str
    peak: int

    @property
    def errors(self) -> list[str]:
        """The lines of the output that report an error."""
        return [line for line in self.printed.splitlines() if line.startswith("asrtool: error: ")]

    def refused(self, *words: str) -> bool:
        """Returns True if it ended with exit status 2, one error line that has all `words`, and no traceback."""
        fits = len(self.errors) == 1 and all(word in self.errors[0] for word in words)
        return self.status == 2 and fits and "Traceback" not in self.printed


@cache
def _server() -> subprocess.Popen:
    """Returns the process that forks commands, one for all tests of this process; it ends with this process."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.faults.server"]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    )


def _ask(**request: object) -> int | None:
    server = _server()
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    return json.loads(server.stdout.readline())


class Command:
    """A running `asrtool ARGUMENTS`. `before` is a function of limits.py, and its values, that it calls first."""

    def __init__(self, folder: Path, *arguments: object, before: tuple | None = None):
        self.log = folder / f"command-{uuid.uuid4().hex[:8]}.log"
        named = before and (before[0], before[1:])
        self.pid = _ask(arguments=[str(argument) for argument in arguments], log=str(self.log), before=named)
        self.status: int | None = None

    @property
    def ended(self) -> bool:
        """True if the command has ended."""
        self.status = _ask(wait=self.pid) if self.status is None else self.status
        return self.status is not None

    @property
    def printed(self) -> str:
        """The output so far."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def wait(self, seconds: float = PATIENCE) -> Finished:
        """Waits for the end; AssertionError, with all its processes killed, if it does not end in time."""
        if not until(lambda: self.ended, seconds):
            for pid in [self.pid, *children(self.pid)]:
                os.kill(pid, signal.SIGKILL)
            until(lambda: self.ended, seconds)
            raise AssertionError(f"no end after {seconds} s: {self.printed[-2000:]}")
        peak = Path(f"{self.log}.peak")
        return Finished(self.status, self.printed, 1024 * int(peak.read_text()) if peak.exists() else 0)

    def signal(self, number: int = signal.SIGKILL) -> None:
        """Sends a signal unless the command has ended."""
        if not self.ended:
            os.kill(self.pid, number)


def run(folder: Path, *arguments: object, before: tuple | None = None) -> Finished:
    """Runs a command to its end; its output goes to a file in `folder`."""
    return Command(folder, *arguments, before=before).wait()


def children(pid: int) -> list[int]:
    """Returns the child processes of `pid`, and their child processes."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (parent := _parent(entry)) is not None:
            parents.setdefault(parent, []).append(int(entry.name))
    waiting = [pid]
    descendants: list[int] = []
    while waiting:
        own_children = parents.get(waiting.pop(), [])
        descendants += own_children
        waiting += own_children
    return descendants


def _parent(entry: Path) -> int | None:
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return None  # it has ended meanwhile


def alive(pid: int) -> bool:
    """Returns True if a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (OSError, IndexError):
        return False


def until(holds: Callable[[], object], seconds: float = PATIENCE) -> bool:
    """Waits until `holds` returns true; returns False if it does not in time."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def temporary(folder: Path) -> list[Path]:
    """Returns the temporary files below `folder`."""
    return [path for path in folder.rglob("*") if path.name.startswith(".tmp-")]


def contents(folder: Path, *patterns: str) -> dict[str, bytes]:
    """Returns the bytes of the files below `folder` that match one of `patterns`, by name."""
    paths: Iterator[Path] = (path for pattern in patterns for path in folder.rglob(pattern) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
