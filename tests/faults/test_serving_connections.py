"""A thousand bad connections, and a hundred at the limit, leave a server, its streams and its memory as before."""

import contextlib
import json
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from websockets.frames import Opcode

from tests.faults.commands import until
from tests.faults.serving import SHORT_LIMITS, GoodStream, Server, said, tone_system, upload
from tests.faults.serving_clients import ATTACKS, GET, START, Client, attack, frame, text
from tests.serve.page.tones import spoken
from tests.serve.running import finals, metric, open_stream, pcm16, receive, receive_all, start

__all__ = ["tone_system"]

CONNECTIONS = 1000
CLIENTS = 24  # at a time
MEMORY = 32 << 20  # bytes that the resident memory may grow by: allocators and Python keep some of what was used


@pytest.fixture(scope="module")
def server(tone_system, tmp_path_factory):
    with Server(tone_system, tmp_path_factory.mktemp("server"), limits=SHORT_LIMITS) as running:
        yield running


def run_attacks(server, kinds, seed):
    """Runs attacks, CLIENTS at a time; returns the failures."""

    def one(number_and_kind):
        number, kind = number_and_kind
        try:
            attack(kind, server.port, seed + number)
        except AssertionError as error:
            return str(error)
        except Exception as error:
            return f"{kind.name}: {error!r}"

    with ThreadPoolExecutor(CLIENTS) as pool:
        return sorted({failure for failure in pool.map(one, enumerate(kinds)) if failure})


@pytest.mark.slow
def test_bad_connections_harm_neither_a_good_stream_nor_the_server(server):
    assert run_attacks(server, ATTACKS, seed=0) == []
    assert until(server.is_idle, 60)
    before = server.footprint()
    kinds = random.Random(1).choices(ATTACKS, k=CONNECTIONS)
    with GoodStream(server.url) as stream:
        assert run_attacks(server, kinds, seed=1000) == []
        server.recognises()
    assert until(server.is_idle, 60)
    assert until(lambda: server.footprint().files <= before.files, 30), (before, server.footprint())
    after = server.footprint()
    print(f"\n{before}\n{after}\n{len(stream.words)} words, at most {stream.slowest:.1f} s behind")
    assert after.threads <= before.threads + CLIENTS and after.processes == before.processes
    assert after.memory < before.memory + MEMORY, (before, after)
    assert "Traceback" not in server.log and "ERROR" not in server.log, server.log[-3000:]
    assert not list(server.temporary.iterdir())
    server.recognises()


@pytest.mark.slow
def test_a_flood_of_tiny_messages_does_not_stop_the_others(server):
    """Each message of two bytes, as fast as the server reads them."""
    stop = threading.Event()

    def flood():
        with Client(server.port) as client:
            client.open_stream()
            client.send(text(START))
            while not stop.is_set():
                client.send(frame(Opcode.BINARY, b"\0\0") * 2000)
            client.reset()

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        with GoodStream(server.url):
            for _ in range(3):
                assert said(server.url, spoken(["one", "four"], 5)) == "one four"
    finally:
        stop.set()
        thread.join()
    assert until(server.is_idle, 60)


@pytest.mark.slow
def test_clients_that_never_read_are_ended(server):
    """Their connections end although their systems still acknowledge what TCP asks them."""
    pings = text(START) + frame(Opcode.PING, b"x" * 125) * 50_000
    clients = []
    for data in [GET * 400] * 5 + [pings] * 5 + [GET] * 5:
        client = Client(server.port, receive_buffer=2048)
        if data is pings:
            client.open_stream()
        client.socket.settimeout(2)
        with contextlib.suppress(TimeoutError):
            client.send(data)
        clients.append(client)
    assert until(lambda: metric(server.url, "asrtool_connections") <= 1, 60)
    for client in clients:
        client.socket.close()


def test_compression_is_not_offered(server):
    """A message of some kilobytes could become gigabytes."""
    offer = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    with Client(server.port) as client:
        client.open_stream(offer)
        client.send(b"\xc2\x8a" + bytes(4) + b"\x4a\x4c\x04\x00" * 2 + b"\0\0")
        answer = client.answer()
    assert answer.code == 1002 and b"permessage-deflate" not in answer.content


@pytest.mark.slow
def test_at_the_limit_further_streams_and_uploads_are_told_when_to_come_back(tone_system, tmp_path):
    """100 streams, all of which get their words; others are served as soon as one has ended."""
    words = [["one", "two"], ["four", "three"], ["two", "two"], ["three", "one"]]
    sounds = [pcm16(spoken(some, 60 + number)) for number, some in enumerate(words)]
    options = ("--max-streams", 100, "--max-queued-uploads", 1)
    with Server(tone_system, tmp_path, *options) as server, contextlib.ExitStack() as stack:
        server.recognises()
        before = server.footprint()
        streams = [stack.enter_context(open_stream(server.url)) for _ in range(100)]
        assert [start(stream)["type"] for stream in streams] == ["ready"] * 100
        for number, stream in enumerate(streams):
            stream.send(sounds[number % 4][:20_000])
        for _ in range(20):
            with open_stream(server.url) as other:
                (error,) = receive_all(other)
                assert error["code"] == "limit" and error["retry_after"] > 0 and other.close_code == 1013
        streams[0].send(sounds[0][20_000:])
        streams[0].send('{"type": "end"}')
        assert texts(receive_all(streams[0])) == "one two"
        assert said(server.url, spoken(["four"], 8)) == "four"
        check_uploads_at_the_limit(server)
        for number, stream in enumerate(streams[1:], 1):
            stream.send(sounds[number % 4][20_000:])
            stream.send('{"type": "end"}')
        results = [texts(receive_all(stream)) for stream in streams[1:]]
        assert results == [" ".join(words[number % 4]) for number in range(1, 100)]
        stack.close()
        assert until(server.is_idle, 60)
        assert until(lambda: server.footprint().files <= before.files, 30), (before, server.footprint())
        after = server.footprint()
        print(f"\n{before}\n{after}")
        assert after.memory < before.memory + MEMORY and after.processes == before.processes, (before, after)
        server.recognises()


def texts(messages):
    return " ".join(message["text"] for message in finals(messages))


def check_uploads_at_the_limit(server):
    """Two uploads are received, one of them waits: a third one is refused, and served afterwards."""
    body = b"POST /v1/transcribe HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n"
    with Client(server.port) as first, Client(server.port) as second:
        for client in (first, second):
            client.send(body, b"RIFF")
        assert until(lambda: metric(server.url, "asrtool_uploads_waiting") == 2, 20)
        refused = upload(server.url, spoken(["one"], 3))
        assert refused.status_code == 503 and int(refused.headers["Retry-After"]) > 0
        assert refused.json()["error"]["code"] == "limit"
        for client in (first, second):
            client.send(b"12345")
            assert client.answer().code == 415
    assert upload(server.url, spoken(["one"], 3)).json()["text"] == "one"


def test_a_good_stream_between_bad_ones_keeps_its_words(server):
    """Every kind once, without --all."""
    quick = [kind for kind in ATTACKS if not set(kind.codes) & {1008, 408, 0}]
    with GoodStream(server.url):
        assert run_attacks(server, quick, seed=5) == []
    with open_stream(server.url) as socket:
        start(socket)
        socket.send(pcm16(spoken(["two"], 4)))
        assert receive(socket)["type"] in ("partial", "final")
        socket.send(json.dumps({"type": "end"}))
        assert texts(receive_all(socket)) == "two"
