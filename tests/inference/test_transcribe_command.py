"""`asrtool transcribe` with a model of random weights: its outputs, its errors, and folders full of bad files."""

import io
import json
import os
import random
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pysubs2
import pytest
import soundfile

from tests.tiny import RATE, cut_short, tone

WRITE_FORMATS = ["txt", "json", "srt", "vtt", "ctm", "textgrid", "tsv"]


@pytest.fixture
def transcribe(asr, experiment):
    """transcribe("a.wav", "--format", "srt") -> exit status, stdout, stderr; everything counts as speech."""
    return lambda *arguments: asr("transcribe", experiment, *arguments, "--device", "cpu", "--vad", "none")


@pytest.fixture
def talk(tmp_path, write_audio):
    return write_audio(tmp_path / "talk.wav", seconds=3.0)


def errors(printed):
    """Returns the lines of the list of problems, and the error line."""
    lines = printed.splitlines()
    return [line.strip() for line in lines if line.startswith("  ")], lines[-1]


def test_one_recording_is_text_on_standard_output(transcribe, talk):
    status, out, _ = transcribe(talk)
    assert status == 0 and set(out.split()) <= {"one", "two", "three", "four"} and out.split()
    assert [path.name for path in talk.parent.iterdir()] == ["talk.wav"]


def test_all_formats_have_the_same_words(transcribe, talk, tmp_path):
    status, out, _ = transcribe(talk, "--format", ",".join(WRITE_FORMATS), "--output-dir", tmp_path / "out")
    assert status == 0 and out.startswith("1 recording: 3 s of audio in ")
    names = {path.name for path in (tmp_path / "out").iterdir()} - {".asrtool-transcribe.jsonl"}
    assert names == {f"talk.{name}" for name in ("txt", "json", "srt", "vtt", "ctm", "TextGrid", "tsv")}
    out = tmp_path / "out"
    tree = json.loads((out / "talk.json").read_text())
    words = tree["text"].split()
    assert words and tree["seconds"] == 3.0
    assert (out / "talk.txt").read_text().split() == words
    assert [line.split()[4] for line in (out / "talk.ctm").read_text().splitlines()] == words
    assert [row.split("\t")[2] for row in (out / "talk.tsv").read_text().splitlines()[1:]] == [tree["text"]]
    for name in ("talk.srt", "talk.vtt"):
        assert " ".join(event.plaintext for event in pysubs2.load(out / name)).split() == words


def test_standard_input_gives_the_text_of_the_file(transcribe, talk, monkeypatch, tmp_path):
    _, expected, _ = transcribe(talk, "--format", "ctm", "--output-dir", "-")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(talk.read_bytes())))
    status, out, _ = transcribe("-", "--format", "ctm")
    assert status == 0 and out == expected.replace("talk", "stdin")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(talk.read_bytes())))
    assert transcribe("-", "--output-dir", tmp_path / "out")[0] == 0
    assert (tmp_path / "out" / "stdin.txt").exists()


def test_a_list_of_paths_a_folder_and_a_file_together(transcribe, tmp_path, write_audio, monkeypatch):
    for name in ("listed/a b.wav", "talks/sub/c.wav", "-d.wav"):
        write_audio(tmp_path / name)
    (tmp_path / "list.txt").write_text(f"{tmp_path}/listed/a b.wav\n")
    monkeypatch.chdir(tmp_path)
    status, _, _ = transcribe("talks", "./-d.wav", "--list", "list.txt", "--output-dir", "out")
    assert status == 0
    names = {str(path.relative_to("out")) for path in Path("out").rglob("*.txt")}
    assert names == {"sub/c.txt", "-d.txt", "a b.txt"}


def test_each_channel_and_one_channel(transcribe, tmp_path):
    left, right = tone(400, 2.0), tone(3500, 2.0, seed=1)
    soundfile.write(tmp_path / "call.wav", np.stack([left, right], 1), RATE)
    assert transcribe(tmp_path / "call.wav", "--channel", "each", "--format", "json")[0] == 0
    trees = [json.loads((tmp_path / f"call.channel{n}.json").read_text()) for n in (0, 1)]
    assert [tree["channel"] for tree in trees] == [0, 1]
    assert transcribe(tmp_path / "call.wav", "--channel", "1", "--format", "json")[0] == 0
    one = json.loads((tmp_path / "call.json").read_text())
    assert one == trees[1] and one["text"] != trees[0]["text"]


def test_a_rerun_does_nothing_and_other_options_do_it_again(transcribe, talk):
    assert transcribe(talk, "--format", "txt")[0] == 0
    assert transcribe(talk, "--format", "txt")[1] == "nothing to transcribe, 1 done before\n"
    status, out, log = transcribe(talk, "--format", "txt", "--method", "greedy")
    assert status == 0 and "again, since method was prefix: talk.txt" in log and out.startswith("1 recording: ")


def test_an_nbest_list_is_in_the_json(transcribe, talk):
    assert transcribe(talk, "--format", "json", "--nbest", 3)[0] == 0
    tree = json.loads(talk.with_suffix(".json").read_text())
    alternatives = tree["segments"][0]["alternatives"]
    assert len(alternatives) == 3 and alternatives[0]["text"] == tree["segments"][0]["text"]


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--format", "doc"], ["'doc' is not a list of formats"]),
        (["--channel", "left"], ["'left' is not a channel"]),
        (["--channel", "-1"], ["'-1' is not a channel"]),
        (["--method", "greedy", "--beam", "4"], ["beam", "no effect"]),
        (["--method", "graph"], ["--graph"]),
        (["--format", "txt,srt", "--output-dir", "-"], ["holds one format"]),
        (["--channel", "each"], ["--output-dir"]),
        (["--list", "nowhere.txt"], ["list of recordings not found"]),
        (["--max-seconds", "0.01"], ["0.01"]),
        (["--checkpoint", "nowhere"], ["nowhere"]),
    ],
)
def test_impossible_options_are_one_line_and_status_2(transcribe, talk, arguments, words):
    status, out, printed = transcribe(talk, *arguments)
    lines = printed.splitlines()
    assert status == 2 and not out, printed
    assert lines[-1].startswith("asrtool: error: ") and all(word in lines[-1] for word in words), lines[-1]
    assert "Traceback" not in printed


