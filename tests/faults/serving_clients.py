"""Clients of every bad kind, on raw sockets: what they send, and the answers that a server may give them."""

import contextlib
import json
import random
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from websockets.frames import Close, Frame, Opcode

from tests.serve.page.tones import spoken
from tests.serve.running import pcm16

PATIENCE = 60.0  # seconds for an answer: no time-out of the attacked server is longer
HOST = b"Host: 127.0.0.1\r\n"
UPGRADE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
HANDSHAKE = b"GET /v1/stream HTTP/1.1\r\n" + HOST + UPGRADE + b"\r\n"
START = b'{"type": "start"}'
END = b'{"type": "end"}'
CLOSED = 0  # the connection ended without an answer


class Answer:
    """What a server sent, as bytes; the status of HTTP, and the close code of a WebSocket."""

    def __init__(self, content: bytes, is_open: bool):
        self.content = content
        self.is_open = is_open

    @property
    def code(self) -> int:
        """The close code of a WebSocket, or the status of HTTP; CLOSED without either. AssertionError if it is open."""
        head, _, rest = self.content.partition(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 101"):
            code = close_code(rest)
            assert code or not self.is_open, f"no answer within {PATIENCE} s: {self.content!r}"
            return code or CLOSED
        if head.startswith(b"HTTP/1.1 100"):
            head = rest
        if head.startswith(b"HTTP/1.1 "):
            return int(head.split(maxsplit=2)[1])
        assert not self.is_open, f"no answer within {PATIENCE} s: {self.content!r}"
        return CLOSED


def is_complete(head: bytes, body: bytes) -> bool:
    """Returns True if the body of an answer of HTTP has the length that its header tells."""
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.partition(b":")[2])
    return False  # it ends with the connection


