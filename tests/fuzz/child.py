"""The child process of a fuzzing run: reads one input after another, and reports to its parent through a pipe."""

import faulthandler
import io
import os
import resource
import signal
import sys
import time
import traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NoReturn

from asrtool.data.sources import InvalidEntry
from asrtool.errors import AsrtoolError, DataError
from tests.fuzz.driver import LONGEST, Driver, Inputs

SECONDS = 10  # of computation for one input; valid ones take milliseconds
MEMORY = 500 << 20  # bytes that an input may take beyond what the valid files took
# Bytes that a child may allocate beyond the addresses of the process that it is forked from, so that a finding does not
# exhaust the machine.
ADDRESSES = 6 << 30
SHELLS = {
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "pty.spawn",
    "subprocess.Popen",
}  # Python's audit events
NETWORK = {"socket.connect", "socket.bind", "socket.getaddrinfo", "urllib.Request"}
UNPICKLED = {"pickle.find_class"}


class Stopped(BaseException):
    """An input takes too long, or does something forbidden. It is not an Exception, so that no reader catches it."""


def run_inputs(inputs: Inputs, first: int, end: float, pipe: int) -> NoReturn:
    """Reads the valid files, then inputs from number `first` on until `end`, and exits."""
    status = 1
    try:
        restrict(inputs.driver, next(iter(inputs.originals)).parent)
        _silence()
        for path in inputs.originals:  # this also fills caches and imports, before memory is measured
            _report(pipe, "valid", path)
            _report_fault(pipe, inputs.driver, path)
        number = first
        while time.monotonic() < end:
            target, content = inputs.make(number)
            target.write_bytes(content)
            if inputs.driver.after_change:
                inputs.driver.after_change(target)
            _report(pipe, "read", number)
            before = _begin_peak()
            _report_fault(pipe, inputs.driver, target)
            if _kilobytes("VmHWM") - before > MEMORY >> 10:
                _report(pipe, "found", f"takes {MEMORY >> 20} MB and more")
            for path in {target, *(inputs.originals if inputs.driver.after_change else ())}:
                path.write_bytes(inputs.originals[path])
            number += 1
        _report(pipe, "end", "")
        status = 0
    except BaseException as error:
        _report(pipe, "found", f"the engine itself: {error!r}")
    os._exit(status)


def _report_fault(pipe: int, driver: Driver, path: Path) -> None:
    kind, _ = fault(driver, path)
    if kind:
        _report(pipe, "found", kind)


def restrict(driver: Driver, folder: Path) -> None:
    """Moves this process into `folder`, with limits: memory, no core files, no shells and no connections."""
    os.chdir(folder)
    faulthandler.disable()  # a signal is a finding, not a page of pytest's output
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    addresses = (_kilobytes("VmSize") << 10) + ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (addresses, addresses))
    signal.signal(signal.SIGPROF, _too_slow)
    forbidden = NETWORK | UNPICKLED | (set() if driver.spawns else SHELLS)

    def refuse(event: str, values: tuple) -> None:
        if event in forbidden and not (event == "subprocess.Popen" and values[0] == "git"):
            raise Stopped(f"reaches {event}")

    sys.addaudithook(refuse)


def _silence() -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):  # native libraries write where Python cannot redirect them
        os.dup2(nowhere, descriptor)


def _too_slow(*_: object) -> None:
    raise Stopped(f"takes more than {SECONDS} s")


def fault(driver: Driver, path: Path) -> tuple[str | None, BaseException | None]:
    """Returns the fault of the driver that reads `path`, None if there is none, and the exception that it raised."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            driver.read(path)
    except (AsrtoolError, InvalidEntry) as error:
        return _fault_of_message(error), error
    except BaseException as error:
        return f"{type(error).__name__}: {_place(error)}", error
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return "a shell has run" if Path("PWNED").exists() else None, None


def _fault_of_message(error: Exception) -> str | None:
    """Returns the fault of the message of an error that readers may raise."""
    lines = str(error).split("\n")
    if not lines[-1].strip():
        return f"a message without words: {_place(error)}"
    if len(lines) > 1 and not isinstance(error, DataError):
        return f"a message of several lines: {_place(error)}"
    if max(map(len, lines)) >= LONGEST:
        return f"a message of more than {LONGEST} characters: {_place(error)}"
    return None


def _place(error: BaseException) -> str:
    """Returns the innermost line of asrtool in a traceback."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "asrtool" in frame.filename.split("/")]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "outside of asrtool"


def _report(pipe: int, kind: str, value: object) -> None:
    text = " ".join(str(value).split())
    os.write(pipe, f"{kind}\t{text}".encode("utf-8", "replace")[:3000] + b"\n")


def _begin_peak() -> int:
    """Lets the kernel measure the peak memory from now on; returns the current memory, in kB."""
    Path("/proc/self/clear_refs").write_text("5")
    return _kilobytes("VmRSS")


def _kilobytes(name: str) -> int:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name))
