"""Clients, processes of uploads and searches, and the server itself, killed or asked to end in the middle of work."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.faults.commands import ROOT, alive, children, until
from tests.faults.serving import GoodStream, Server, said, tone_system, upload, wav
from tests.serve.page.tones import spoken
from tests.serve.running import finals, http, metric, open_stream, pcm16, receive, receive_all, start

__all__ = ["tone_system"]

pytestmark = pytest.mark.slow

CLIENT = """
import sys, time
from tests.serve.running import open_stream, pcm16, receive, start
from tests.serve.page.tones import spoken
with open_stream(sys.argv[1]) as socket:
    start(socket)
    socket.send(pcm16(spoken(["one", "two"], 1)))
    print(receive(socket)["type"], flush=True)
    time.sleep(100)
"""


@pytest.fixture(scope="module")
def server(tone_system, tmp_path_factory):
    with Server(tone_system, tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def long_sound():
    """Half an hour, which takes the process of uploads some seconds."""
    words = ["one", "two", "three", "four"] * 30
    return list(spoken(words, 1, pause=0.5)) * 18


def in_thread(function, *arguments):
    """Calls a function in a thread; returns the thread and the list that its result is added to."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function(*arguments)))
    thread.start()
    return thread, results


def test_killed_clients_are_forgotten(server):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", CLIENT, server.url]
    with GoodStream(server.url):
        for _ in range(2):
            client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
            assert client.stdout.readline().strip() in ("partial", "final")
            client.kill()
            client.communicate()
            assert until(lambda: metric(server.url, "asrtool_streams_active") == 1, 30)


def test_a_killed_process_of_uploads_is_replaced_and_the_upload_told(server, long_sound):
    with GoodStream(server.url):
        (process,) = server.processes("uploads")
        thread, answers = in_thread(upload, server.url, long_sound)
        assert until(lambda: metric(server.url, "asrtool_uploads_active") == 1, 30)
        waiting, next_answers = in_thread(upload, server.url, spoken(["four", "two"], 4))
        os.kill(process, signal.SIGKILL)
        thread.join(60)
        assert answers[0].status_code == 500 and "has ended" in answers[0].json()["error"]["message"]
        waiting.join(60)
        assert next_answers[0].json()["text"] == "four two"
        (other,) = server.processes("uploads")
        assert other != process
        os.kill(other, signal.SIGKILL)  # while it is free
        assert until(lambda: not alive(other), 10)
        answer = upload(server.url, spoken(["four", "two"], 4)).json()
        assert answer.get("text") == "four two", answer
    server.recognises()


def test_a_killed_search_process_is_replaced_and_its_streams_told(server):
    (process,) = server.processes("search")
    with open_stream(server.url) as first, open_stream(server.url) as second:
        for socket in (first, second):
            start(socket)
            socket.send(pcm16(spoken(["one", "two"], 1)))
            assert receive(socket)["type"] == "partial"
        with http(server.url) as client:  # an upload has searches of its own
            thread, answers = in_thread(lambda: client.post("/v1/transcribe", content=wav(spoken(["one"] * 20, 2))))
            os.kill(process, signal.SIGKILL)
            for socket in (first, second):
                error = receive_all(socket)[-1]
                assert error["code"] == "failed" and "killed" in error["message"] and socket.close_code == 1011
            thread.join(60)
        assert answers[0].json()["text"] == " ".join(["one"] * 20)
    assert until(lambda: server.processes("search") not in ([], [process]), 30)
    server.recognises()


def test_a_process_of_uploads_that_cannot_be_started_again_does_not_keep_clients_waiting(tone_system, tmp_path):
    model = shutil.copytree(tone_system, tmp_path / "exp")
    with Server(model, tmp_path) as server:
        model.rename(tmp_path / "moved")
        os.kill(server.processes("uploads")[0], signal.SIGKILL)
        for _ in range(2):
            answer = upload(server.url, spoken(["one"], 1))
            assert answer.status_code == 500 and answer.json()["error"]["code"] == "failed"
        assert said(server.url, spoken(["three"], 1)) == "three"
        (tmp_path / "moved").rename(model)
        assert until(lambda: upload(server.url, spoken(["one"], 1)).status_code == 200, 60)


