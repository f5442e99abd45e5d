"""Reads the audio of one live stream, and passes it to the engine within the limits of time."""

import asyncio
from typing import NoReturn

from starlette.websockets import WebSocket, WebSocketDisconnect

from asrtool.data.pcm import PcmDecoder, PcmFormat
from asrtool.errors import AsrtoolError
from asrtool.live.stream_engine import LiveStream
from asrtool.serve.arrival_times import ArrivalTimes
from asrtool.serve.errors import RequestError
from asrtool.serve.kept_audio import KeptStream
from asrtool.serve.limits import Limits
from asrtool.serve.messages import StartMessage, require_end
from asrtool.serve.stream_clock import StreamClock, StreamLimit

BACKLOG_POLL_SECONDS = 0.05  # until the backlog of a stream is looked at again; a chunk of a model is 0.1 s or more


class StreamReader:
    """The audio of one connection. limit: why the server has ended the stream, whose results still follow."""

    def __init__(
        self,
        websocket: WebSocket,
        live: LiveStream,
        start: StartMessage,
        limits: Limits,
        max_backlog_seconds: float,
        arrivals: ArrivalTimes,
        kept: KeptStream | None,
    ):
        self.limit: RequestError | None = None
        self._is_finished = False  # by its client
        self._websocket = websocket
        self._live = live
        self._max_backlog_seconds = max_backlog_seconds
        self._arrivals = arrivals
        self._kept = kept
        self._loop = asyncio.get_running_loop()
        self._pcm = PcmDecoder(PcmFormat(start.rate, start.format, start.channels))
        self._clock = StreamClock(limits, self._loop.time())

    async def read(self) -> None:
        """Passes the audio to the engine. Returns when a limit ends the stream.

        Raises RequestError for a message that is not possible, WebSocketDisconnect when the client has left.
        """
        try:
            await self._accept_all()
        except TimeoutError:
            self.end(self._clock.limit(self._loop.time()))
        except StreamLimit as limit:
            self.end(limit)

    def end(self, limit: RequestError) -> None:
        """Ends the stream, unless it has ended: what still comes is not recognised, the results so far follow."""
        if self.limit is None and not self._is_finished:
            self.limit = limit
            self._live.finish()

    async def _accept_all(self) -> NoReturn:
        """Passes all audio to the engine. Raises TimeoutError or StreamLimit when a limit of time ends the stream."""
        async with asyncio.timeout_at(self._clock.timer) as timer:
            while True:
                message = await receive(self._websocket)
                if isinstance(message, str):
                    timer.reschedule(None)
                    await self._finish(message)
                await self._accept(message)
                if self._is_ahead:
                    timer.reschedule(self._clock.end)  # it may be without audio only while messages are read
                    await self._catch_up()
                self._clock.note_audio(self._live.audio_seconds, self._loop.time())
                if timer.when() != self._clock.timer:
                    timer.reschedule(self._clock.timer)

    async def _accept(self, content: bytes) -> None:
        if self.limit:
            return
        try:
            samples = self._pcm.accept(content)
            self._live.accept(samples)
        except AsrtoolError as error:
            raise RequestError("invalid", str(error)) from error
        self._arrivals.add(self._live.audio_seconds, self._loop.time())
        if self._kept:
            await asyncio.to_thread(self._kept.write, samples)

    @property
    def _is_ahead(self) -> bool:
        """True if too much audio waits for its recognition."""
        return self._live.backlog_seconds > self._max_backlog_seconds

    async def _catch_up(self) -> None:
        """Waits for the engine; meanwhile nothing is read."""
        while self._is_ahead:
            await asyncio.sleep(BACKLOG_POLL_SECONDS)

    async def _finish(self, message: str) -> NoReturn:
        """Ends the stream as its client asked; then waits for the client to leave, which ends this task."""
        require_end(message)
        try:
            self._pcm.finish()
        except AsrtoolError as error:
            raise RequestError("invalid", str(error)) from error
        self._is_finished = True
        self._live.finish()
        await receive(self._websocket)
        raise RequestError("bad_request", 'a message came after {"type": "end"}')


async def receive(websocket: WebSocket) -> str | bytes:
    """Returns the next message. Raises WebSocketDisconnect when the client has left."""
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code") or 1005)
    text: str | None = message.get("text")
    return message["bytes"] if text is None else text
