"""Live streams: the words of `asrtool.Model.stream`, for every kind of audio, alone and together."""

import io
import json
import threading
import time

import numpy as np
import pytest
import soundfile
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from asrtool.serve.limits import Limits
from tests.serve.running import (
    NO_UPLOADS,
    finals,
    http,
    metric,
    open_stream,
    pcm16,
    receive,
    receive_all,
    served,
    speak,
    start,
    word_rows,
)
from tests.tiny import RATE


def expected(model, samples, rate=RATE, endpoint=("default",)):
    """The final results of the samples in a stream of their own."""
    return [result for result in model.stream(rate, endpoint).results([samples]) if result.is_final]


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 48000, 192000])
@pytest.mark.parametrize("format", ["s16le", "f32le"])
def test_words_are_those_of_a_stream_in_this_process(server, model, sound, rate, format):
    samples = sound(2.0, rate)
    content = pcm16(samples) if format == "s16le" else samples.astype("<f4").tobytes()
    stored = np.frombuffer(content, "<i2" if format == "s16le" else "<f4")
    messages = speak(server.url, content, 4001, rate=rate, format=format)
    assert word_rows(finals(messages)) == word_rows(expected(model, stored, rate))
    assert finals(messages)[-1]["words"]
    assert messages[0]["type"] == "ready" and messages[0]["chunk_seconds"] > 0
    assert messages[-1]["type"] == "end" and messages[-1]["audio_seconds"] == pytest.approx(
        len(samples) / rate, abs=1e-3
    )
    assert messages[-1]["compute_seconds"] > 0


def test_channels_are_mixed(server, model, sound):
    stereo = np.stack([sound(2.0), sound(2.0, seed=2)], axis=1)
    content = pcm16(stereo)
    stored = np.frombuffer(content, "<i2").reshape(-1, 2)
    messages = speak(server.url, content, 1001, channels=2)
    assert word_rows(finals(messages)) == word_rows(expected(model, stored))


def test_rules_end_utterances(server, model, sound):
    samples = sound(4.0)
    stored = np.frombuffer(pcm16(samples), "<i2")
    messages = speak(server.url, pcm16(samples), endpoint=["length=1"])
    assert len(finals(messages)) > 2
    assert word_rows(finals(messages)) == word_rows(expected(model, stored, endpoint=["length=1"]))
    assert len(finals(speak(server.url, pcm16(samples), endpoint=[]))) == 1


def test_partial_results_come_unless_they_are_not_wanted(server, sound):
    content = pcm16(sound(3.0))
    partials = [message for message in speak(server.url, content) if message["type"] == "partial"]
    assert partials and partials[-1]["words"] and partials[-1]["num_final"] <= len(partials[-1]["words"])
    assert not [message for message in speak(server.url, content, partial=False) if message["type"] == "partial"]


def test_many_streams_at_a_time_have_the_words_of_each_alone(server, model, sound):
    sounds = [sound(1.0 + 0.3 * number, seed=number) for number in range(8)]
    results = {}

    def run(number):
        results[number] = finals(speak(server.url, pcm16(sounds[number]), 1000 + 500 * number))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, samples in enumerate(sounds):
        stored = np.frombuffer(pcm16(samples), "<i2")
        assert word_rows(results[number]) == word_rows(expected(model, stored)), number


def test_hotwords_change_the_words(stream_experiment, sound):
    content = pcm16(sound(2.0))
    with served(stream_experiment, "prefix", limits=NO_UPLOADS) as running:
        plain = finals(speak(running.url, content))[0]["text"].split()
        boosted = finals(speak(running.url, content, hotwords=["four\t100"]))[0]["text"].split()
        assert boosted.count("four") > plain.count("four")
        with open_stream(running.url) as socket:
            answer = start(socket, hotwords=["nonsense"])
            assert answer["type"] == "error" and answer["code"] == "invalid" and "nonsense" in answer["message"]


def test_a_client_that_leaves_with_the_last_message_has_finished(server, sound):
    before = metric(server.url, 'asrtool_streams_total{outcome="finished"}')
    for _ in range(10):
        with open_stream(server.url) as socket:
            start(socket)
            socket.send(pcm16(sound(0.4)))
            socket.send('{"type": "end"}')
            while receive(socket)["type"] != "end":
                pass
    while metric(server.url, "asrtool_streams_active"):
        time.sleep(0.05)
    assert metric(server.url, 'asrtool_streams_total{outcome="finished"}') == before + 10


def test_a_client_that_leaves_is_forgotten(server, sound):
    before = metric(server.url, 'asrtool_streams_total{outcome="disconnected"}')
    with open_stream(server.url) as socket:
        start(socket)
        socket.send(pcm16(sound(1.0)))
        receive(socket)
    speak(server.url, pcm16(sound(0.4)))
    assert metric(server.url, 'asrtool_streams_total{outcome="disconnected"}') == before + 1
    assert metric(server.url, "asrtool_streams_active") == 0


