"""Every limit of streams and connections: what is refused, and that the server goes on afterwards."""

import asyncio
import json
import socket
import time
from contextlib import ExitStack, contextmanager
from http.client import HTTPResponse
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosed

from asrtool.errors import UserError
from asrtool.serve.arrival_times import ArrivalTimes
from asrtool.serve.errors import RequestError
from asrtool.serve.limits import Limits, with_changes
from asrtool.serve.messages import StartMessage
from asrtool.serve.outbox import Outbox, Outgoing
from asrtool.serve.stream_reader import StreamReader
from tests.serve.running import (
    finals,
    http,
    metric,
    open_stream,
    pcm16,
    receive_all,
    served,
    speak,
    start,
)


@pytest.fixture
def limited(stream_experiment):
    """limited(max_streams=1, ...) runs a server without uploads with these limits."""

    @contextmanager
    def run(**limits):
        with served(stream_experiment, limits=Limits(upload_workers=0, **limits)) as running:
            yield running.url

    return run


def test_one_stream_too_many_is_told_when_to_come_back(limited, sound):
    with limited(max_streams=2) as url:
        with ExitStack() as stack:
            for _ in range(2):
                start(stack.enter_context(open_stream(url)))
            with open_stream(url) as third:
                (error,) = receive_all(third)
            assert error["code"] == "limit" and error["retry_after"] > 0 and third.close_code == 1013
        while metric(url, "asrtool_streams_active"):
            time.sleep(0.05)
        assert finals(speak(url, pcm16(sound(1.0))))


def test_a_stream_that_is_too_long_ends_with_its_results(limited, sound):
    with limited(max_stream_seconds=2.0) as url, open_stream(url) as stream:
        start(stream)
        stream.send(pcm16(sound(2.2)))
        messages = receive_all(stream)
        assert finals(messages) and messages[-1]["code"] == "too_long" and stream.close_code == 1008
        assert not [message for message in messages if message["type"] == "end"]


def test_a_stream_without_audio_ends_with_its_results(limited, sound):
    with limited(idle_seconds=0.5) as url, open_stream(url) as stream:
        start(stream)
        stream.send(pcm16(sound(1.0)))
        messages = receive_all(stream)
        assert finals(messages) and messages[-1]["code"] == "idle" and stream.close_code == 1008


def test_a_stream_ends_at_its_longest_time_although_its_audio_is_not_recognised():
    class StuckStream:
        audio_seconds = backlog_seconds = 100.0
        is_finished = False

        def accept(self, samples):
            pass

        def finish(self):
            self.is_finished = True

    class Client:
        async def receive(self):
            return {"type": "websocket.receive", "bytes": b"\0\0"}

    async def read(live):
        limits = Limits(max_stream_seconds=0.2, idle_seconds=0.05)
        start = StartMessage(type="start")
        reader = StreamReader(Client(), live, start, limits, 10.0, ArrivalTimes(10.0), None)
        await asyncio.wait_for(reader.read(), 10)
        return reader.limit

    live = StuckStream()
    assert asyncio.run(read(live)).code == "too_long" and live.is_finished


def test_a_connection_without_a_start_ends(limited):
    with limited(start_seconds=0.3) as url, open_stream(url) as stream:
        (error,) = receive_all(stream)
        assert error["code"] == "idle" and stream.close_code == 1008


def test_a_message_that_is_too_large_ends_its_stream(limited, sound):
    with limited(max_message_bytes=10_000) as url:
        with open_stream(url) as stream:
            start(stream)
            stream.send(bytes(10_002))
            receive_all(stream)
            assert stream.close_code == 1009
        assert finals(speak(url, pcm16(sound(1.0))))


def test_a_slow_client_loses_partial_results_first_and_then_the_stream():
    async def run():
        box = Outbox(max_unsent=3)
        for number in range(5):
            box.put_partial(Outgoing({"partial": number}))
        assert (await box.get()).message == {"partial": 4}
        box.put_partial(Outgoing({"partial": 5}))
        for number in range(3):
            box.put(Outgoing({"final": number}))
        assert (await box.get()).message == {"final": 0}
        box.put(Outgoing({"final": 3}))
        box.put(Outgoing({"final": 4}))
        with pytest.raises(RequestError) as error:
            await box.get()
        assert error.value.code == "slow_reader"

    asyncio.run(run())


def test_a_limit_is_sent_after_the_results_before_it():
    async def run():
        box = Outbox(max_unsent=3)
        box.put(Outgoing({"final": 0}))
        box.end(RequestError("idle", "no audio came"))
        assert (await box.get()).message == {"final": 0}
        with pytest.raises(RequestError, match="no audio"):
            await box.get()

    asyncio.run(run())


def test_headers_that_do_not_come_end_the_connection(limited):
    with limited(header_seconds=2.0) as url:
        address = urlsplit(url)
        for sent in (b"", b"GET /health HTTP/1.1\r\nHost: x", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /h"):
            with socket.create_connection((address.hostname, address.port), timeout=30) as raw:
                raw.sendall(sent)
                received = b""
                while part := _receive(raw):
                    received += part
                assert received.startswith(b"HTTP/1.1 200") == sent.endswith(b"GET /h")


def http_answer(raw):
    """Returns the answer that comes without a request."""
    answer = HTTPResponse(raw)
    answer.begin()
    answer.content = answer.read()
    return answer


def _receive(raw):
    try:
        return raw.recv(4096)
    except ConnectionResetError:
        return b""


def test_one_connection_too_many_is_closed(limited):
    with limited(max_connections=3) as url, ExitStack() as stack:
        address = urlsplit(url)
        for _ in range(3):
            start(stack.enter_context(open_stream(url)))
        with socket.create_connection((address.hostname, address.port), timeout=30) as raw:
            answer = http_answer(raw)
        assert answer.status == 503 and int(answer.headers["Retry-After"]) > 0
        assert json.loads(answer.content)["error"]["code"] == "limit"


def test_messages_without_audio_keep_no_stream_open(limited):
    with limited(max_stream_seconds=1.0, idle_seconds=30.0) as url, open_stream(url) as stream:
        start(stream)
        deadline = time.monotonic() + 30
        with pytest.raises(ConnectionClosed):
            while time.monotonic() < deadline:
                stream.send(b"")
                time.sleep(0.05)
        assert receive_all(stream)[-1]["code"] == "too_long"


def test_changes_of_limits_are_checked():
    changed = with_changes(Limits(), ["body_seconds=60", "max_unsent=3"])
    assert changed.body_seconds == 60.0 and changed.max_unsent == 3
    for change in ("nothing=1", "max_unsent=1.5", "body_seconds=inf", "body_seconds=", "body_seconds", "max_batch=0"):
        with pytest.raises(UserError):
            with_changes(Limits(), [change])


def test_the_description_has_the_limits(limited):
    with limited(max_streams=7, max_upload_bytes=5 << 20) as url, http(url) as client:
        limits = client.get("/v1/model").json()["limits"]
        assert limits["max_streams"] == 7 and limits["max_upload_mb"] == 5
