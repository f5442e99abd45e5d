"""Uploads: what `asrtool transcribe` writes, OpenAI's API, and what is refused."""

import io
import json
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from multiprocessing.context import SpawnProcess

import numpy as np
import pytest
import soundfile

import asrtool
from asrtool.errors import UserError
from asrtool.inference.outputs import FORMATS
from asrtool.serve import upload_pool
from asrtool.serve.limits import Limits
from tests.faults.commands import children
from tests.serve.running import WAIT, http, metric, served
from tests.tiny import RATE


@pytest.fixture(scope="module")
def file(sound, tmp_path_factory):
    path = tmp_path_factory.mktemp("audio") / "talk.flac"
    soundfile.write(path, sound(6.0), RATE)
    return path


@pytest.fixture(scope="module")
def transcript(model, file):
    return model.transcribe(file)


@pytest.fixture(scope="module")
def client(upload_server):
    with http(upload_server.url) as client:
        yield client


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path, monkeypatch):
    """Other servers of this machine have their uploads elsewhere."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def spooled():
    return {name for name in os.listdir(tempfile.gettempdir()) if "asrtool-audio-" in name}


@pytest.mark.parametrize("format", ["json", "srt", "vtt", "txt"])
def test_the_answer_is_what_transcribe_writes(client, file, transcript, format):
    answer = client.post("/v1/transcribe", params={"format": format, "name": "talk.flac"}, content=file.read_bytes())
    assert answer.status_code == 200
    expected = FORMATS[format](transcript, "talk")
    if format == "json":
        assert answer.json() == {**json.loads(expected), "recording": "talk.flac"}
        assert answer.json()["text"]
    else:
        assert answer.text == expected


def test_a_form_gives_the_same(client, file, transcript):
    answer = client.post("/v1/transcribe", files={"file": ("../../talk.flac", file.read_bytes())})
    assert answer.json()["text"] == transcript.text and answer.json()["recording"] == "talk.flac"


def test_a_channel_is_chosen(client, sound, model):
    stereo = np.stack([sound(2.0), sound(2.0, seed=5)], axis=1)
    content = io.BytesIO()
    soundfile.write(content, stereo, RATE, format="WAV", subtype="FLOAT")
    answer = client.post("/v1/transcribe", params={"channel": "1"}, content=content.getvalue())
    assert answer.json()["text"] == model.transcribe(stereo, RATE, channel=1).text
    assert client.post("/v1/transcribe", params={"channel": "7"}, content=content.getvalue()).status_code == 415
    assert client.post("/v1/transcribe", params={"channel": "x"}, content=content.getvalue()).status_code == 422


def test_lines_of_json_come_segment_by_segment(client, file, transcript):
    answer = client.post("/v1/transcribe", params={"format": "jsonl"}, content=file.read_bytes())
    first, *segments, last = [json.loads(line) for line in answer.text.splitlines()]
    assert first == {"type": "recording", "seconds": 6.0}
    assert [segment["text"] for segment in segments] == [segment.text for segment in transcript.segments]
    assert segments[0]["words"][0] == vars(transcript.words[0])
    assert last["type"] == "end" and last["seconds"] == 6.0 and last["compute_seconds"] > 0


def test_openai_formats_have_the_fields_that_clients_read(client, file, transcript):
    def post(**fields):
        files = {"file": ("talk.flac", file.read_bytes())}
        return client.post("/v1/audio/transcriptions", files=files, data={"model": "whisper-1", **fields})

    assert post().json() == {"text": transcript.text, "usage": {"type": "duration", "seconds": 6}}
    assert post(response_format="text").text == FORMATS["txt"](transcript, "")
    assert post(response_format="srt").text == FORMATS["srt"](transcript, "")
    assert post(response_format="vtt").text == FORMATS["vtt"](transcript, "")
    verbose = post(response_format="verbose_json", language="en").json()
    assert {"task", "language", "duration", "text", "segments"} <= verbose.keys() and "words" not in verbose
    assert verbose["language"] == "en" and verbose["duration"] == 6.0
    names = "id seek start end text tokens temperature avg_logprob compression_ratio no_speech_prob"
    assert {*names.split()} <= verbose["segments"][0].keys()
    timed = post(response_format="verbose_json", **{"timestamp_granularities[]": ["word"]}).json()
    assert "segments" not in timed
    assert [(word["word"], word["start"], word["end"]) for word in timed["words"]] == [
        (word.text, word.start, word.end) for word in transcript.words
    ]
    assert post(response_format="mp3").status_code == 400
    assert post(**{"timestamp_granularities[]": ["line"]}).json()["error"]["code"] == "bad_request"


def test_openai_stream_sends_events(client, file, transcript):
    files = {"file": ("talk.flac", file.read_bytes())}
    answer = client.post("/v1/audio/transcriptions", files=files, data={"model": "x", "stream": "true"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert events[-1] == {"type": "transcript.text.done", "text": transcript.text}
    assert "".join(event["delta"] for event in events[:-1]) == transcript.text


def test_the_model_is_listed(client, stream_experiment):
    name = stream_experiment.name
    assert [model["id"] for model in client.get("/v1/models").json()["data"]] == [name]
    assert client.get(f"/v1/models/{name}").json()["object"] == "model"
    assert client.get("/v1/models/other").status_code == 404


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [(b"", 400, "bad_request"), (b"these are words", 415, "unsupported_audio"), (b"RIFF", 415, "unsupported_audio")],
)
def test_what_is_not_audio_is_one_line(client, content, status, code):
    before = spooled()
    for format in ("json", "jsonl"):
        answer = client.post("/v1/transcribe", params={"name": "x.wav", "format": format}, content=content)
        assert answer.status_code == status and answer.json()["error"]["code"] == code
        assert "\n" not in answer.json()["error"]["message"] and "/tmp" not in answer.json()["error"]["message"]
    assert spooled() <= before


def test_fields_of_a_form_are_parameters(client, file):
    upload = {"file": ("talk.flac", file.read_bytes())}
    fields = {"format": "json", "channel": "0", "name": "other.flac"}
    tree = client.post("/v1/transcribe", files=upload, data=fields).json()
    assert tree["recording"] == "other.flac" and tree["channel"] == 0
    answer = client.post("/v1/transcribe", files=upload, data={"format": "srt"})
    assert answer.headers["content-type"].startswith("application/x-subrip")
    tree = client.post("/v1/transcribe", files=upload, params={"name": "query.flac"}).json()
    assert tree["recording"] == "query.flac"


@pytest.mark.parametrize(("query", "fields", "message"), [
    ({}, {"fromat": "srt"}, "unknown parameter 'fromat'"),
    ({}, {"format": "doc"}, "format is one of"),
    ({}, {"channel": "x"}, "channel is mix or a number"),
    ({}, {"format": ["srt", "vtt"]}, "format is given twice"),
    ({"format": "srt"}, {"format": "vtt"}, "format is given twice"),
    ({"form\nat": "srt"}, {}, r"unknown parameter 'form\nat'"),
])  # fmt: skip
def test_fields_of_a_form_that_are_not_possible_are_refused(client, file, query, fields, message):
    upload = {"file": ("talk.flac", file.read_bytes())}
    answer = client.post("/v1/transcribe", files=upload, data=fields, params=query)
    assert answer.status_code == 422 and message in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/transcribe", "/v1/audio/transcriptions"])
def test_wrong_forms_are_refused(client, path):
    def status(**request):
        return client.post(path, **request).status_code

    assert status(files={"other": b"x"}) == 400
    assert status(data={"file": "text"}, files={"other": b"x"}) == 400
    assert status(headers={"content-type": "multipart/form-data"}, content=b"x") == 400
    assert status(headers={"content-type": "multipart/form-data; boundary=x"}, content=b"--y\r\n") == 400
    assert client.get(path).status_code == 405


def test_an_unknown_format_and_path_are_refused(client, file):
    assert client.post("/v1/transcribe", params={"format": "doc"}, content=file.read_bytes()).status_code == 422
    answer = client.get("/v1/nothing")
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "not_found"


def test_uploads_are_counted_and_removed(upload_server, client, file):
    before, files = metric(upload_server.url, 'asrtool_uploads_total{outcome="finished"}'), spooled()
    client.post("/v1/transcribe", content=file.read_bytes())
    assert metric(upload_server.url, 'asrtool_uploads_total{outcome="finished"}') == before + 1
    while metric(upload_server.url, "asrtool_uploads_active"):  # until its thread has ended
        time.sleep(0.05)
    assert spooled() <= files


def upload_process():
    """The processes of uploads below this process, which runs the servers in threads."""
    children = multiprocessing.active_children()
    return [child.pid for child in children if child.name == "asrtool uploads"]


def test_a_process_that_is_killed_is_replaced(client, file, transcript):
    for process in upload_process():
        os.kill(process, signal.SIGKILL)
    answer = client.post("/v1/transcribe", content=file.read_bytes())
    assert answer.json()["text"] == transcript.text


def test_limits_of_uploads(stream_experiment, file, sound):
    limits = Limits(max_upload_bytes=300_000, max_upload_seconds=7.0, pause_seconds=3.0, max_queued_uploads=0)
    with served(stream_experiment, limits=limits) as running, http(running.url) as client:
        long = io.BytesIO()
        soundfile.write(long, sound(8.0), RATE, format="FLAC", subtype="PCM_16")
        answer = client.post("/v1/transcribe", content=long.getvalue())
        assert answer.status_code == 413 and answer.json()["error"]["code"] == "too_long"
        for content in (b"x" * 300_001, iter([b"x" * 100_000] * 4)):  # with a Content-Length, and in chunks
            answer = client.post("/v1/transcribe", content=content)
            assert answer.status_code == 413 and answer.json()["error"]["code"] == "too_large"
        answer = client.post("/v1/transcribe", files={"file": b"x" * 299_999 + b"y" * 5000})
        assert answer.status_code == 413

        def slow():
            yield b"x"
            time.sleep(5)
            yield b"x"

        assert client.post("/v1/transcribe", content=slow()).status_code == 408
        assert client.post("/v1/transcribe", content=file.read_bytes()).status_code == 200


@pytest.mark.slow
def test_a_process_that_hangs_is_ended_and_the_queue_is_bounded(stream_experiment, file, tmp_path, monkeypatch):
    long_file = tmp_path / "long.flac"
    soundfile.write(long_file, np.tile(soundfile.read(file)[0], 100), RATE)
    hand_over = upload_pool.UploadProcess._hand_over

    def hand_over_and_stop(self, job):
        hand_over(self, job)
        os.kill(process, signal.SIGSTOP)
        self._max_seconds = 1.0

    before = set(upload_process())
    with served(stream_experiment, limits=Limits(max_queued_uploads=0)) as running, http(running.url) as client:
        (process,) = set(upload_process()) - before
        monkeypatch.setattr(upload_pool, "LEAST_DEADLINE", 1.0)
        monkeypatch.setattr(upload_pool.UploadProcess, "_hand_over", hand_over_and_stop)
        answer = client.post("/v1/transcribe", content=long_file.read_bytes())
        assert answer.status_code == 500 and "took too long" in answer.json()["error"]["message"]
        monkeypatch.undo()
        answer = client.post("/v1/transcribe", content=file.read_bytes())
        assert answer.status_code == 200


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_ends_or_hangs_while_it_is_free_loses_no_upload(stream_experiment, file, monkeypatch, number):
    before = set(upload_process())
    with served(stream_experiment) as running, http(running.url) as client:
        (process,) = set(upload_process()) - before
        if number == signal.SIGSTOP:
            monkeypatch.setattr(upload_pool, "TAKE_SECONDS", 5.0)
        monkeypatch.setattr(SpawnProcess, "is_alive", lambda self: True)  # as it says until all threads have ended
        os.kill(process, number)
        answer = client.post("/v1/transcribe", content=file.read_bytes())
        assert answer.status_code == 200
        assert process not in upload_process()


def test_a_process_that_does_not_open_the_model_in_time_is_reported(stream_experiment, monkeypatch):
    monkeypatch.setattr(upload_pool, "OPEN_SECONDS", 0.01)
    process = upload_pool.UploadProcess({"path": stream_experiment}, 1, 60.0)
    try:
        with pytest.raises(UserError, match="has not opened the model in 0.01 seconds"):
            process.wait_ready()
    finally:
        process.stop()


def test_where_no_process_can_be_started_an_upload_fails_and_later_ones_do_not(stream_experiment, file, monkeypatch):
    def refused(*_):
        raise BlockingIOError("no process is left")

    before = set(upload_process())
    with served(stream_experiment) as running, http(running.url) as client:
        (process,) = set(upload_process()) - before
        monkeypatch.setattr(upload_pool.UploadProcess, "_start", refused)
        os.kill(process, signal.SIGKILL)
        for _ in range(2):
            answer = client.post("/v1/transcribe", content=file.read_bytes())
            assert answer.status_code == 500 and answer.json()["error"]["code"] == "failed"
        monkeypatch.undo()
        assert client.post("/v1/transcribe", content=file.read_bytes()).status_code == 200


@pytest.mark.parametrize("charset", ["unicode_escape", "latin-1", "punycode"])
def test_a_form_in_another_charset_is_refused(client, file, charset):
    body = (
        b'--x\r\nContent-Disposition: form-data; name="language"\r\n\r\n\\ud800\r\n--x\r\n'
        b'Content-Disposition: form-data; name="file"; filename="a.flac"\r\n\r\n' + file.read_bytes() + b"\r\n--x--\r\n"
    )
    headers = {"Content-Type": f"multipart/form-data; boundary=x; charset={charset}"}
    answer = client.post("/v1/audio/transcriptions", content=body, headers=headers)
    assert answer.status_code == 400 and "UTF-8" in answer.json()["error"]["message"]
    headers["Content-Type"] = "multipart/form-data; boundary=x; charset=UTF-8"
    assert client.post("/v1/audio/transcriptions", content=body, headers=headers).status_code == 200


def test_too_many_uploads_are_told_when_to_come_back(stream_experiment, file):
    limits = Limits(max_queued_uploads=0)
    with served(stream_experiment, limits=limits) as running, http(running.url) as client:
        receiving = threading.Event()
        end = threading.Event()

        def body():
            yield file.read_bytes()[:1000]
            receiving.set()
            end.wait(WAIT)
            yield file.read_bytes()[1000:]

        answers = []
        first = threading.Thread(target=lambda: answers.append(client.post("/v1/transcribe", content=body())))
        first.start()
        receiving.wait(WAIT)
        with http(running.url) as other:
            while metric(running.url, "asrtool_uploads_waiting") < 1:
                time.sleep(0.05)
            busy = other.post("/v1/transcribe", content=file.read_bytes())
        end.set()
        first.join()
        assert busy.status_code == 503 and int(busy.headers["retry-after"]) > 0
        assert busy.json()["error"]["code"] == "limit"
        assert answers[0].status_code == 200


def test_a_client_that_leaves_frees_the_process(stream_experiment, sound, transcript, file):
    content = io.BytesIO()
    soundfile.write(content, sound(120.0), RATE, format="FLAC")
    files = spooled()
    with served(stream_experiment) as running:
        request = {"method": "POST", "url": "/v1/transcribe?format=jsonl", "content": content.getvalue()}
        with http(running.url) as client, client.stream(**request) as answer:
            next(answer.iter_lines())
        with http(running.url) as client:
            answer = client.post("/v1/transcribe", content=file.read_bytes())
            assert answer.json()["text"] == transcript.text
        while metric(running.url, "asrtool_uploads_active"):
            assert metric(running.url, "asrtool_uploads_waiting") == 0
            time.sleep(0.05)
        assert spooled() <= files


def test_a_server_without_uploads_says_so(server, file):
    with http(server.url) as client:
        answer = client.post("/v1/transcribe", content=file.read_bytes())
        assert answer.status_code == 404 and "no uploads" in answer.json()["error"]["message"]
        assert client.get("/v1/model").json()["uploads"] is False


def test_search_processes_are_used(stream_experiment, file):
    expected = asrtool.load(stream_experiment, method="prefix", device="cpu", vad="none").transcribe(file)
    with served(stream_experiment, "prefix", jobs=2) as running, http(running.url) as client:
        assert client.post("/v1/transcribe", content=file.read_bytes()).json()["text"] == expected.text


def test_killed_search_processes_are_replaced(stream_experiment, file):
    expected = asrtool.load(stream_experiment, method="prefix", device="cpu", vad="none").transcribe(file)
    before = set(upload_process())
    with served(stream_experiment, "prefix", jobs=2) as running, http(running.url) as client:
        (process,) = set(upload_process()) - before
        for child in children(process):
            os.kill(child, signal.SIGTERM)  # as from a service manager, to all processes: they leave it to their parent
        assert client.post("/v1/transcribe", content=file.read_bytes()).json()["text"] == expected.text
        os.kill(children(process)[0], signal.SIGKILL)
        assert client.post("/v1/transcribe", content=file.read_bytes()).json()["text"] == expected.text


def test_what_an_upload_warns_of_is_in_the_log_with_its_name(upload_server, caplog):
    silence = io.BytesIO()
    soundfile.write(silence, np.zeros(RATE), RATE, format="WAV")
    with http(upload_server.url) as client:
        client.post("/v1/transcribe?name=quiet%20room.wav", content=silence.getvalue())
    (line,) = [record for record in caplog.records if "silent" in record.getMessage()]
    upload = line.fields["upload"]
    assert line.getMessage().startswith(f"upload {upload}: silent: quiet room.wav has no sample")
    assert any(record.getMessage().startswith(f"upload {upload} finished") for record in caplog.records)


def test_a_parameter_that_is_misspelt_is_refused(upload_server):
    with http(upload_server.url) as client:
        answer = client.post("/v1/transcribe?fromat=txt", content=b"x")
    assert answer.status_code == 422 and "fromat" in answer.text and "did you mean 'format'" in answer.text
