"""How the server starts and ends: errors of the command, the drain, signals, logs, and the audio that it keeps."""

import json
import logging
import resource
import signal
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asrtool.serve.connections import SPARE_FILES, allow_connections
from asrtool.serve.json_logs import set_log_format
from asrtool.serve.kept_audio import AudioKeeper
from asrtool.serve.limits import Limits
from asrtool.serve.listening import warn_if_exposed
from asrtool.serve.messages import StartMessage
from asrtool.serve.service import Service
from asrtool.serve.settings import ServerSettings
from tests.serve.running import (
    NO_UPLOADS,
    WAIT,
    ServerProcess,
    finals,
    http,
    metric,
    open_stream,
    pcm16,
    receive_all,
    served,
    speak,
    start,
    word_rows,
)
from tests.tiny import RATE


def until_draining(url):
    with http(url) as client:
        while client.get("/ready").status_code != 503:
            time.sleep(0.05)
        assert client.get("/health").status_code == 200


def test_a_drain_lets_streams_end_and_admits_none(stream_experiment, sound):
    with served(stream_experiment, limits=NO_UPLOADS) as running, open_stream(running.url) as stream:
        start(stream)
        stream.send(pcm16(sound(1.0)))
        running.stop()
        until_draining(running.url)
        with open_stream(running.url) as other:
            (error,) = receive_all(other)
            assert error["code"] == "draining" and other.close_code == 1013
        stream.send(pcm16(sound(1.0)))
        stream.send('{"type": "end"}')
        messages = receive_all(stream)
        assert finals(messages) and messages[-1]["type"] == "end" and messages[-1]["audio_seconds"] == 2.0


def test_a_drain_ends_streams_that_go_on(stream_experiment):
    with (
        served(stream_experiment, limits=NO_UPLOADS, drain_seconds=0.5) as running,
        open_stream(running.url) as stream,
        open_stream(running.url) as silent,
    ):
        start(stream)
        running.stop()
        assert receive_all(stream)[-1]["code"] == "draining" and stream.close_code == 1013
        assert receive_all(silent)[-1]["code"] == "draining" and silent.close_code == 1013


def test_what_was_said_before_the_end_of_a_drain_is_recognised(stream_experiment, sound):
    with (
        served(stream_experiment, limits=NO_UPLOADS, drain_seconds=3.0) as running,
        open_stream(running.url) as stream,
    ):
        content = pcm16(sound(2.0))
        start(stream, endpoint=[])
        stream.send(content)
        running.stop()
        *results, error = receive_all(stream)
        assert error["code"] == "draining" and stream.close_code == 1013
    with served(stream_experiment, limits=NO_UPLOADS) as running:
        assert word_rows(finals(results)) == word_rows(finals(speak(running.url, content, endpoint=[])))
    assert finals(results)[0]["words"]