def frames(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields the opcode and payload of each complete frame of a server."""
    while len(content) >= 2:
        size, header = content[1], 2
        if size == 126:
            header, size = 4, int.from_bytes(content[2:4], "big") if len(content) >= 4 else 1 << 62
        elif size == 127:
            header, size = 10, int.from_bytes(content[2:10], "big") if len(content) >= 10 else 1 << 62
        if len(content) < header + size:
            return
        yield content[0] & 15, content[header : header + size]
        content = content[header + size :]


def close_code(content: bytes) -> int | None:
    """Returns the code of the close frame, None if there is none."""
    for opcode, payload in frames(content):
        if opcode == Opcode.CLOSE:
            return int.from_bytes(payload[:2], "big") if payload else 1005
    return None


def frame(opcode: Opcode, data: bytes = b"", is_last: bool = True) -> bytes:
    """Returns a masked frame."""
    return Frame(opcode, data, is_last).serialize(mask=True)


def text(data: bytes) -> bytes:
    """Returns a text message."""
    return frame(Opcode.TEXT, data)


def audio(data: bytes) -> bytes:
    """Returns a binary message."""
    return frame(Opcode.BINARY, data)


class Client:
    """A connection that does what it wants."""

    def __init__(self, port: int, receive_buffer: int | None = None):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(("127.0.0.1", port))
        self._received = b""

    def open_stream(self, headers: bytes = b"") -> None:
        """Sends the handshake of a WebSocket and waits for its answer, as clients must before they send more."""
        self.send(HANDSHAKE.replace(HOST, HOST + headers))
        while b"\r\n\r\n" not in self._received:
            part = self.socket.recv(1 << 12)
            assert part, "the server closed within the handshake"
            self._received += part

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *parts: bytes) -> None:
        """Sends parts; a server that has closed is no error."""
        with contextlib.suppress(ConnectionError):
            for part in parts:
                self.socket.sendall(part)

    def send_slowly(self, data: Iterable[int], seconds: float) -> None:
        """Sends a byte each `seconds`, until the server has closed or answered."""
        self.socket.setblocking(False)
        try:
            for byte in data:
                self.socket.send(bytes([byte]))
                time.sleep(seconds)
                with contextlib.suppress(BlockingIOError):
                    self.socket.recv(1, socket.MSG_PEEK)
                    return
        except ConnectionError:
            return
        finally:
            self.socket.settimeout(PATIENCE)

    def answer(self, seconds: float = PATIENCE) -> Answer:
        """Reads until the server has closed, or has said that it will."""
        content = self._received
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                self.socket.settimeout(max(0.01, end - time.monotonic()))
                part = self.socket.recv(1 << 16)
                content += part
                head, _, rest = content.partition(b"\r\n\r\n")
                if not part or (head.startswith(b"HTTP/1.1 101") and close_code(rest)):
                    return Answer(content, is_open=False)
                if head.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5", b"HTTP/1.1 2")) and is_complete(head, rest):
                    return Answer(content, is_open=False)
        except TimeoutError:
            return Answer(content, is_open=True)
        except ConnectionError:
            return Answer(content, is_open=False)
        return Answer(content, is_open=True)

    def reset(self) -> None:
        """Ends the connection with a RST, as a crash of the client's machine does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


@dataclass(frozen=True)
class Attack:
    """One kind of client. run: returns its answer, None if it did not wait for one. codes: that are right."""

    name: str
    run: Callable[[int, random.Random], Answer | None]
    codes: tuple[int, ...]


def _sends(*parts: bytes) -> Callable[[int, random.Random], Answer]:
    def run(port: int, draw: random.Random) -> Answer:
        with Client(port) as client:
            client.send(*parts)
            return client.answer()

    return run


def _says(data: bytes) -> Callable[[int, random.Random], Answer]:
    """Returns a client that sends frames."""

    def run(port: int, draw: random.Random) -> Answer:
        with Client(port) as client:
            client.open_stream()
            client.send(data)
            return client.answer()

    return run


def _post(head: bytes, body: bytes = b"") -> bytes:
    return b"POST /v1/transcribe HTTP/1.1\r\n" + HOST + head + b"\r\n" + body


def _form(head: bytes, count: int = 1, kind: bytes = b"multipart/form-data; boundary=B") -> bytes:
    body = (b"--B\r\n" + head + b"\r\n\r\nxxxx\r\n") * count + b"--B--\r\n"
    return _post(b"Content-Type: " + kind + b"\r\nContent-Length: %d\r\n" % len(body), body)


CHUNKED = b"Transfer-Encoding: chunked\r\n"
FILE = b'Content-Disposition: form-data; name="file"; filename="a.wav"'
NUMBERS = struct.pack("<4f", 0.0, float("nan"), float("inf"), 1.0)

REQUESTS: dict[str, tuple[bytes, tuple[int, ...]]] = {
    "TLS on a port without": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100), (400,)),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (400, 403)),
    "a header too large": (b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000, (400, CLOSED)),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", (400,)),
    "another Host": (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", (403,)),
    "a Host that is none": (b"GET /none HTTP/1.1\r\nHost: [\r\n\r\n", (403,)),
    "another Origin": (b"GET / HTTP/1.1\r\n" + HOST + b"Origin: https://evil.example\r\n\r\n", (403,)),
    "an Origin that is none": (b"GET / HTTP/1.1\r\n" + HOST + b"Origin: http://[\r\n\r\n", (403,)),
    "stream from another Origin": (HANDSHAKE.replace(HOST, HOST + b"Origin: http://evil.example\r\n"), (403,)),
    "stream from no Origin": (HANDSHAKE.replace(HOST, HOST + b"Origin: http://[\r\n"), (403,)),
    "handshake of version 8": (HANDSHAKE.replace(b"Version: 13", b"Version: 8"), (400, 426)),
    "handshake without key": (HANDSHAKE.replace(b"Key", b"Lock"), (400,)),
    "handshake with a key that is none": (HANDSHAKE.replace(b"dGhl", b"!"), (400,)),
    "handshake with many headers": (HANDSHAKE.replace(HOST, HOST + b"X: 1\r\n" * 200), (400,)),
    "handshake with a long header": (HANDSHAKE.replace(HOST, HOST + b"X: " + b"x" * 10_000 + b"\r\n"), (400,)),
    "handshake with a body": (HANDSHAKE.replace(HOST, HOST + b"Content-Length: 4\r\n") + b"body", (400,)),
    "handshake by POST": (HANDSHAKE.replace(b"GET", b"POST"), (400, 405)),
    "handshake elsewhere": (HANDSHAKE.replace(b"/v1/stream", b"/v1/none"), (403, 404)),
    "stream without upgrade": (b"GET /v1/stream HTTP/1.1\r\n" + HOST + b"\r\n", (404, 426)),
    "another method": (b"DELETE /v1/transcribe HTTP/1.1\r\n" + HOST + b"\r\n", (405,)),
    "an unknown path": (b"GET /v1/../../etc/passwd HTTP/1.1\r\n" + HOST + b"\r\n", (404,)),
    "a length too large": (_post(b"Content-Length: " + b"9" * 18 + b"\r\n"), (413,)),
    "a length of thousands of digits": (_post(b"Content-Length: " + b"9" * 5000 + b"\r\n"), (400, 413)),
    "a negative length": (_post(b"Content-Length: -1\r\n"), (400,)),
    "two lengths": (_post(b"Content-Length: 3\r\nContent-Length: 4\r\n", b"abcd"), (400,)),
    "length and chunks": (
        _post(b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
        (400, 415),
    ),
    "a chunk that is none": (_post(CHUNKED, b"zz\r\n"), (400, CLOSED)),
    "a body that does not come": (_post(b"Content-Length: 1000\r\n", b"RIFF"), (408,)),
    "chunks that do not end": (_post(CHUNKED, b"1\r\nx\r\n" * 20_000), (408,)),
    "no audio": (_post(b"Content-Length: 4\r\n", b"RIFF"), (415,)),
    "an empty body": (_post(b"Content-Length: 0\r\n"), (400,)),
    "a form of many parts": (_form(b'Content-Disposition: form-data; name="x"', 3000), (400,)),
    "a form of many files": (_form(FILE, 3000), (400,)),
    "a form of many headers": (_form(b"X: 1\r\n" * 5000 + FILE), (400,)),
    "a form with a long header": (_form(b"X: " + b"x" * 1_000_000 + b"\r\n" + FILE), (400,)),
    "a form without boundary": (_form(FILE, 1, b"multipart/form-data"), (400,)),
    "a form of no charset": (_form(FILE, 1, b"multipart/form-data; boundary=B; charset=undefined"), (400,)),
    "a form without names": (_form(b"X: 1"), (400,)),
}
MESSAGES: dict[str, tuple[bytes, tuple[int, ...]]] = {
    "no JSON": (text(b"{"), (1007,)),
    "no object": (text(b"[]"), (1007,)),
    "nested too deep": (text(b"[" * 60_000), (1007,)),
    "a number too large": (text(b'{"type": "start", "rate": ' + b"9" * 5000 + b"}"), (1007,)),
    "NaN for a rate": (text(b'{"type": "start", "rate": NaN}'), (1007,)),
    "wrong types": (text(b'{"type": "start", "rate": "16000", "channels": null}'), (1007,)),
    "an unknown field": (text(b'{"type": "start", "languages": ["en"]}'), (1007,)),
    "half a surrogate": (text(b'{"type": "start", "hotwords": ["\\ud800"]}'), (1007,)),
    "too much text": (text(b'{"type": "start", "x": "' + b"x" * 100_000 + b'"}'), (1009,)),
    "many hotwords": (text(json.dumps({"type": "start", "hotwords": ["a"] * 10_000}).encode()), (1007,)),
    "a long hotword": (text(json.dumps({"type": "start", "hotwords": ["a" * 10_000]}).encode()), (1007,)),
    "audio before the start": (audio(bytes(3200)), (1007,)),
    "an empty message before the start": (audio(b""), (1007,)),
    "the end before the start": (text(END), (1007,)),
    "two starts": (text(START) + text(START), (1007,)),
    "audio after the end": (text(START) + text(END) + audio(bytes(640_000)), (1007, 1000)),
    "text that is not UTF-8": (text(b"\xff\xfe"), (1007,)),
    "half a sample": (text(START) + audio(bytes(321)) + text(END), (1007,)),
    "samples that are not finite": (text(b'{"type": "start", "format": "f32le"}') + audio(NUMBERS), (1007,)),
    "random bytes as floats": (text(b'{"type": "start", "format": "f32le"}') + audio(b"\xfe\x7f" * 999), (1007,)),
    "a message too large": (text(START) + audio(bytes((1 << 20) + 1)), (1009,)),
    "a frame of exabytes": (text(START) + b"\x82\xff" + b"\x7f" + b"\xff" * 7 + bytes(4), (1009, 1002)),
    "a frame without mask": (text(START) + Frame(Opcode.BINARY, bytes(10)).serialize(mask=False), (1002,)),
    "an unknown opcode": (b"\x83\x80" + bytes(4), (1002,)),
    "compressed without agreement": (b"\xc2\x80" + bytes(4), (1002,)),
    "a ping in parts": (b"\x09\x80" + bytes(4), (1002,)),
    "a long ping": (b"\x89\xfe\x00\xff" + bytes(4) + bytes(255), (1002,)),
    "a continuation of nothing": (frame(Opcode.CONT, b"x"), (1002,)),
    "text within audio": (text(START) + frame(Opcode.BINARY, b"x", False) + text(END), (1002,)),
    "a close code that is none": (frame(Opcode.CLOSE, b"\x00\x01"), (1002,)),
    "a close": (frame(Opcode.CLOSE, Close(1000, "bye").serialize()), (1000,)),
    "no start": (b"", (1008,)),
    "no audio": (text(START), (1008,)),
    "many pings": (text(START) + frame(Opcode.PING, b"x" * 125) * 2000 + text(END), (1000,)),
    "many empty messages": (text(START) + audio(b"") * 2000 + text(END), (1000,)),
    "many tiny messages": (text(START) + audio(b"\0\0") * 2000 + text(END), (1000,)),
    "endless parts": (text(START) + frame(Opcode.BINARY, b"", False) + frame(Opcode.CONT, b"", False) * 5000, (1008,)),
}


def _speech() -> bytes:
    return pcm16(spoken(["one", "three"], 5))


def _leaves(number: int) -> Callable[[int, random.Random], None]:
    """Returns a client that ends its connection within its audio: by RST, by half of it, or without a word."""

    def run(port: int, draw: random.Random) -> None:
        with Client(port) as client:
            client.open_stream()
            client.send(text(START), audio(_speech()[: draw.randrange(10_000, 60_000)]))
            client.send(audio(bytes(5000))[: draw.randrange(1, 5000)])  # within a frame
            time.sleep(draw.uniform(0, 0.5))
            if number == 0:
                client.reset()
            elif number == 1:
                client.socket.shutdown(socket.SHUT_WR)
                client.answer()

    return run


def _leaves_upload(port: int, draw: random.Random) -> None:
    with Client(port) as client:
        client.send(_post(b"Content-Length: 100000\r\n", bytes(draw.randrange(50_000))))
        client.reset()


def _never_reads(data: bytes, is_stream: bool = True) -> Callable[[int, random.Random], None]:
    def run(port: int, draw: random.Random) -> None:
        with Client(port, receive_buffer=2048) as client:
            if is_stream:
                client.open_stream()
            client.socket.settimeout(1)
            with contextlib.suppress(TimeoutError):
                client.send(data)
            time.sleep(draw.uniform(0, 2))
            client.reset()

    return run


def _slow(data: bytes, seconds: float) -> Callable[[int, random.Random], Answer]:
    def run(port: int, draw: random.Random) -> Answer:
        with Client(port) as client:
            head, _, rest = data.partition(b"|")
            client.send(head)
            client.send_slowly(rest, seconds)
            return client.answer()

    return run


def _garbage(port: int, draw: random.Random) -> Answer:
    with Client(port) as client:
        client.send(draw.randbytes(draw.randrange(1, 4000)) + b"\r\n\r\n")
        return client.answer()


def _damaged_frames(port: int, draw: random.Random) -> Answer:
    with Client(port) as client:
        content = bytearray(text(START) + audio(_speech()) + text(END))
        for _ in range(20):
            content[draw.randrange(len(content))] = draw.randrange(256)
        client.open_stream()
        client.send(bytes(content))
        return client.answer()


GET = b"GET /page/main.js HTTP/1.1\r\n" + HOST + b"\r\n"
ANY = (CLOSED, 1000, 1002, 1003, 1007, 1008, 1009)
ATTACKS = [
    *(Attack(name, _sends(data), codes) for name, (data, codes) in REQUESTS.items()),
    *(Attack(name, _says(data), codes) for name, (data, codes) in MESSAGES.items()),
    Attack("garbage", _garbage, (400, CLOSED)),
    Attack("damaged frames", _damaged_frames, ANY),
    Attack("silence", _sends(), (CLOSED,)),
    Attack("slow headers", _slow(b"GET / HTTP/1.1\r\n|" + b"X: y\r\n" * 99, 0.3), (CLOSED, 408)),
    Attack("a slow body", _slow(_post(b"Content-Length: 9999\r\n", b"|" + bytes(99)), 0.5), (408,)),
    Attack("a slow handshake", _slow(b"|" + HANDSHAKE, 0.3), (CLOSED,)),
    Attack("reset within audio", _leaves(0), ()),
    Attack("half-closed within audio", _leaves(1), ()),
    Attack("left within audio", _leaves(2), ()),
    Attack("reset within an upload", _leaves_upload, ()),
    Attack("answers that are not read", _never_reads(GET * 300, is_stream=False), ()),
    Attack("pongs that are not read", _never_reads(frame(Opcode.PING, b"x" * 125) * 20_000), ()),
    Attack("results that are not read", _never_reads(text(START) + audio(_speech()) * 20), ()),
]


def attack(kind: Attack, port: int, seed: int) -> None:
    """Runs one attack. AssertionError for an answer that is not documented."""
    answer = kind.run(port, random.Random(f"{kind.name} {seed}"))
    if answer is not None:
        assert answer.code in kind.codes, f"{kind.name}: {answer.code} {answer.content[-300:]!r}"
        assert b"Traceback" not in answer.content
