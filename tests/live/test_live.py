"""Live recognition of files and pipes: any rate, pieces of any size, text and JSON lines, Ctrl-C and closed pipes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asrtool.inference.results import Word
from asrtool.inference.stream import StreamResult
from asrtool.live.live import cut_pieces
from asrtool.live.live_output import JsonPrinter, TextPrinter
from asrtool.text.display_width import display_width
from tests.tiny import RATE, tone

FREQUENCIES = (300, 2500, 700, 3300, 1500, 500, 2900, 900) * 2
SECONDS = 0.3 * len(FREQUENCIES)


def sounds(rate):
    return np.concatenate([tone(frequency, 0.3, seed, rate) for seed, frequency in enumerate(FREQUENCIES)])


@pytest.fixture(scope="module")
def talk(tmp_path_factory):
    """A recording of 4.8 s, 16 kHz, 16 bit."""
    path = tmp_path_factory.mktemp("talk") / "talk.wav"
    soundfile.write(path, sounds(RATE), RATE)
    return path


@pytest.fixture
def stream(stream_experiment, asr):
    """stream("--wav", path) -> exit status, stdout, stderr; utterances end after 1 s"""
    return lambda *options: asr("stream", stream_experiment, "--endpoint", "length=1", *options)


@pytest.fixture
def pipe(stream, monkeypatch):
    """pipe(pieces, "--pcm", "16000") -> as `stream`, with `pieces` of bytes that a thread writes to standard input"""

    def run(pieces, *options, pause=0.0):
        reader, writer = os.pipe()

        def write():
            with open(writer, "wb", buffering=0) as file, contextlib.suppress(BrokenPipeError):
                for piece in pieces:
                    file.write(piece)
                    time.sleep(pause)

        thread = threading.Thread(target=write)
        with open(reader) as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            thread.start()
            result = stream(*options)
        thread.join()
        return result

    return run


def cut(content, sizes=(1, 3001, 2, 17, 40000)):
    """Yields bytes in pieces of odd sizes, in turn."""
    first = number = 0
    while first < len(content):
        size = sizes[number % len(sizes)]
        yield content[first : first + size]
        first, number = first + size, number + 1


def rows(out):
    """Returns the final results of `--json`, without what differs from call to call."""
    found = [json.loads(line) for line in out.splitlines()]
    return [{k: v for k, v in row.items() if not k.endswith("_seconds")} for row in found if row["type"] == "final"]


def test_a_recording_is_printed_while_it_is_read(stream, talk):
    status, out, err = stream("--wav", talk)
    lines = out.splitlines()
    ended = [line.split() for line in lines if not line.endswith("...")]
    assert status == 0 and err == "" and len(ended) > 1 and len(lines) > len(ended)
    assert all(float(start) < float(end) <= SECONDS for start, end, *_ in ended)
    assert all(one != other for one, other in zip(lines, lines[1:], strict=False))


def test_the_best_search_is_used_without_a_method(stream, talk):
    assert stream("--wav", talk)[1] == stream("--wav", talk, "--method", "prefix")[1]
    assert stream("--wav", talk)[1] != stream("--wav", talk, "--method", "greedy")[1]
    status, _, err = stream("--wav", talk, "--graph", "none")
    assert status == 2 and "none" in err and "has no effect" not in err  # --graph alone chooses graph search


def test_without_rules_a_recording_is_one_utterance(stream_experiment, asr, talk):
    out = asr("stream", stream_experiment, "--wav", talk, "--endpoint", "none", "--json")[1]
    (final,) = rows(out)
    assert (final["start"], final["end"]) == (0, SECONDS)


def test_json_lines_are_those_of_the_text_with_times_and_confidence(stream, talk):
    text = stream("--wav", talk)[1].splitlines()
    lines = [json.loads(line) for line in stream("--wav", talk, "--json")[1].splitlines()]
    *results, end = lines
    assert end.keys() == {"type", "audio_seconds", "compute_seconds"} and end["type"] == "end"
    assert end["audio_seconds"] == SECONDS and end["compute_seconds"] > 0
    finals = [row for row in results if row["type"] == "final"]
    assert [row["text"] for row in finals] == [line.split(maxsplit=2)[2] for line in text if not line.endswith("...")]
    for row in results:
        names = {"start", "end", "confidence"} if row["type"] == "final" else {"start", "end"}
        assert [word["text"] for word in row["words"]] == row["text"].split()
        assert all(word.keys() == {"text", *names} for word in row["words"])
        assert ("confidence" if row["type"] == "final" else "num_final") in row
    assert [row["audio_seconds"] for row in lines] == sorted(row["audio_seconds"] for row in lines)
    assert len({row["audio_seconds"] for row in lines}) > 10  # while it is read


@pytest.mark.parametrize("rate, channels", [(22050, 1), (44100, 1), (48000, 2)])
def test_a_pipe_of_samples_gives_the_words_of_the_file(stream, pipe, tmp_path, rate, channels):
    samples = np.stack([sounds(rate)] * channels, axis=1) * np.linspace(1, 0.5, channels)  # (n, channels)
    path = tmp_path / "a.wav"
    soundfile.write(path, samples, rate, subtype="FLOAT")
    expected = rows(stream("--wav", path, "--json")[1])
    content = samples.astype("<f4").tobytes()
    status, out, err = pipe(cut(content), "--pcm", f"{rate}:f32le:{channels}", "--json")
    assert (status, err) == (0, "") and len(expected) > 1 and rows(out) == expected


@pytest.mark.parametrize("sizes", [(1,), (3, 5), (40000,)])
@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG"])
def test_an_audio_file_is_not_raw_samples(pipe, tmp_path, format, sizes):
    path = tmp_path / "short"
    soundfile.write(path, tone(300, 0.1, 0), RATE, format=format)
    status, out, err = pipe(cut(path.read_bytes(), sizes), "--pcm", "16000", "--json")
    assert status == 2 and "--pcm is for raw samples, and standard input is an audio file; give --wav - instead" in err
    assert not rows(out)


def test_a_slow_writer_and_the_size_of_the_chunks_do_not_matter(stream, pipe, talk):
    expected = rows(stream("--wav", talk, "--json")[1])
    content = soundfile.read(talk, dtype="int16")[0].tobytes()
    assert rows(pipe(cut(content), "--pcm", "16000", "--json", pause=0.05)[1]) == expected
    assert rows(pipe([content], "--pcm", "16000:s16le:1", "--json", "--chunk-ms", "1700")[1]) == expected


def test_an_audio_file_comes_from_a_pipe(stream, pipe, talk):
    expected = stream("--wav", talk)
    assert pipe(cut(talk.read_bytes()), "--wav", "-") == expected
    assert expected[0] == 0 and expected[1]


def test_an_audio_file_comes_from_a_named_pipe(stream, talk, tmp_path):
    os.mkfifo(tmp_path / "named")
    thread = threading.Thread(target=lambda: (tmp_path / "named").write_bytes(talk.read_bytes()))
    thread.start()
    assert stream("--wav", tmp_path / "named") == stream("--wav", talk)
    thread.join()


def test_a_truncated_file_is_recognised_to_its_end_with_a_warning(stream, talk, tmp_path):
    (tmp_path / "half.wav").write_bytes(talk.read_bytes()[:90_000])
    status, out, err = stream("--wav", tmp_path / "half.wav")
    assert status == 0 and out and "WARNING: truncated: " in err and "half.wav ends at 2.8 s" in err


@pytest.mark.parametrize(
    "content, options, complaint",
    [
        (b"", ["--pcm", "16000"], "no data: standard input is empty"),
        (b"", ["--wav", "-"], "no data: standard input is empty"),
        (b"these are words, no samples", ["--wav", "-"], "not readable as audio: standard input"),
        (np.array([3e8] * 9, "<f4").tobytes(), ["--pcm", "16000:f32le"], "is it of another format than f32le?"),
    ],
)
def test_wrong_input_is_refused_in_one_line(pipe, content, options, complaint):
    status, out, err = pipe([content], *options)
    assert (status, out) == (2, "") and complaint in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "tail, sample_type, complaint",
    [
        (b"x", "s16le", "raw PCM ends within a sample, after 1 of the 2 bytes"),
        (np.array([np.nan], "<f4").tobytes(), "f32le", "not finite numbers, first at 4.800 s"),
    ],
)
def test_what_comes_before_an_error_is_recognised(stream, pipe, talk, tail, sample_type, complaint):
    samples = soundfile.read(talk, dtype="int16" if sample_type == "s16le" else "float32")[0]
    expected = rows(stream("--wav", talk, "--json")[1])
    status, out, err = pipe([samples.tobytes(), tail], "--pcm", f"16000:{sample_type}", "--json")
    assert status == 2 and complaint in err and err.count("\n") == 1 and rows(out)[0] == expected[0]
    assert json.loads(out.splitlines()[-1])["audio_seconds"] >= SECONDS - 1


def start(experiment, *options, **files):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "asrtool", "stream", experiment, *options]
    return subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True, **files)


@pytest.mark.slow  # a process of its own
@pytest.mark.parametrize("number, status, message", [(signal.SIGINT, 0, ""), (signal.SIGTERM, 143, "terminated")])
def test_ctrl_c_finishes_the_last_utterance_of_a_pipe(stream_experiment, talk, number, status, message):
    content = soundfile.read(talk, dtype="int16")[0].tobytes()
    options = ["--pcm", "16000", "--endpoint", "length=60", "--json"]
    with start(stream_experiment, *options, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.buffer.write(content + b"x")  # Ctrl-C may end the writer within a sample
        process.stdin.flush()
        while json.loads(process.stdout.readline())["audio_seconds"] < SECONDS - 0.5:
            pass
        process.send_signal(number)
        *_, final, end = map(json.loads, process.stdout)
        err = process.stderr.read()
    assert process.returncode == status and err.strip() == (f"asrtool: error: {message}" if message else "")
    assert final["type"] == "final" and final["words"] and end["audio_seconds"] == SECONDS


@pytest.mark.slow  # a process of its own
def test_a_closed_output_ends_it_quietly(stream_experiment, talk):
    reader, writer = os.pipe()
    os.close(reader)
    with open(talk, "rb") as stdin, start(stream_experiment, "--wav", "-", stdin=stdin, stdout=writer) as process:
        os.close(writer)
        assert process.stderr.read() == "" and process.wait() == 141


@pytest.mark.parametrize("option, value", [("--pcm", "16000"), ("--wav", "-")])
def test_a_terminal_and_a_closed_input_are_refused(stream, monkeypatch, option, value):
    leader, follower = os.openpty()
    with open(leader), open(follower) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        status, out, err = stream(option, value)
    assert (status, out) == (2, "") and f"{option}" in err and "which is a terminal; for example" in err
    monkeypatch.setattr(sys, "stdin", None)
    status, out, err = stream(option, value)
    assert (status, out) == (2, "") and "which is closed" in err and err.count("\n") == 1


def test_pieces_are_cut_to_one_size_without_loss():
    samples = np.arange(1000)
    for sizes in ([1] * 1000, [1000], [7, 0, 313, 680]):
        pieces = list(cut_pieces(np.split(samples, np.cumsum(sizes)[:-1]), 64))
        assert [len(piece) for piece in pieces] == [64] * 15 + [40]
        assert np.array_equal(np.concatenate(pieces), samples)
    assert list(cut_pieces([], 64)) == []


def result(text, is_final=False, num_final=0):
    words = [Word(word, 0.0, 1.0, 0.5 if is_final else None) for word in text.split()]
    return StreamResult(words, 0.0, 1.0, is_final, num_final)


def test_a_terminal_shows_the_last_partial_result_only(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "50")
    printer = TextPrinter()
    partials = ["", "ONE", "ONE", "ONE TWO", "ONE TWO " * 9, ""]
    printer.show_all([*map(result, partials), result("ONE\x1b[2J", is_final=True), result("SIX")], 1.0, 1.0)
    printer.warn("slow")
    printer.show_all([result("SIX"), result("", is_final=True), result("")], 1.0, 1.0)
    printer.end(1.0, 1.0)
    shown = []
    for line in capsys.readouterr().out.split("\n"):
        *_, last = line.split("\r\x1b[K")
        shown.append(last)
        assert all(len(part) < 50 and "\x1b" not in part for part in line.split("\r\x1b[K"))
    assert shown == ["    0.00     1.00  ONE\\x1b[2J", ""]


@pytest.mark.parametrize("columns", [10, 24, 50])
@pytest.mark.parametrize("word", ["日本語", "สวัสดี", "नमस्ते", "word"])
def test_a_partial_result_takes_one_row_of_a_terminal(capsys, monkeypatch, columns, word):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    printer = TextPrinter()
    printer.show_all([result(f"{word} " * count) for count in range(1, 40)], 1.0, 1.0)
    rows = [row for row in capsys.readouterr().out.split("\r\x1b[K") if row]
    assert len(rows) == 39 and "\n" not in "".join(rows)
    assert all(display_width(row) < columns for row in rows)
    assert all(display_width(row) >= columns - 2 and row.endswith(" ...") for row in rows[20:])


def test_json_lines_repeat_nothing_and_withdraw_words(capsys):
    results = [result(""), result("ONE"), result("ONE"), result("ONE", num_final=1), result("", is_final=True)]
    JsonPrinter().show_all([*results, result("", is_final=True)], 1.0, 1.0)
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["type"], row["text"]) for row in printed] == [("partial", "ONE"), ("partial", "ONE"), ("final", "")]
