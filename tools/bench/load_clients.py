"""Clients of a streaming recogniser, in one process of their own: they send speech in real time, and note each message.

    python3 tools/bench/load_clients.py <job.json

The job is a JSON object:

protocol        "asrtool" or "sherpa-onnx"
url             where the server listens, ws://127.0.0.1:PORT/...
audio, rate     a .npy file of int16 samples, which the clients play in a loop, and its sampling rate in Hz
packet_seconds  audio in a message
endpoint        rules that end an utterance, for the start message of asrtool
streams         for each client: when it begins and how much audio it sends, in seconds, and its first sample
short           instead of streams: so many short connections, of which `at_once` are open at a time, each with one
                message of audio, sent at once
grace_seconds   for the last results after the last audio; 0 leaves at once
out             the file for the results, as JSON

Messages are stored as they come, and read later by another process, so that the clients need little of the machine:
`cpu_seconds` of the result says how much. `late_seconds` are the delays with which packets were sent, in each stream.
A packet is due when its last sample would have come from a microphone; delays of results are counted from then.
"""

import asyncio
import gc
import json
import sys
import time
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

CONNECT_SECONDS = 1.0  # before the first audio of a stream
TIMEOUT = 30.0  # seconds, to connect and to get the answer to the start message
FAILURES = (OSError, WebSocketException, TimeoutError, EOFError)


class Asrtool:
    """The protocol of `asrtool serve`."""

    scale: float | None = None  # int16 samples as they are
    end = json.dumps({"type": "end"})

    def __init__(self, job: dict[str, Any]):
        self._start = {"type": "start", "rate": job["rate"], "format": "s16le", "endpoint": job["endpoint"]}

    async def open(self, connection: ClientConnection) -> list[str]:
        """Starts a stream; returns the messages that answer."""
        await connection.send(json.dumps(self._start))
        return [str(await asyncio.wait_for(connection.recv(), TIMEOUT))]

    def is_last(self, message: str) -> bool:
        """Returns whether nothing follows a message."""
        return message.startswith(('{"type": "end"', '{"type": "error"'))


class Sherpa:
    """The protocol of sherpa-onnx's online websocket server: float32 samples, then the text Done."""

    scale: float | None = 1 / 32768
    end = "Done"

    def __init__(self, job: dict[str, Any]):
        pass

    async def open(self, connection: ClientConnection) -> list[str]:
        """Does nothing: a stream starts with its audio."""
        return []

    def is_last(self, message: str) -> bool:
        """Returns whether nothing follows a message."""
        return message == "Done!"


PROTOCOLS: dict[str, type[Asrtool] | type[Sherpa]] = {"asrtool": Asrtool, "sherpa-onnx": Sherpa}


class Clients:
    """All clients of a job."""

    def __init__(self, job: dict[str, Any]):
        self.job = job
        self.protocol = PROTOCOLS[job["protocol"]](job)
        samples = np.load(job["audio"], mmap_mode="r")
        scale = self.protocol.scale
        self.samples = samples if scale is None else (samples * np.float32(scale)).astype(np.float32)
        self.packet = round(job["packet_seconds"] * job["rate"])  # samples

    async def run(self) -> list[dict[str, Any]]:
        """Runs all clients to their end; returns what each of them noted."""
        if self.job.get("short"):
            return await self._run_short()
        begin = asyncio.get_running_loop().time() + CONNECT_SECONDS
        return await asyncio.gather(*(self._play(begin, stream) for stream in self.job["streams"]))

    async def _play(self, begin: float, stream: dict[str, Any]) -> dict[str, Any]:
        """Runs one stream from its connection to its last result."""
        loop = asyncio.get_running_loop()
        start = begin + stream["start"]
        noted: dict[str, Any] = {"start": start, "messages": [], "late_seconds": [], "sent_seconds": 0.0, "error": None}
        await asyncio.sleep(max(0.0, start - CONNECT_SECONDS - loop.time()))
        try:
            async with self._connect() as connection:
                noted["messages"] += [[loop.time(), text] for text in await self.protocol.open(connection)]
                receiver = asyncio.create_task(self._receive(connection, noted["messages"]))
                try:
                    await self._send(connection, stream, noted)
                    await self._end(connection, receiver)
                finally:
                    receiver.cancel()
        except FAILURES as error:
            noted["error"] = f"{type(error).__name__}: {error}"
        return noted

    def _connect(self) -> connect:
        return connect(
            self.job["url"], compression=None, max_queue=None, ping_interval=None, open_timeout=TIMEOUT, close_timeout=1
        )

    async def _receive(self, connection: ClientConnection, messages: list) -> None:
        loop = asyncio.get_running_loop()
        async for text in connection:
            messages.append([loop.time(), text])
            if self.protocol.is_last(str(text)):
                return

    async def _send(self, connection: ClientConnection, stream: dict[str, Any], noted: dict[str, Any]) -> None:
        """Sends packets when they are due."""
        loop = asyncio.get_running_loop()
        for number in range(1, round(stream["seconds"] / self.job["packet_seconds"]) + 1):
            due = noted["start"] + number * self.job["packet_seconds"]
            await asyncio.sleep(due - loop.time())
            await connection.send(self._piece(stream["offset"] + (number - 1) * self.packet, self.packet))
            noted["late_seconds"].append(loop.time() - due)
            noted["sent_seconds"] = number * self.job["packet_seconds"]

    def _piece(self, first: int, size: int) -> bytes:
        """Returns `size` samples of the audio from `first` on; it begins again where it ends."""
        first %= len(self.samples)
        piece = self.samples[first : first + size]
        if len(piece) < size:
            piece = np.concatenate([piece, self.samples[: size - len(piece)]])
        return piece.tobytes()

    async def _end(self, connection: ClientConnection, receiver: asyncio.Task) -> None:
        """Ends the stream and waits for the last results."""
        seconds = self.job["grace_seconds"]
        if seconds:
            await connection.send(self.protocol.end)
            try:
                await asyncio.wait_for(receiver, seconds)
            except TimeoutError as error:
                raise TimeoutError(f"the last result did not come within {seconds:g} s") from error

    async def _run_short(self) -> list[dict[str, Any]]:
        """Opens short connections; returns one list of messages with the errors among them."""
        places = asyncio.Semaphore(self.job["at_once"])
        errors = await asyncio.gather(*(self._short(places, number) for number in range(self.job["short"])))
        return [{"connections": len(errors), "errors": [error for error in errors if error]}]

    async def _short(self, places: asyncio.Semaphore, number: int) -> str:
        async with places:
            try:
                async with self._connect() as connection:
                    await self.protocol.open(connection)
                    await connection.send(self._piece(number * self.packet, self.packet))
                    receiver = asyncio.create_task(self._receive(connection, []))
                    await self._end(connection, receiver)
            except FAILURES as error:
                return f"{type(error).__name__}: {error}"
        return ""


def main() -> None:
    """Reads the job, runs the clients, and writes what they noted."""
    job = json.load(sys.stdin)
    clients = Clients(job)
    gc.freeze()
    gc.disable()  # a run is short; no pause may count as a delay
    begin = time.monotonic(), time.process_time()
    streams = asyncio.run(clients.run())
    used = {"cpu_seconds": time.process_time() - begin[1], "wall_seconds": time.monotonic() - begin[0]}
    with open(job["out"], "w", encoding="utf-8") as file:
        json.dump({**used, "streams": streams}, file)


if __name__ == "__main__":
    main()
