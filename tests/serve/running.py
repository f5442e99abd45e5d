"""Servers for tests: on 127.0.0.1 with a free port, in a thread of this process or as a process; and their clients."""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from websockets.sync.client import ClientConnection, connect

from asrtool.serve.limits import Limits
from asrtool.serve.server import RunningServer, run_server
from asrtool.serve.settings import ServerSettings

ROOT = Path(__file__).parents[2]
WAIT = 120.0  # seconds until a test gives up
NO_UPLOADS = Limits(upload_workers=0)


@contextlib.contextmanager
def served(model: Path, method: str = "greedy", jobs: int = 1, **settings: Any) -> Iterator[RunningServer]:
    """Runs a server in a thread; it is drained at the end. settings: fields of ServerSettings."""
    arguments = {"path": model, "device": "cpu", "method": method, "vad": "none", "jobs": jobs}
    results: queue.Queue[RunningServer | BaseException | None] = queue.Queue()

    def run() -> None:
        try:
            run_server(ServerSettings(arguments, port=0, threads=1, **settings), results.put)
        except BaseException as error:
            results.put(error)
        else:
            results.put(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    running = results.get(timeout=WAIT)
    if isinstance(running, BaseException):
        raise running
    assert running is not None
    try:
        yield running
    finally:
        with contextlib.suppress(RuntimeError):  # the test has stopped it
            running.stop()
        failure = results.get(timeout=WAIT)
        thread.join(WAIT)
        assert failure is None and not thread.is_alive()


class ServerProcess:
    """`asrtool serve` as a process of its own. `lines` collects what it logs."""

    def __init__(self, model: Path, *options: str, environment: dict[str, str] | None = None):
        command = [sys.executable, "-m", "asrtool", "serve", str(model), "--port", "0", "--method", "greedy", *options]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **(environment or {})},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("listening on "), self.process.communicate()[1]
        self.url = line.removeprefix("listening on ").strip()

    def wait(self) -> tuple[int, str]:
        """Returns the exit status, and what was logged."""
        log = self.process.communicate(timeout=WAIT)[1]
        return self.process.returncode, log

    def __enter__(self) -> "ServerProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def open_stream(url: str, **options: Any) -> ClientConnection:
    """Returns a connection to /v1/stream; options: of websockets."""
    address = url.replace("http", "ws", 1) + "/v1/stream"
    return connect(address, max_size=None, open_timeout=WAIT, close_timeout=10, proxy=None, **options)


def start(socket: ClientConnection, **fields: Any) -> dict[str, Any]:
    """Sends the start message; returns the answer."""
    socket.send(json.dumps({"type": "start", **fields}))
    return receive(socket)


def receive(socket: ClientConnection) -> dict[str, Any]:
    """Returns the next message."""
    message: dict[str, Any] = json.loads(socket.recv(timeout=WAIT))
    return message


def receive_all(socket: ClientConnection) -> list[dict[str, Any]]:
    """Returns all messages until the server closes; `socket.close_code` is known then."""
    messages = []
    with contextlib.suppress(Exception):
        while True:
            messages.append(receive(socket))
    assert socket.close_code is not None
    return messages


def speak(url: str, content: bytes, piece: int = 6400, options: dict[str, Any] | None = None, **fields: Any) -> Any:
    """Streams raw audio in pieces of so many bytes; returns all messages."""
    with open_stream(url, **(options or {})) as socket:
        messages = [start(socket, **fields)]
        for begin in range(0, len(content), piece):
            socket.send(content[begin : begin + piece])
        socket.send('{"type": "end"}')
        messages += receive_all(socket)
        assert socket.close_code == 1000, messages[-1]
        return messages


def finals(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the final results."""
    return [message for message in messages if message["type"] == "final"]


def word_rows(results: Sequence[Any]) -> list[list[tuple[Any, ...]]]:
    """Returns the words of final messages, or of StreamResults, with times and confidence."""
    rows = []
    for result in results:
        words = result["words"] if isinstance(result, dict) else [vars(word) for word in result.words]
        rows.append([(word["text"], word["start"], word["end"], word["confidence"]) for word in words])
    return rows


def pcm16(samples: np.ndarray) -> bytes:
    """Returns samples in -1 .. 1 as 16-bit PCM."""
    return np.round(32767 * samples).astype("<i2").tobytes()


def http(url: str, **options: Any) -> httpx.Client:
    """Returns a client of HTTP."""
    return httpx.Client(base_url=url, timeout=WAIT, trust_env=False, **options)


def metric(url: str, name: str) -> float:
    """Returns the value of a metric, with its labels as in `asrtool_streams_total{outcome="finished"}`; 0 if absent."""
    with http(url) as client:
        for line in client.get("/metrics").text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[-1])
    return 0.0
