"""Time-outs and limits of connections below HTTP and WebSocket, which uvicorn does not have."""

import asyncio
import logging
import resource
import socket
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from asrtool.serve.errors import RequestError, error_response
from asrtool.serve.limits import Limits

logger = logging.getLogger(__name__)

READ_BYTES = 1 << 15  # parsed at a time: 4,000 frames of a few bytes take 50 ms, in which nobody else is served
MAX_QUEUED_BYTES = READ_BYTES  # then reading pauses: as often as messages come, that would cost more than the messages
MAX_UNREAD_BYTES = 1 << 20  # of answers to pings, which are not awaited as results are
LINGER_SECONDS = 15.0  # after the last message of a WebSocket: uvicorn waits 10 s for the client's own close
MAX_INT = 2**31 - 1  # of a C int, milliseconds here: 24 days
SPARE_FILES = 256  # that are open besides connections: of the model, its processes, uploads
BAD_HANDSHAKE = RequestError("bad_request", "the handshake has a body, or headers of too many bytes")


class LimitedHttp(H11Protocol):
    """Closes a connection that does not complete the header of a request in time, and one too many."""

    limits = Limits()
    _deadline: asyncio.TimerHandle | None = None
    _is_websocket = False  # another protocol has the connection, and hears of its end

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        transport.max_size = READ_BYTES  # of asyncio's transports of sockets; 256 KB by default
        if len(self.connections) > self.limits.max_connections:
            text = f"all {self.limits.max_connections} connections are in use"
            transport.write(_whole_answer(RequestError("limit", text, self.limits.retry_seconds)))
            transport.close()
            return
        self._set_deadline()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._has_request and self._deadline is None:
            self._set_deadline()

    def handle_websocket_upgrade(self, event: Any) -> None:
        self._is_websocket = True
        self._clear_deadline()
        super().handle_websocket_upgrade(event)

    def on_response_complete(self) -> None:
        self._clear_deadline()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._clear_deadline()
        super().connection_lost(exc)

    @property
    def _has_request(self) -> bool:
        return self._is_websocket or (self.cycle is not None and not self.cycle.response_complete)

    def _set_deadline(self) -> None:
        self._deadline = self.loop.call_later(self.limits.header_seconds, self._require_request)

    def _clear_deadline(self) -> None:
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None

    def _require_request(self) -> None:
        self._deadline = None
        if not self._has_request:
            self.transport.abort()


def http_protocol(limits: Limits) -> type[LimitedHttp]:
    """Returns the protocol of HTTP/1.1 with these limits, for uvicorn, which creates one for each connection."""
    return type("LimitedHttpOfServer", (LimitedHttp,), {"limits": limits})


class LimitedWebSocket(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket, for clients that send what they want and read when they want.

    Binary messages that wait for the application become one: samples may be split anywhere, and a flood of messages of
    some bytes costs no more than its bytes. A handshake that cannot be read is answered. The connection ends after the
    application even if the client never reads.
    """

    _linger: asyncio.TimerHandle | None = None
    _waiting: Any = None  # the event at the end of the queue, if it is a binary message

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated and not self.transport.is_closing():
            self.transport.write(_whole_answer(BAD_HANDSHAKE))
            self.transport.close()

    def handle_ping(self) -> None:
        if self.transport.is_closing():
            return
        super().handle_ping()
        if self.transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
            self.transport.abort()

    def send_receive_event_to_app(self) -> None:
        """Passes a message to the application, unless it can be added to the one before."""
        if self.curr_msg_data_type == "text":
            self._waiting = None
            if _is_utf8(self.frames):
                super().send_receive_event_to_app()
            else:
                self.conn.fail(1007, "the text is not UTF-8")
                self.handle_parser_exception()
        elif not self.close_sent:
            self._add_binary()

    def _add_binary(self) -> None:
        if self._waiting is None:
            self._waiting = {"type": "websocket.receive", "bytes": bytearray()}
            self.queue.put_nowait(self._waiting)
        for frame in self.frames:
            self._waiting["bytes"] += frame
        self.frames = []
        if len(self._waiting["bytes"]) >= MAX_QUEUED_BYTES and not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    async def receive(self) -> Any:
        """Returns the next message."""
        message: Any = await super().receive()
        if message is self._waiting:
            self._waiting = None
        if isinstance(message.get("bytes"), bytearray):
            message["bytes"] = bytes(message["bytes"])
        return message

    async def send(self, message: Any) -> None:
        """Sends a message of ASGI."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True  # uvicorn would log that the application did not answer

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        super().on_task_complete(task)
        if not self.disconnected:
            self._linger = self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._linger:
            self._linger.cancel()
        super().connection_lost(exc)


def _whole_answer(error: RequestError) -> bytes:
    """Returns an error as the bytes of an answer of HTTP, for connections that reach no application."""
    response = error_response(error)
    response.headers["Connection"] = "close"
    first = f"HTTP/1.1 {response.status_code} {HTTPStatus(response.status_code).phrase}"
    lines = [first, *(f"{name}: {value}" for name, value in response.headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1") + response.body


def _is_utf8(frames: list[bytes]) -> bool:
    try:
        b"".join(frames).decode()
    except UnicodeDecodeError:
        return False
    return True


def abort_unread(listener: socket.socket, seconds: float) -> None:
    """Makes the system end connections, accepted by `listener`, whose client does not read what is sent for so long.

    Without it, a client that never reads keeps its connection for ever: TCP has no such limit.
    """
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; from 5.11 on also while the client's window is closed
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, min(round(1000 * seconds), MAX_INT))


class ServerLoop(asyncio.SelectorEventLoop):
    """An event loop whose servers give a client `handshake_seconds` to complete the handshake of TLS.

    uvicorn leaves it at asyncio's minute, in which a silent client is not among the connections that are counted.
    """

    def __init__(self, handshake_seconds: float):
        super().__init__()
        self._handshake_seconds = handshake_seconds

    async def create_server(self, *args: Any, **options: Any) -> Any:
        """Creates a server."""
        if options.get("ssl"):
            options["ssl_handshake_timeout"] = self._handshake_seconds
        return await super().create_server(*args, **options)


def allow_connections(limits: Limits) -> None:
    """Lets this process open a file for each connection and stored stream; warns if the system allows fewer."""
    needed = limits.max_connections + limits.max_streams + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < needed:
        text = f"this process may open {allowed} files, and --max-connections {limits.max_connections} needs {needed}"
        logger.warning(f"{text}: lower it, or raise the hard limit of `ulimit -n`")