def test_a_drain_waits_for_uploads(stream_experiment, sound, tmp_path):
    soundfile.write(tmp_path / "talk.wav", sound(20.0), RATE)
    answers = []
    with served(stream_experiment) as running:
        refused = threading.Event()

        def body():
            content = (tmp_path / "talk.wav").read_bytes()
            yield content[:1000]
            refused.wait(WAIT)
            yield content[1000:]

        def post():
            with http(running.url) as client:
                answers.append(client.post("/v1/transcribe", content=body()))

        thread = threading.Thread(target=post)
        thread.start()
        while metric(running.url, "asrtool_uploads_waiting") < 1:
            time.sleep(0.05)
        running.stop()
        until_draining(running.url)
        with http(running.url) as client:
            answer = client.post("/v1/transcribe", content=b"x")
            assert answer.status_code == 503 and answer.json()["error"]["code"] == "draining"
        refused.set()
        thread.join()
    assert answers[0].status_code == 200 and answers[0].json()["text"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_the_process(stream_experiment, sound, number):
    options = ["--upload-workers", "0", "--log-format", "json", "--device", "cpu"]
    with ServerProcess(stream_experiment, *options) as server, open_stream(server.url) as stream:
        start(stream)
        stream.send(pcm16(sound(1.0)))
        server.process.send_signal(number)
        until_draining(server.url)
        stream.send('{"type": "end"}')
        assert finals(receive_all(stream))
        status, log = server.wait()
    assert status == 0
    events = [json.loads(line) for line in log.splitlines()]
    (event,) = [event for event in events if "stream" in event]
    assert event["outcome"] == "finished" and event["audio_seconds"] == 1.0 and event["level"] == "info"


def test_a_second_signal_ends_at_once(stream_experiment):
    options = ["--upload-workers", "0", "--drain-seconds", "600"]
    with ServerProcess(stream_experiment, *options) as server, open_stream(server.url) as stream:
        start(stream)
        server.process.send_signal(signal.SIGTERM)
        until_draining(server.url)
        server.process.send_signal(signal.SIGTERM)
        assert server.wait()[0] == 0


def test_processes_of_uploads_end_with_a_killed_server(stream_experiment):
    with ServerProcess(stream_experiment) as server:
        pid = server.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        assert children
        server.process.kill()
        server.wait()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and any(_is_running(child) for child in children):
        time.sleep(0.1)
    assert not any(_is_running(child) for child in children)


def _is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wrong_starts(model, folder):
    """Options of `asrtool serve`, and what its one line of error has."""
    (folder / "token").write_text("short")
    (folder / "cert.pem").write_text("no certificate")
    return {
        "no model": ([folder / "none"], "none"),
        "no token": ([model, "--token-file", folder / "token"], "no token"),
        "no certificate": ([model, "--tls-cert", folder / "missing.pem", "--tls-key", folder / "token"], "not found"),
        "a wrong certificate": ([model, "--tls-cert", folder / "cert.pem", "--tls-key", folder / "token"], "PEM"),
        "a certificate without a key": ([model, "--tls-cert", folder / "cert.pem"], "together"),
        "an unknown limit": ([model, "--limit", "max_stream=1"], "max_streams"),
        "an unknown host": ([model, "--host", "999.0.0.1"], "cannot listen"),
        "a folder that is a file": ([model, "--keep-audio", folder / "token"], "keep-audio"),
        "an option of another method": ([model, "--method", "greedy", "--lm-weight", "1"], "lm_weight"),
    }


def test_errors_of_the_command_are_one_line(stream_experiment, tmp_path, asr):
    for name, (options, part) in wrong_starts(stream_experiment, tmp_path).items():
        status, _, error = asr("serve", *options, "--port", 0, "--upload-workers", 0, "--device", "cpu")
        lines = [line for line in error.splitlines() if "error:" in line]
        assert status == 2 and len(lines) == 1 and part in lines[0], (name, error)
        assert "Traceback" not in error


def test_a_port_in_use_is_one_line(stream_experiment, asr):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        status, _, error = asr("serve", stream_experiment, "--port", other.getsockname()[1])
    assert status == 2 and "cannot listen" in error and "in use" in error and len(error.splitlines()) == 1


def test_a_port_that_another_server_takes_meanwhile_is_one_line(stream_experiment, asr, monkeypatch):
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        monkeypatch.setattr(Service, "warm_up", lambda _: other.listen())  # it comes after the server's own bind
        options = ["--port", other.getsockname()[1], "--upload-workers", 0, "--device", "cpu"]
        status, _, error = asr("serve", stream_experiment, *options)
    assert status == 2 and "cannot listen" in error and "in use" in error and "Traceback" not in error


def test_enough_files_may_be_open(monkeypatch, capsys):
    limits = Limits(max_connections=5000, max_streams=100)
    chosen = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, values: chosen.append(values))
    for soft, hard in [(1024, 20_000), (6000, 6000), (1024, 4096)]:
        monkeypatch.setattr(resource, "getrlimit", lambda _, values=(soft, hard): values)
        allow_connections(limits)
    assert chosen == [(5000 + 100 + SPARE_FILES, 20_000), (4096, 4096)]
    (line,) = capsys.readouterr().err.splitlines()
    assert "4096 files" in line and "--max-connections 5000" in line


def test_errors_of_other_packages_are_lines_of_the_log(capsys):
    set_log_format("json")
    try:
        logging.getLogger("asyncio").error("two\nlines")
        logging.getLogger("python_multipart.multipart").warning("a client sends what it wants")
    finally:
        set_log_format("text")
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["message"] == "two\nlines"


