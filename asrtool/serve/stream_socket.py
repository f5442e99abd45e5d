"""/v1/stream: one live stream over a WebSocket. docs/serving.md describes the protocol.

client -> start, samples ..., end         server -> ready, partial and final results ..., end or error
"""

import asyncio
import contextlib
import json
import logging
import re
from functools import partial

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from asrtool.data.resampling import rate_warning
from asrtool.data.sources import InvalidEntry
from asrtool.errors import AsrtoolError
from asrtool.inference.stream import StreamResult
from asrtool.live.stream_engine import LiveStream, StreamEngine
from asrtool.live.stream_messages import end_message, result_message
from asrtool.serve.access import SUBPROTOCOL, AccessControl
from asrtool.serve.arrival_times import ArrivalTimes
from asrtool.serve.errors import RequestError
from asrtool.serve.kept_audio import KeptStream
from asrtool.serve.messages import StartMessage, parse_start, ready_message
from asrtool.serve.outbox import Outbox, Outgoing
from asrtool.serve.service import Service, new_id, service_of
from asrtool.serve.stream_reader import StreamReader, receive

logger = logging.getLogger(__name__)

OPTION = re.compile("--(?=endpoint|hotwords)")  # the start message has fields of the names of these options
REFUSAL_SECONDS = 5.0  # to send an error, after which the connection is closed without it


async def stream_endpoint(websocket: WebSocket) -> None:
    """Serves one connection to its end."""
    await StreamConnection(websocket, service_of(websocket), websocket.app.state.access).serve()


