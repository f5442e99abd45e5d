"""Loads on a server: a number of streams in real time, a growing number of them, and many short connections."""

import json
import math
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from load_delays import (
    ChunkTiming,
    LoadFigures,
    Message,
    Words,
    asrtool_messages,
    overload_time,
    percentiles_ms,
    sherpa_messages,
    stream_delays,
    why_not_held,
)
from load_models import Speech, words_of_stream
from load_servers import RunningServer

from asrtool.errors import AsrtoolError

CLIENTS = Path(__file__).with_name("load_clients.py")
# sherpa-onnx's rules for the end of an utterance, for both servers, in the notation of `asrtool stream --endpoint`
ENDPOINT = ["trailing=2.4", "words,trailing=1.2", "length=20"]
WARM_UP = 3.0  # seconds, at the beginning of a stream, whose chunks do not count
GRACE = 10.0  # seconds for the last results
RAMP_END = 3.0  # seconds for which the last stream of a growing load goes on
REACTION = 1.0  # seconds from an overload until it is seen in the delays of the last second
TIMEOUT = 300.0  # seconds for the clients, beyond the duration of the load
MEMORY_SAMPLE = 0.8  # of the duration of a load


class Load(NamedTuple):
    """What all loads have in common.

    audio: the samples of `speech` as .npy. words: those in it, with their ends, which come from `source`. packet:
    seconds of audio in a message. limit: of the delay of a chunk, in seconds. symbols: words of sherpa-onnx's graph.
    """

    speech: Speech
    audio: Path
    words: Words
    source: str
    timing: ChunkTiming
    packet: float
    limit: float
    symbols: Sequence[str] = ()
    seed: int = 1

    def with_symbols(self, path: Path) -> "Load":
        """Adds the words of a graph, line by line with their numbers, if there is one."""
        if not path.exists():
            return self
        rows = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
        symbols = {int(number): word for word, number in rows}
        return self._replace(symbols=[symbols.get(number, "") for number in range(max(symbols) + 1)])


def hold(server: RunningServer, load: Load, streams: int, seconds: float, idle_memory: int) -> LoadFigures:
    """Sends `streams` streams for `seconds`, beginning at random within a second, and returns the figures."""
    rng = random.Random(load.seed)
    plan = [_stream(rng, load, rng.random(), seconds) for _ in range(streams)]
    before, metrics = server.usage(), server.metrics()
    memory: list[int] = []
    sampler = threading.Timer(MEMORY_SAMPLE * seconds + 1, lambda: memory.append(server.usage().memory_bytes))
    sampler.start()
    try:
        done = run_clients(server, load, {"streams": plan, "grace_seconds": GRACE}, seconds)
    finally:
        sampler.cancel()
        sampler.join()
    after = {name: value - metrics.get(name, 0) for name, value in server.metrics().items()}
    cpu = server.usage().cpu_seconds - before.cpu_seconds
    delays = [
        stream_delays(
            noted, messages_of(server, noted, load), load.packet, min(WARM_UP, seconds / 3), _words(load, one)
        )
        for noted, one in zip(done["streams"], plan, strict=True)
    ]
    steps = after.get("asrtool_steps_total", math.nan) or math.nan
    used = max(memory, default=before.memory_bytes)
    return LoadFigures(
        streams=streams,
        reason=why_not_held(done["streams"], delays, load.timing, load.limit),
        chunks=sum(len(stream.chunks) for stream in delays),
        delay=percentiles_ms([delay for stream in delays for _, delay in stream.chunks]),
        words=sum(len(stream.first) for stream in delays),
        first=percentiles_ms([delay for stream in delays for delay in stream.first]),
        settled=percentiles_ms([delay for stream in delays for delay in stream.settled]),
        compute=percentiles_ms([seconds for stream in delays for seconds in stream.compute]),
        cpu_ms=1000 * cpu / max(1, sum(stream.results for stream in delays)),
        step_streams=after.get("asrtool_step_streams_total", math.nan) / steps,
        step_ms=1000 * after.get("asrtool_step_seconds_total", math.nan) / steps,
        server_cores=cpu / done["wall_seconds"],
        client_cores=done["cpu_seconds"] / done["wall_seconds"],
        late=percentiles_ms([late for noted in done["streams"] for late in noted["late_seconds"]]),
        memory_mb=used / 1e6,
        memory_mb_per_stream=(used - idle_memory) / 1e6 / streams,
    )


def ramp(server: RunningServer, load: Load, first: int, factor: float, seconds: float) -> int:
    """Returns about how many streams a server holds: of a load that grows evenly, by `factor`, from `first` streams.

    All of them, if none were too many.
    """
    rng = random.Random(load.seed)
    total = round(first * factor)
    starts = [seconds * math.log(max(1.0, (number + 1) / first)) / math.log(factor) for number in range(total)]
    plan = [_stream(rng, load, start + rng.random() * 0.5, seconds + RAMP_END - start) for start in starts]
    done = run_clients(server, load, {"streams": plan, "grace_seconds": 0}, seconds)
    delays = [stream_delays(noted, messages_of(server, noted, load), load.packet, 0.0, []) for noted in done["streams"]]
    time = overload_time(delays, [stream["start"] for stream in plan], load.limit) - REACTION
    return max(1, int(np.searchsorted(starts, time)))


def _stream(rng: random.Random, load: Load, start: float, seconds: float) -> dict:
    return {"start": start, "offset": rng.randrange(len(load.speech.samples)), "seconds": seconds}


def _words(load: Load, stream: dict) -> Words:
    return words_of_stream(load.words, load.speech, stream["offset"], stream["seconds"]) if load.words else []


def short_connections(server: RunningServer, load: Load, count: int, at_once: int) -> list[str]:
    """Opens `count` connections with a packet of audio each, `at_once` at a time; returns the errors."""
    job = {"short": count, "at_once": at_once, "grace_seconds": GRACE}
    errors: list[str] = run_clients(server, load, job, count)["streams"][0]["errors"]
    return errors


def run_clients(server: RunningServer, load: Load, job: dict, seconds: float) -> dict:
    """Runs a job in a process of load_clients.py, and returns its result."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        job = job | {"protocol": server.protocol, "url": server.url, "out": str(out), "endpoint": ENDPOINT}
        job |= {"audio": str(load.audio), "rate": load.speech.rate, "packet_seconds": load.packet}
        command = [sys.executable, str(CLIENTS)]
        done = subprocess.run(
            command, input=json.dumps(job), text=True, stderr=subprocess.PIPE, timeout=seconds + TIMEOUT
        )
        if done.returncode:
            raise AsrtoolError(f"the clients failed: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")
        result: dict = json.loads(out.read_text(encoding="utf-8"))
        return result


def messages_of(server: RunningServer, noted: dict, load: Load) -> list[Message]:
    """Returns the results of one stream."""
    if server.protocol == "asrtool":
        return list(asrtool_messages(noted, load.timing))
    return list(sherpa_messages(noted, load.timing, load.symbols))