def test_a_server_for_other_machines_warns(capsys):
    warn_if_exposed(ServerSettings({}))
    assert capsys.readouterr().err == ""
    warn_if_exposed(ServerSettings({}, host="0.0.0.0"))
    assert "--token-file" in (lines := capsys.readouterr().err) and "--tls-cert" in lines


def test_missing_packages_are_named(stream_experiment, asr, monkeypatch):
    monkeypatch.setattr("asrtool.serve.packages.find_spec", lambda name: None if name == "uvicorn" else True)
    status, _, error = asr("serve", stream_experiment)
    assert status == 2 and "pip install 'asrtool[serve]'" in error and "uvicorn" in error


def test_nothing_is_kept_unless_asked_and_then_all(stream_experiment, sound, tmp_path):
    samples = sound(2.0)
    soundfile.write(tmp_path / "talk.flac", samples, RATE)
    kept = tmp_path / "kept"
    with served(stream_experiment, keep_audio=kept) as running, http(running.url) as client:
        assert client.get("/v1/model").json()["keeps_audio"] is True
        results = finals(speak(running.url, pcm16(samples)))
        text = client.post("/v1/transcribe", content=(tmp_path / "talk.flac").read_bytes()).json()["text"]
    (wav,) = kept.glob("*-stream-*.wav")
    stored, rate = soundfile.read(wav, dtype="int16")
    assert rate == RATE and np.array_equal(stored, np.frombuffer(pcm16(samples), "<i2"))
    assert json.loads(wav.with_suffix(".json").read_text())["results"] == results
    (audio,) = kept.glob("*-upload-*.audio")
    assert audio.read_bytes() == (tmp_path / "talk.flac").read_bytes()
    assert json.loads(audio.with_suffix(".json").read_text())["text"] == text
    assert kept.stat().st_mode & 0o077 == 0


def test_a_folder_that_others_may_read_is_left_as_it_is_with_a_warning(tmp_path, capsys):
    for mode, number in [(0o700, 0), (0o755, 1)]:
        tmp_path.chmod(mode)
        AudioKeeper(tmp_path, 1000)
        assert tmp_path.stat().st_mode & 0o777 == mode
        assert capsys.readouterr().err.count("other users may read") == number


def test_a_folder_of_two_servers_may_lose_files_while_it_is_measured(tmp_path, monkeypatch):
    (tmp_path / "kept").write_bytes(bytes(100))
    files = [tmp_path / ".tmp-renamed-since", tmp_path / "kept"]
    monkeypatch.setattr(Path, "iterdir", lambda folder: iter(files))
    keeper = AudioKeeper(tmp_path, 1000)
    assert keeper.take(900) and not keeper.take(1)


def test_a_full_folder_keeps_no_more_and_harms_no_stream(stream_experiment, sound, tmp_path):
    limits = Limits(upload_workers=0, max_kept_bytes=40_000)
    with served(stream_experiment, keep_audio=tmp_path / "kept", limits=limits) as running:
        for _ in range(3):
            assert finals(speak(running.url, pcm16(sound(2.0))))
    assert sum(file.stat().st_size for file in (tmp_path / "kept").glob("*.wav")) < 41_000


START = StartMessage(type="start", format="f32le")


def test_streams_without_audio_are_not_kept(tmp_path):
    keeper = AudioKeeper(tmp_path, 1 << 20)
    for n in range(10):
        keeper.open_stream(str(n), START).close("finished")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["stream", "upload"])
def test_headers_and_results_count_for_a_full_folder(tmp_path, kind):
    keeper = AudioKeeper(tmp_path / "kept", 20_000)
    (tmp_path / "tiny").write_bytes(b"x")
    for n in range(100):
        if kind == "upload":
            keeper.keep_upload(str(n), tmp_path / "tiny", {"text": "one " * 100})
        elif stream := keeper.open_stream(str(n), START):
            stream.write(np.zeros((1, 1), np.float32))
            stream.add_result({"text": "one " * 100})
            stream.close("finished")
    size = sum(file.stat().st_size for file in (tmp_path / "kept").iterdir())
    assert 15_000 < size < 21_000