class StreamConnection:
    """One stream: a task that reads its audio, and one that sends its results."""

    def __init__(self, websocket: WebSocket, service: Service, access: AccessControl):
        self.id = new_id()
        self._websocket = websocket
        self._service = service
        self._access = access
        self._limits = service.limits
        self._loop = asyncio.get_running_loop()
        self._outbox = Outbox(service.limits.max_unsent)
        self._arrivals = ArrivalTimes(service.max_backlog_seconds)
        self._live: LiveStream | None = None
        self._kept: KeptStream | None = None
        self._reader: StreamReader | None = None
        self._refusal: asyncio.Task[None] | None = None  # referenced, so that it is not collected

    async def serve(self) -> None:
        """Runs the stream, and tells the client how it ended."""
        offers = self._websocket.scope.get("subprotocols", ())
        await self._websocket.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in offers else None)
        outcome = "failed"
        try:
            await self._run()
            outcome = "finished"
        except RequestError as error:
            outcome = error.code
            await self._refuse(error)
        except WebSocketDisconnect:
            outcome = "disconnected"
        except Exception:
            logger.exception(f"stream {self.id} failed")
            await self._refuse(RequestError("failed", "the server failed; its log has the reason"))
        finally:
            await self._close(outcome)

    def end(self, error: RequestError) -> None:
        """Ends the stream with an error, after the results of the audio so far; also before its start message."""
        if self._reader:
            self._reader.end(error)
        else:
            self.abort(error)

    def abort(self, error: RequestError) -> None:
        """Ends the stream with an error at once."""
        self._outbox.fail(error)
        if self._live is None:
            self._refusal = self._loop.create_task(self._refuse(error))

    async def _run(self) -> None:
        self._access.require_token(self._websocket.scope)
        engine = self._service.admit_stream(self)
        start = await self._receive_start()
        self._live = await asyncio.to_thread(self._open, engine, start)
        self._kept = await asyncio.to_thread(self._service.keeper.open_stream, self.id, start)
        assert self._service.timing is not None
        warning = rate_warning(start.rate, self._service.model.sampling_rate)
        self._outbox.put(Outgoing(ready_message(self.id, self._service.timing, warning)))
        backlog = self._service.max_backlog_seconds
        self._reader = StreamReader(
            self._websocket, self._live, start, self._limits, backlog, self._arrivals, self._kept
        )
        await self._read_and_send(self._reader)
        with contextlib.suppress(WebSocketDisconnect):  # the client may close at once when it has the last message
            await self._websocket.close(1000)

    async def _receive_start(self) -> StartMessage:
        seconds = self._limits.start_seconds
        try:
            async with asyncio.timeout(seconds):  # not asyncio.wait_for, which may lose a cancellation in Python 3.11
                message = await receive(self._websocket)
        except TimeoutError as error:
            raise RequestError("idle", f"no start message came within {seconds:g} s") from error
        if isinstance(message, bytes):
            raise RequestError("bad_request", "the first message is audio; send the start message before")
        return parse_start(message)

    def _open(self, engine: StreamEngine, start: StartMessage) -> LiveStream:
        """Opens the stream in the engine. The engine calls back in its own threads."""
        show_partial = start.partial
        try:
            return engine.open(
                start.rate,
                endpoint=start.endpoint,
                hotwords=start.hotwords,
                on_results=lambda results: self._call(partial(self._add_results, results, show_partial)),
                on_end=lambda error: self._call(partial(self._add_end, error)),
            )
        except AsrtoolError as error:
            raise RequestError("invalid", OPTION.sub("", str(error))) from error

    def _call(self, function: "partial[None]") -> None:
        """Calls a function in the thread of the event loop, unless that has ended."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function)

    def _add_results(self, results: list[StreamResult], show_partial: bool) -> None:
        assert self._live is not None
        for result in results:
            received = self._arrivals.take(result.end)
            message = result_message(result, self._live.audio_seconds, self._live.compute_seconds)
            if result.is_final:
                self._outbox.put(Outgoing(message, received))
                if self._kept:
                    self._kept.add_result(message)
            elif show_partial:
                self._outbox.put_partial(Outgoing(message, received))

    def _add_end(self, error: BaseException | None) -> None:
        if isinstance(error, InvalidEntry):
            self._outbox.fail(RequestError("unsupported_audio", str(error)))
        elif isinstance(error, AsrtoolError):  # such as the end of its search process
            self._outbox.fail(RequestError("failed", str(error)))
        elif error is not None:
            logger.error(f"stream {self.id} failed", exc_info=error)
            self._outbox.fail(RequestError("failed", "the recognition of this stream failed"))
        elif self._reader and self._reader.limit:
            self._outbox.end(self._reader.limit)
        else:
            assert self._live is not None
            message = end_message(self._live.audio_seconds, self._live.compute_seconds)
            self._outbox.put(Outgoing(message, is_last=True))

    async def _read_and_send(self, audio: StreamReader) -> None:
        """Reads and sends at the same time, until the last result is sent or either of both fails."""
        reader = asyncio.create_task(audio.read())
        sender = asyncio.create_task(self._send_all())
        try:
            await asyncio.wait((reader, sender), return_when=asyncio.FIRST_COMPLETED)
            if not sender.done():  # the reader has failed, or a limit has ended the stream
                reader.result()
            await sender
        finally:
            for task in (reader, sender):
                task.cancel()
            await asyncio.gather(reader, sender, return_exceptions=True)

    async def _send_all(self) -> None:
        """Sends messages to the last one, and notes their delay."""
        while True:
            outgoing = await self._outbox.get()
            await self._send(json.dumps(outgoing.message, ensure_ascii=False, allow_nan=False))
            if outgoing.received is not None:
                delay = self._loop.time() - outgoing.received
                self._service.metrics.delay.labels(outgoing.message["type"]).observe(max(0.0, delay))
            if outgoing.is_last:
                return

    async def _send(self, text: str) -> None:
        seconds = self._limits.send_seconds
        try:
            async with asyncio.timeout(seconds):
                await self._websocket.send_text(text)
        except TimeoutError as error:
            raise RequestError("slow_reader", f"a result was not read within {seconds:g} s") from error

    async def _refuse(self, error: RequestError) -> None:
        """Sends an error and closes, if the client still reads."""
        if self._websocket.application_state != WebSocketState.CONNECTED:
            return
        text = json.dumps(error.as_message(), ensure_ascii=False)
        with contextlib.suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
            async with asyncio.timeout(REFUSAL_SECONDS):
                await self._websocket.send_text(text)
                await self._websocket.close(error.kind.close, error.code)

    async def _close(self, outcome: str) -> None:
        """Forgets the stream, completes the files of --keep-audio, and counts it."""
        if self._live:
            self._live.cancel()
        try:
            if self._kept:
                await asyncio.to_thread(self._kept.close, outcome)
        finally:
            self._service.streams.discard(self)
            self._count(outcome)

    def _count(self, outcome: str) -> None:
        metrics, live = self._service.metrics, self._live
        audio = live.audio_seconds if live else 0.0
        compute = live.compute_seconds if live else 0.0
        metrics.streams.labels(outcome).inc()
        metrics.audio_seconds.labels("stream").inc(audio)
        metrics.compute_seconds.labels("stream").inc(compute)
        text = f"stream {self.id} {outcome}: {audio:.1f} s of audio, {compute:.1f} s of computing"
        fields = {"stream": self.id, "outcome": outcome, "audio_seconds": audio, "compute_seconds": compute}
        logger.info(text, extra={"fields": fields})