def test_a_model_that_is_not_there_is_one_line(asr, talk, tmp_path):
    status, _, printed = asr("transcribe", tmp_path / "nowhere", talk)
    assert status == 2 and "is not an experiment" in printed


def make_bad_files(folder: Path) -> dict[str, str]:
    """Writes one file of each fault into `folder`; returns a word of the reason by the name."""
    samples = tone(500, 1.0)
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.mp3").write_text("these are words, no samples")
    (folder / "noise.flac").write_bytes(random.Random(1).randbytes(5000))
    (folder / "zeros.m4a").write_bytes(bytes(5000))
    (folder / "link.wav").symlink_to("nowhere.wav")
    os.mkfifo(folder / "pipe.wav")
    soundfile.write(folder / "nan.wav", np.where(np.arange(len(samples)) == 7, np.nan, samples), RATE, subtype="FLOAT")
    soundfile.write(folder / "loud.wav", samples * 32768, RATE, subtype="FLOAT")
    soundfile.write(folder / "header.wav", samples[:0], RATE)
    soundfile.write(folder / "cut.ogg", samples, RATE)
    cut_short(folder / "cut.ogg", 0.01)
    return {
        "empty.wav": "0 bytes",
        "text.mp3": "not readable as audio",
        "noise.flac": "",  # what random bytes look like depends on FFmpeg
        "zeros.m4a": "not readable as audio",
        "link.wav": "a link to a file that is not there",
        "pipe.wav": "not a regular file",
        "nan.wav": "not finite",
        "loud.wav": "not within -1 and 1",
        "header.wav": "no samples",
        "cut.ogg": "not readable as audio",
    }


def test_every_fault_of_a_file_is_one_line_and_the_others_go_on(transcribe, tmp_path, write_audio):
    talks = tmp_path / "talks"
    talks.mkdir()
    expected = make_bad_files(talks)
    write_audio(talks / "good.wav")
    status, _, printed = transcribe(talks, "--output-dir", tmp_path / "out")
    problems, last = errors(printed)
    assert status == 1 and "Traceback" not in printed
    assert f"{len(expected)} of {len(expected) + 1} recordings could not be transcribed; the others are done" in last
    reasons = {Path(problem.split(": ")[0]).name: problem for problem in problems}
    assert reasons.keys() == expected.keys(), printed
    assert all(word in reasons[name] for name, word in expected.items()), printed
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"good.txt", ".asrtool-transcribe.jsonl"}


@pytest.mark.parametrize("kind", ["silent", "clipped", "truncated"])
def test_audio_that_can_be_read_but_is_not_good_has_a_warning_and_an_output(transcribe, tmp_path, kind):
    path = tmp_path / f"{kind}.wav"
    samples = {"silent": np.zeros(RATE), "clipped": np.clip(20 * tone(500, 1.0), -1, 1)}.get(kind, tone(500, 1.0))
    soundfile.write(path, samples, RATE)
    if kind == "truncated":
        cut_short(path, 0.5)
    status, _, printed = transcribe(path, "--format", "txt")
    assert status == 0 and path.with_suffix(".txt").exists()
    assert len([line for line in printed.splitlines() if f"WARNING: {kind}: " in line]) == 1, printed


def test_a_hundred_bad_files_and_a_few_good_ones(transcribe, tmp_path, write_audio):
    draw = random.Random(3)
    talks = tmp_path / "talks"
    talks.mkdir()
    kinds = [lambda p: p.write_bytes(b""), lambda p: p.write_bytes(draw.randbytes(300)), lambda p: p.mkdir()]
    kinds += [lambda p: p.symlink_to("nowhere"), lambda p: os.mkfifo(p), lambda p: p.write_text("RIFF no audio\n" * 20)]
    kinds += [lambda p: soundfile.write(p, np.full(100, 1e6), RATE, subtype="FLOAT", format="WAV")]
    bad = []
    for number in range(100):
        path = (
            talks
            / f"{number:03d} {draw.choice(['', 'ü', '北京', '-x'])}{draw.choice(['.wav', '.mp3', '.ogg', '.mp4'])}"
        )
        kind = draw.choice(kinds)
        kind(path)
        bad += [] if path.is_dir() else [path.name]  # a folder with the suffix of audio is a folder
    for number in range(3):
        shutil.copy(write_audio(tmp_path / "good.wav"), talks / f"good{number}.wav")
    status, _, printed = transcribe(talks, "--format", "srt")
    lines = [line for line in printed.splitlines() if " WARNING: " in line]
    named = [line.split(f"{talks}/")[1].split(": ")[0] for line in lines]
    assert status == 1 and sorted(named) == sorted(bad), printed
    assert errors(printed)[1].startswith(f"asrtool: error: {len(bad)} of {len(bad) + 3} recordings could not be")
    assert {path.name for path in talks.glob("*.srt")} == {f"good{number}.srt" for number in range(3)}
