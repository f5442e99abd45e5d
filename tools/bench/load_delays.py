"""Figures of a load: the delays of chunks and words, from the messages that the clients of load_clients.py noted.

A chunk's delay is from the time at which its last audio was due until the server's result of it arrived. asrtool says
in `end` of a partial result how far it has recognised; sherpa-onnx sends one message for each chunk of a stream. A
word's delay is from its end in the audio until it first stood at its place in a result (first), and until neither it
nor a word before it changed any more (settled), by the messages that arrived.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from asrtool.streaming.latency import emission_delays
from asrtool.streaming.partial_hypothesis import EmissionTracker, WordEmission

PERCENTILES = (50, 95, 99)
Words = list[tuple[str, float]]  # text, and end in seconds from the start of the stream


class ChunkTiming(NamedTuple):
    """The chunks of a model, in seconds.

    chunk: their duration. ahead: the audio after the end of an output frame that it needs. window: the part of a
    feature window behind its frame, which a step needs after its last frame.
    """

    chunk: float
    ahead: float
    window: float


class Message(NamedTuple):
    """A result as it arrived: words of the utterance so far, seconds of audio that it needed, whether it is final.

    needed: 0 for a message that belongs to no new chunk.
    compute_seconds: the computing time of the stream so far, where the server says it.
    """

    time: float
    words: list[str]
    needed: float
    is_final: bool
    compute_seconds: float = math.nan


class StreamDelays(NamedTuple):
    """All delays of one stream in seconds.

    results: number of chunks with a result. chunks: (when the audio was due, delay) of those after the warm-up.
    """

    results: int
    chunks: list[tuple[float, float]]
    compute: list[float]
    first: list[float]
    settled: list[float]


def asrtool_messages(stream: dict[str, Any], timing: ChunkTiming) -> Iterator[Message]:
    """Yields the results of a stream of `asrtool serve`."""
    for arrival, text in stream["messages"]:
        message = json.loads(text)
        if message["type"] not in ("partial", "final"):
            continue
        words = [word["text"] for word in message["words"]]
        is_final = message["type"] == "final"
        needed = 0.0 if is_final else message["end"] + timing.ahead  # the partial result after it is that of the chunk
        yield Message(arrival, words, needed, is_final, message["compute_seconds"])


def sherpa_messages(stream: dict[str, Any], timing: ChunkTiming, symbols: Sequence[str] = ()) -> Iterator[Message]:
    """Yields the results of a stream of sherpa-onnx; `symbols` are the words of its graph, if it has one."""
    for number, (arrival, text) in enumerate(stream["messages"], 1):
        if text == "Done!":
            return
        message = json.loads(text)
        words = [symbols[word] for word in message["words"]] if symbols else message["text"].split()
        yield Message(arrival, words, number * timing.chunk + timing.window, message["is_final"])


def stream_delays(
    stream: dict[str, Any], messages: Sequence[Message], packet: float, warm_up: float, words: Words
) -> StreamDelays:
    """Returns the delays of a stream; chunks whose audio was due in the first `warm_up` seconds do not count."""
    chunks, compute, results, done, spent = [], [], 0, 0.0, 0.0
    for message in messages:
        due = packet * math.ceil(round(message.needed / packet, 6))  # the packet that completes the chunk
        if message.needed <= done:
            continue
        done = message.needed
        results += 1
        if warm_up <= due <= stream["sent_seconds"] + 1e-6:
            chunks.append((due, message.time - stream["start"] - due))
            compute.append(message.compute_seconds - spent)
        spent = message.compute_seconds
    delays = emission_delays(_emissions(messages, stream["start"]), words)
    return StreamDelays(results, chunks, compute, [first for first, _ in delays], [settled for _, settled in delays])


def _emissions(messages: Sequence[Message], start: float) -> list[WordEmission]:
    """Returns when each word of the stream appeared, in seconds from its start."""
    emissions: list[WordEmission] = []
    tracker = EmissionTracker()
    for message in messages:
        tracker.update(message.words, message.time - start)
        if message.is_final:
            emissions += tracker.emissions()
            tracker = EmissionTracker()
    return emissions


class LoadFigures(NamedTuple):
    """The figures of one load; delays and times in milliseconds, as percentiles 50, 95 and 99.

    reason: why the streams were not held in real time; empty if they were. chunks, words: how many have delays.
    compute: computing time of a chunk, its share of the step. cpu_ms: CPU time of the server for each chunk that has a
    result. step_streams, step_ms: streams in a step, and the mean computing time of a step, where the server says them.
    cores: CPU seconds in a second. late: of the packets.
    """

    streams: int
    reason: str
    chunks: int
    delay: list[float]
    words: int
    first: list[float]
    settled: list[float]
    compute: list[float]
    cpu_ms: float
    step_streams: float
    step_ms: float
    server_cores: float
    client_cores: float
    late: list[float]
    memory_mb: float
    memory_mb_per_stream: float


def percentiles_ms(seconds: Sequence[float]) -> list[float]:
    """Returns the percentiles in milliseconds; NaN without values."""
    values = [value for value in seconds if not math.isnan(value)]
    if not values:
        return [math.nan] * len(PERCENTILES)
    return [float(value) for value in 1000 * np.percentile(values, PERCENTILES)]


def why_not_held(streams: Sequence[dict], delays: Sequence[StreamDelays], timing: ChunkTiming, limit: float) -> str:
    """Returns why the streams were not held in real time, or nothing if they were.

    They are held if every stream has the results of all its chunks, the 99th percentile of the delays is at most
    `limit` seconds, and delays do not grow: their median in the second half is at most a quarter of a chunk longer than
    in the first half.
    """
    errors = [stream["error"] for stream in streams if stream["error"]]
    if errors:
        return f"{len(errors)} of {len(streams)} streams failed: {errors[0]}"
    lengths = [stream["sent_seconds"] for stream in streams]
    last = [stream.chunks[-1][0] if stream.chunks else 0.0 for stream in delays]
    if any(end < seconds - 2 * timing.chunk - timing.ahead - 0.2 for end, seconds in zip(last, lengths, strict=True)):
        return "results of chunks are missing"
    values = [delay for stream in delays for _, delay in stream.chunks]
    worst = float(np.percentile(values, PERCENTILES[-1]))
    if worst > limit:
        return f"delay {1000 * worst:,.0f} ms"
    growth = _growth(delays)
    if growth > timing.chunk / 4:
        return f"delays grow by {1000 * growth:,.0f} ms"
    return ""


def _growth(delays: Sequence[StreamDelays]) -> float:
    """Returns how much longer the median delay is in the second half than in the first half, in seconds."""
    dues = [due for stream in delays for due, _ in stream.chunks]
    middle = float(np.median(dues))

    def median(is_in: Callable[[float], bool]) -> float:
        values = [delay for stream in delays for due, delay in stream.chunks if is_in(due)]
        return float(np.median(values)) if values else 0.0

    return median(lambda due: due > middle) - median(lambda due: due <= middle)


def overload_time(delays: Sequence[StreamDelays], starts: Sequence[float], limit: float) -> float:
    """Returns when, in seconds of a growing load, a tenth of the delays of the last second exceeded `limit`; or inf.

    `starts`: when each stream began, in the same seconds.
    """
    rows = sorted(
        (start + due, delay) for stream, start in zip(delays, starts, strict=True) for due, delay in stream.chunks
    )
    times = np.array([time for time, _ in rows])
    values = np.array([delay for _, delay in rows])
    for time in np.arange(1.0, times[-1] if len(times) else 0.0, 0.25):
        recent = values[(times > time - 1) & (times <= time)]
        if len(recent) and np.percentile(recent, 90) > limit:
            return float(time)
    return math.inf
