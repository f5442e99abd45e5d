"""Servers under load: `asrtool serve`, and sherpa-onnx's C++ server, with their CPU time and memory (Linux)."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

from asrtool.errors import AsrtoolError

START_SECONDS = 180.0  # a large graph is read in this time
STOP_SECONDS = 15.0
IDLE_CORES = 0.1  # a server that uses less computes nothing
IDLE_WAIT = 15.0  # seconds; after an overload a server may work on audio that nobody waits for
SHERPA_LOOP_MS = 5  # how often sherpa-onnx's server looks for streams with a chunk
SHERPA_COMMAND = "sherpa-onnx-online-websocket-server"


class Usage(NamedTuple):
    """What a server and its child processes have used: CPU seconds, and resident memory in bytes.

    Memory that processes share is counted once (proportional set size).
    """

    cpu_seconds: float
    memory_bytes: int


@dataclass
class RunningServer:
    """A server process that listens on a port of 127.0.0.1. protocol: its name in load_clients.py."""

    process: subprocess.Popen
    protocol: str
    port: int

    @property
    def url(self) -> str:
        """The address of its live streams."""
        return f"ws://127.0.0.1:{self.port}/{'v1/stream' if self.protocol == 'asrtool' else ''}"

    def usage(self) -> Usage:
        """Returns what the server has used so far."""
        server = psutil.Process(self.process.pid)
        cpu, memory = 0.0, 0
        for process in [server, *server.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):  # a child that has ended meanwhile
                cpu += sum(process.cpu_times()[:4])  # of itself, and of its children that have ended
                memory += process.memory_full_info().pss
        return Usage(cpu, memory)

    def metrics(self) -> dict[str, float]:
        """Returns the values without labels of /metrics; none for a server that has none."""
        if self.protocol != "asrtool":
            return {}
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        rows = (line.split() for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in rows if "{" not in name}

    def wait_until_idle(self) -> None:
        """Waits until the server computes nothing, at most IDLE_WAIT."""
        deadline = time.monotonic() + IDLE_WAIT
        before = self.usage().cpu_seconds
        while time.monotonic() < deadline:
            time.sleep(0.5)
            now = self.usage().cpu_seconds
            if now - before < 0.5 * IDLE_CORES:
                return
            before = now


def asrtool_options(threads: int, batch: int, streams: int, search: Sequence[str]) -> list[str]:
    """Returns the options of `asrtool serve` for this many threads, streams in a step and streams at a time."""
    limits = [f"max_batch={batch}", f"max_connections={2 * streams + 100}"]
    limited = [word for limit in limits for word in ("--limit", limit)]
    return [
        *("--threads", str(threads), "--max-streams", str(streams), "--upload-workers", "0", "--device", "cpu"),
        *("--quiet", *limited, *search),
    ]


def sherpa_options(export: Path, facts: dict, threads: str, batch: int) -> list[str]:
    """Returns the options of sherpa-onnx's server for the folder of an export and its facts.

    threads: those for streams and those of the model, as "2,1".
    """
    work, model = threads.split(",")
    options = [
        f"--zipformer2-ctc-model={export / 'streaming.onnx'}",
        f"--tokens={export / 'tokens.txt'}",
        f"--feat-dim={facts['features']['num_filters']}",
        f"--end-tail-padding={facts['sherpa_onnx']['tail_padding_seconds']}",
        f"--num-work-threads={work}",
        f"--num-threads={model}",
        f"--max-batch-size={batch}",
        f"--loop-interval-ms={SHERPA_LOOP_MS}",
    ]
    graph = export / "HLG.fst"
    return [*options, f"--ctc-graph={graph}"] if graph.exists() else options


@contextlib.contextmanager
def asrtool_server(folder: Path, log: Path, options: Sequence[str]) -> Iterator[RunningServer]:
    """Runs `asrtool serve`; `folder` is the experiment or pack. Raises AsrtoolError if it does not start."""
    port = _free_port()
    command = [sys.executable, "-m", "asrtool", "serve", str(folder), "--port", str(port), *options]
    with _running(command, "asrtool", port, log) as server:
        yield server


@contextlib.contextmanager
def sherpa_server(log: Path, options: Sequence[str]) -> Iterator[RunningServer]:
    """Runs sherpa-onnx's server. Raises AsrtoolError if it does not start."""
    binary = sherpa_binary() or SHERPA_COMMAND
    port = _free_port()
    command = [str(binary), f"--port={port}", f"--log-file={log.with_suffix('.connections')}", *options]
    with _running(command, "sherpa-onnx", port, log) as server:
        yield server


def sherpa_binary() -> Path | None:
    """Returns the server of the wheel sherpa-onnx-bin, None where it is not installed."""
    beside = Path(sys.executable).parent / SHERPA_COMMAND
    found = str(beside) if beside.exists() else shutil.which(SHERPA_COMMAND)
    return Path(found) if found else None


@contextlib.contextmanager
def _running(command: list[str], protocol: str, port: int, log: Path) -> Iterator[RunningServer]:
    """Starts a server, waits until it listens, and stops it and its children at the end."""
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        _wait_for_port(process, command, port, log)
        yield RunningServer(process, protocol, port)
    finally:
        _stop(process)


def _stop(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # the group is the server and its children
        process.wait()


def _wait_for_port(process: subprocess.Popen, command: list[str], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.2)
    lines = log.read_text(errors="replace").strip().splitlines()[-3:] or ["no output"]
    raise AsrtoolError(f"the server did not start: {' '.join(command)}: {' / '.join(lines)}")


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port