def test_nothing_is_left_of_a_killed_server(tone_system, tmp_path):
    for _ in range(2):  # what is left does not grow with each start
        with Server(tone_system, tmp_path) as server, open_stream(server.url) as socket:
            start(socket)
            socket.send(pcm16(spoken(["one"], 1)))
            body = b"POST /v1/transcribe HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 300000\r\n\r\n" + bytes(200_000)
            from tests.faults.serving_clients import Client

            with Client(server.port) as client:
                client.send(body)
                assert until(lambda server=server: any(server.temporary.iterdir()), 20)
                processes = children(server.pid)
                server.end(signal.SIGKILL)
            assert len(processes) >= 3
            assert until(lambda processes=processes: not any(map(alive, processes))), processes
            receive_all(socket)
            assert socket.close_code == 1006
    with Server(tone_system, tmp_path) as server:
        server.recognises()
        assert not list(server.temporary.iterdir())


def test_a_drain_serves_what_runs_and_refuses_what_comes(tone_system, tmp_path, long_sound):
    with Server(tone_system, tmp_path, "--drain-seconds", 600) as server, open_stream(server.url) as socket:
        start(socket)
        samples = pcm16(spoken(["one", "four"], 1))
        socket.send(samples[:20_000])
        thread, answers = in_thread(upload, server.url, long_sound)
        assert until(lambda: metric(server.url, "asrtool_uploads_active") == 1, 30)
        server.process.send_signal(signal.SIGTERM)
        assert until(lambda: metric(server.url, "asrtool_ready") == 0, 20)
        refused = upload(server.url, spoken(["one"], 1))
        assert refused.status_code == 503 and int(refused.headers["Retry-After"]) > 0
        with open_stream(server.url) as late:
            assert receive_all(late)[-1]["code"] == "draining" and late.close_code == 1013
        socket.send(samples[20_000:])
        socket.send('{"type": "end"}')
        assert " ".join(message["text"] for message in finals(receive_all(socket))) == "one four"
        thread.join(120)
        assert answers[0].status_code == 200 and len(answers[0].json()["text"].split()) > 1000
        assert server.process.wait(60) == 0
    assert "Traceback" not in server.log


def test_the_end_of_a_drain_tells_streams_and_uploads(tone_system, tmp_path, long_sound):
    with Server(tone_system, tmp_path, "--drain-seconds", 1) as server, open_stream(server.url) as socket:
        start(socket)
        threads = [in_thread(upload, server.url, long_sound, f"format={name}") for name in ("json", "jsonl")]
        assert until(lambda: metric(server.url, "asrtool_uploads_waiting") == 1, 30)
        server.process.send_signal(signal.SIGTERM)
        error = receive_all(socket)[-1]
        assert error["code"] == "draining" and socket.close_code == 1013
        for thread, answers in threads:
            thread.join(60)
            last = json.loads(answers[0].text.splitlines()[-1])  # of lines that were sent before, the last one
            assert last.get("error", last)["code"] == "draining" and answers[0].status_code in (200, 503), last
        assert 503 in [answers[0].status_code for _, answers in threads]
        assert server.process.wait(60) == 0
    assert "Traceback" not in server.log and not list(server.temporary.iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once_with_streams_and_uploads(tone_system, tmp_path, long_sound, number):
    with Server(tone_system, tmp_path, "--drain-seconds", 600) as server, open_stream(server.url) as socket:
        start(socket)
        in_thread(lambda: _ignore_errors(upload, server.url, long_sound))
        assert until(lambda: metric(server.url, "asrtool_uploads_active") == 1, 30)
        processes = children(server.pid)
        server.process.send_signal(number)
        assert until(lambda: metric(server.url, "asrtool_ready") == 0, 20)
        time.sleep(0.5)
        assert server.process.poll() is None
        assert server.end(number) == 0
        assert until(lambda: not any(map(alive, processes)))
    assert "Traceback" not in server.log, server.log
    assert not list(server.temporary.iterdir())


def _ignore_errors(function, *arguments):
    try:
        return function(*arguments)
    except Exception as error:
        return error