BAD_MESSAGES = {
    "not JSON": ("{", "bad_request", 1007),
    "no object": ("[]", "bad_request", 1007),
    "audio first": (b"\0\0", "bad_request", 1007),
    "another type": ('{"type": "end"}', "bad_request", 1007),
    "a rate too high": ('{"type": "start", "rate": 200000}', "bad_request", 1007),
    "a rate that is text": ('{"type": "start", "rate": "16000"}', "bad_request", 1007),
    "channels": ('{"type": "start", "channels": 9}', "bad_request", 1007),
    "format": ('{"type": "start", "format": "mp3"}', "bad_request", 1007),
    "unknown field": ('{"type": "start", "language": "en"}', "bad_request", 1007),
    "rule": ('{"type": "start", "endpoint": ["sometimes"]}', "invalid", 1007),
    "hotwords of greedy search": ('{"type": "start", "hotwords": ["one"]}', "invalid", 1007),
    "a surrogate": ('{"type": "start", "endpoint": ["\\ud800"]}', None, 1007),
    "too much text": (json.dumps({"type": "start", "hotwords": ["a" * 100_000]}), "too_large", 1009),
}


@pytest.mark.parametrize("name", BAD_MESSAGES)
def test_a_wrong_start_is_one_line(server, name):
    message, code, close = BAD_MESSAGES[name]
    with open_stream(server.url) as socket:
        socket.send(message)
        (error,) = receive_all(socket)
        assert error["type"] == "error" and "\n" not in error["message"] and len(error["message"]) < 1001
        assert error["code"] == (code or error["code"]) and socket.close_code == close


def after_start(url, *messages, **fields):
    """The last message and the close code after these messages."""
    with open_stream(url) as socket:
        start(socket, **fields)
        for message in messages:
            socket.send(message)
        return receive_all(socket)[-1], socket.close_code


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_refused(server, value):
    samples = np.zeros(1000, "<f4")
    samples[500] = value
    error, close = after_start(server.url, samples.tobytes(), format="f32le")
    assert error["code"] == "invalid" and close == 1007


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG"])
def test_an_audio_file_instead_of_samples_is_refused(server, sound, format):
    file = io.BytesIO()
    soundfile.write(file, sound(0.4), RATE, format=format)
    error, close = after_start(server.url, file.getvalue())
    assert error["code"] == "invalid" and "header of a file" in error["message"] and close == 1007


def test_wrong_messages_within_a_stream_are_refused(server):
    error, close = after_start(server.url, '{"type": "stop"}')
    assert error["code"] == "bad_request" and close == 1007
    error, close = after_start(server.url, b"\0", '{"type": "end"}')
    assert error["code"] == "invalid" and close == 1007


def test_a_stream_without_audio_ends(server):
    message, close = after_start(server.url, '{"type": "end"}')
    assert message["type"] == "end" and message["audio_seconds"] == 0 and close == 1000


def test_a_model_that_needs_whole_utterances_says_so(experiment):
    with served(experiment, limits=NO_UPLOADS) as running, open_stream(running.url) as socket:
        (error,) = receive_all(socket)
        assert error["code"] == "cannot_stream" and socket.close_code == 1008
        with http(running.url) as client:
            description = client.get("/v1/model").json()
        assert description["streams"] is False and description["no_streams"] in error["message"]


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.5])  # less than the chunk of the model, and more
def test_a_slow_engine_slows_down_a_fast_client_and_loses_nothing(stream_experiment, model, sound, seconds):
    samples = sound(20.0)
    stored = np.frombuffer(pcm16(samples), "<i2")
    limits = Limits(upload_workers=0, max_backlog_seconds=seconds)
    with served(stream_experiment, limits=limits) as running:
        messages = speak(running.url, pcm16(samples), 3200)
    assert word_rows(finals(messages)) == word_rows(expected(model, stored))


def test_ready_warns_of_a_lower_rate_than_the_model_has(server):
    with open_stream(server.url) as stream:
        assert "8000 Hz" in start(stream, rate=8000)["warning"]
    with open_stream(server.url) as stream:
        assert "warning" not in start(stream, rate=RATE)


def test_an_error_names_the_field_and_not_an_option(server):
    with open_stream(server.url) as stream:
        error = start(stream, endpoint=["no rule"])
    assert error["code"] == "invalid" and "endpoint" in error["message"] and "--" not in error["message"]


def test_a_websocket_of_another_address_is_not_found(server):
    for path in ("/", "/v1/streams", "/v1/model"):
        with pytest.raises(InvalidStatus) as refused:
            connect(server.url.replace("http", "ws", 1) + path, proxy=None)
        assert refused.value.response.status_code == 404
