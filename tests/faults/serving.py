"""A server as a process that is attacked, what it holds, and a stream that must stay right meanwhile."""

import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.faults.commands import ROOT, alive, children, until
from tests.serve.page.tones import spoken, train_tone_system
from tests.serve.running import WAIT, finals, http, metric, open_stream, pcm16, receive_all, start
from tests.tiny import RATE, WORDS

SHORT_LIMITS = {  # seconds, for clients that are slow on purpose
    **{"start_seconds": 2, "idle_seconds": 8, "header_seconds": 2, "pause_seconds": 2, "body_seconds": 4},
    "send_seconds": 5,
}
# One arena, and freed memory goes back at once, so that the resident memory is what is used.
ALLOCATOR = {"MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_MMAP_THRESHOLD_": "65536"}


@functools.cache
def _trained(folder: Path) -> Path:
    return train_tone_system(folder)


@pytest.fixture(scope="session")
def tone_system(tmp_path_factory) -> Path:
    """A system that recognises tones without an error, trained once for all files that import this fixture."""
    folder = tmp_path_factory.getbasetemp() / "faults-tones"
    folder.mkdir(exist_ok=True)
    return _trained(folder)


@dataclass(frozen=True)
class Footprint:
    """What a server holds: resident memory in bytes, threads, open files and sockets, child processes."""

    memory: int
    threads: int
    files: int
    processes: int


class Server:
    """`asrtool serve` with its log in a file and temporary files in a folder of its own."""

    def __init__(
        self, model: Path, folder: Path, *options: object, limits: dict[str, object] | None = None, **env: str
    ):
        self.log_file = folder / "server.log"
        self.temporary = folder / "temporary"
        self.temporary.mkdir(exist_ok=True)
        changes = [f"--limit={name}={value}" for name, value in (limits or {}).items()]
        command = [sys.executable, "-m", "asrtool", "serve", model, "--port", "0", "--device", "cpu", "--vad", "none"]
        own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(self.temporary), **ALLOCATOR}
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [str(part) for part in [*command, "--method", "prefix", *changes, *options]],
                **{"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": log, "text": True},
                env={**os.environ, **own, **env},
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("listening on "), self.log
        self.url = line.removeprefix("listening on ").strip()
        self.port = int(self.url.rsplit(":", 1)[1])

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        processes = children(self.process.pid)
        self.process.kill()
        self.process.wait()
        assert until(lambda: not any(map(alive, processes))), "processes outlive a killed server"

    @property
    def log(self) -> str:
        """What was logged so far."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self.process.pid

    def end(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal; returns the exit status."""
        self.process.send_signal(number)
        return self.process.wait(WAIT)

    def processes(self, name: str) -> list[int]:
        """The child processes that run "uploads" or "search"."""
        found = []
        for pid in children(self.pid):
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            is_upload = b"spawn_main" in command
            if is_upload == (name == "uploads") and b"resource_tracker" not in command:
                found.append(pid)
        return found

    def footprint(self) -> Footprint:
        """Returns what the server holds now."""
        folder = Path(f"/proc/{self.pid}")
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        return Footprint(
            memory=1024 * int(status["VmRSS"].split()[0]),
            threads=int(status["Threads"]),
            files=len(list((folder / "fd").iterdir())),
            processes=len(children(self.pid)),
        )

    def is_idle(self) -> bool:
        """Returns True if no stream, upload or connection is left."""
        names = ("streams_active", "uploads_active", "uploads_waiting")
        return all(metric(self.url, f"asrtool_{name}") == 0 for name in names) and (
            metric(self.url, "asrtool_connections") <= 1  # the one that asks
        )

    def recognises(self) -> None:
        """Asserts that a stream and, if there are uploads, an upload have the right words."""
        words = ["two", "four", "one"]
        samples = spoken(words, 77)
        assert said(self.url, samples) == " ".join(words)
        answer = upload(self.url, samples)
        if "takes no uploads" not in answer.text:
            assert answer.status_code == 200 and answer.json()["text"] == " ".join(words), answer.text


def wav(samples: np.ndarray) -> bytes:
    """Returns a WAV file of 16 kHz."""
    import io

    import soundfile

    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV")
    return file.getvalue()


def upload(url: str, samples: np.ndarray, query: str = "format=json") -> Any:
    """Returns the answer to an upload."""
    with http(url) as client:
        return client.post(f"/v1/transcribe?{query}", content=wav(samples))


def said(url: str, samples: np.ndarray) -> str:
    """Returns the final words of a stream that is sent as fast as possible."""
    with open_stream(url) as socket:
        assert start(socket)["type"] == "ready"
        content = pcm16(samples)
        for begin in range(0, len(content), 3200):
            socket.send(content[begin : begin + 3200])
        socket.send('{"type": "end"}')
        messages = receive_all(socket)
        assert socket.close_code == 1000, messages
        return " ".join(message["text"] for message in finals(messages))


class GoodStream:
    """A client that speaks in real time until it is asked for its words.

    with GoodStream(url) as stream: ... asserts at the end that the server has recognised all that was said.
    """

    def __init__(self, url: str, seed: int = 1):
        self._draw = np.random.default_rng(seed)
        self._stop = threading.Event()
        self._connection = open_stream(url)
        self._socket = self._connection.__enter__()
        self.words: list[str] = []
        self.messages: list[dict[str, Any]] = []
        self._threads = [threading.Thread(target=target) for target in (self._send, self._receive)]
        self.slowest = 0.0  # seconds behind real time, at most

    def __enter__(self) -> "GoodStream":
        assert start(self._socket)["type"] == "ready"
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(WAIT)
        self._connection.__exit__(None, None, None)
        if kind is None:
            self.check()

    def check(self) -> None:
        """Asserts that the words are right and that the stream ended as it should."""
        texts = " ".join(message["text"] for message in self.messages if message["type"] == "final")
        assert self._socket.close_code == 1000, (self._socket.close_code, self.messages[-1:])
        assert self.words and texts == " ".join(self.words)

    def _send(self) -> None:
        begin, sent = time.monotonic(), 0
        while not self._stop.is_set():
            words = [str(word) for word in self._draw.choice(list(WORDS), 4)]
            content = pcm16(spoken(words, len(self.words) + 100, trail=1.5))
            self.words += words
            for first in range(0, len(content), 3200):  # 0.1 s
                self._socket.send(content[first : first + 3200])
                sent += 1
                time.sleep(max(0.0, begin + sent / 10 - time.monotonic()))
        self._socket.send('{"type": "end"}')

    def _receive(self) -> None:
        begin = time.monotonic()
        for text in self._socket:
            message = json.loads(text)
            self.messages.append(message)
            self.slowest = max(self.slowest, time.monotonic() - begin - message.get("end", 1e9))
