"""Which recordings a command finds: by suffix or first bytes, in folders, lists and on standard input."""

import os
import shutil
from pathlib import Path

import pytest
import soundfile

from asrtool.data.audio_blocks import open_recording
from asrtool.data.sources import InvalidEntry
from asrtool.errors import DataError, UserError
from asrtool.files import utf8_path
from asrtool.inference.recordings import STDIN, find_recordings, is_audio_header
from tests.tiny import tone


@pytest.fixture
def audio(tmp_path, write_audio):
    """audio("sub/a.wav") writes a recording below tmp_path and returns its path."""
    return lambda name: write_audio(tmp_path / name, seconds=0.2)


def names(found):
    return [str(recording.folder / recording.name) for recording in found.recordings]


def test_a_folder_stands_for_the_audio_below_it_in_order(tmp_path, audio):
    for name in ("talks/b.wav", "talks/a.flac", "talks/sub/deep/c.ogg", "talks/z/d.mp3"):
        audio(name)
    (tmp_path / "talks" / "notes.txt").write_text("no audio")
    (tmp_path / "talks" / ".hidden").mkdir()
    audio("talks/.hidden/e.wav")
    audio("talks/._a.wav")
    found = find_recordings([tmp_path / "talks"])
    assert names(found) == ["a", "b", "sub/deep/c", "z/d"]
    assert found.others == {tmp_path / "talks": [tmp_path / "talks" / "notes.txt"]}
    assert not found.problems


def test_files_of_a_folder_that_are_not_audio_are_one_line(tmp_path, audio, capsys):
    audio("talks/a.wav")
    for number in range(50):
        (tmp_path / "talks" / f"{number:02d}.txt").write_text("no audio")
    find_recordings([tmp_path / "talks"])
    (line,) = capsys.readouterr().err.splitlines()
    assert "skipped 50 files that are not audio: 00.txt, 01.txt, 02.txt and 47 more" in line


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "AIFF", "AU", "CAF", "W64", "RF64"])
def test_audio_without_a_suffix_is_found_by_its_first_bytes(tmp_path, format):
    (tmp_path / "talks").mkdir()
    with open(tmp_path / "talks" / "recording", "wb") as file:
        soundfile.write(file, tone(500, 0.2), 16000, format=format)
    assert names(find_recordings([tmp_path / "talks"])) == ["recording"]


@pytest.mark.parametrize(
    "start", [b"\0\0\0\x20ftypM4A \0", b"\0\0\0\x18ftypisom", b"\0\0\0\x1cftypmp42", b"\x1aE\xdf\xa3" + bytes(8)]
)
def test_containers_of_video_are_found(start):
    assert is_audio_header(start[:12])


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"RIFF",
        b"RIFF\0\0\0\0WEBP",
        b"\0\0\0\x18ftypheic",
        b"\0\0\0\x18ftypavif",
        b"#!/bin/sh\n   ",
        b"\x89PNG\r\n\x1a\n",
        bytes(12),
    ],
)
def test_pictures_and_texts_are_not_audio(start):
    assert not is_audio_header(start)


def test_a_recording_is_named_without_its_suffix_of_audio_only(tmp_path, audio):
    path = Path(shutil.copy(audio("a.wav"), tmp_path / "talk.2026-01-31"))
    assert names(find_recordings([audio("talk.one.MP3"), path])) == ["talk.one", "talk.2026-01-31"]


def test_a_recording_is_read_once_however_often_it_is_named(tmp_path, audio):
    path = audio("talks/a.wav")
    assert (
        len(find_recordings([path, tmp_path / "talks", tmp_path / "talks" / ".." / "talks" / "a.wav"]).recordings) == 1
    )


def test_a_list_names_paths_as_seen_from_the_current_folder(tmp_path, audio, monkeypatch):
    for name in ("a b.wav", "#c.wav", "-d.wav", "talks/e.wav", "北京.wav"):
        audio(name)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "list.txt").write_text(
        "# the talks\na b.wav\n\n./#c.wav\r\n#d.wav\n-d.wav\ntalks\n北京.wav", encoding="utf-8"
    )
    monkeypatch.chdir(tmp_path)
    assert names(find_recordings([], Path("lists/list.txt"))) == ["a b", "#c", "-d", "e", "北京"]


@pytest.mark.parametrize("address", ["https://example.org/a.mp3", "s3://bucket/a.wav", "file:///tmp/a.wav"])
def test_addresses_are_not_read(address):
    with pytest.raises(DataError) as caught:
        find_recordings([Path(address)])
    assert caught.value.problems == [f"{Path(address)}: addresses are not read; download the file first"]
    with pytest.raises(InvalidEntry, match="addresses are not read; download the file first"):
        open_recording(address)


def test_names_may_have_any_characters(tmp_path, audio):
    (tmp_path / "talks").mkdir()
    odd = [" lead", "new\nline", "tab\t", "quote'\"", "*?", "ünï", os.fsdecode(b"caf\xe9"), "-x"]
    for name in odd:
        shutil.copy(audio("a.wav"), tmp_path / "talks" / f"{name}.wav")
    assert sorted(names(find_recordings([tmp_path / "talks"]))) == sorted(odd)


def test_standard_input_and_pipes_are_streams(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    found = find_recordings([STDIN, tmp_path / "pipe.wav"])
    assert [(recording.name, recording.is_stream) for recording in found.recordings] == [
        ("stdin", True),
        ("pipe", True),
    ]
    assert str(found.recordings[0]) == "standard input"


def test_what_cannot_be_read_is_a_problem_and_the_others_are_found(tmp_path, audio):
    audio("talks/good.wav")
    (tmp_path / "talks" / "broken.wav").symlink_to("nowhere.wav")
    os.mkfifo(tmp_path / "talks" / "pipe.wav")
    os.mkfifo(tmp_path / "talks" / "pipe")  # not opened: reading it would wait for ever
    (tmp_path / "talks" / "loop.wav").symlink_to("loop.wav")
    found = find_recordings([tmp_path / "talks", tmp_path / "missing.wav", tmp_path / "nul\0.wav"])
    assert names(found) == ["good"]
    problems = [problem.removeprefix(f"{tmp_path}/") for problem in found.problems]
    assert problems == [
        "talks/broken.wav: a link to a file that is not there",
        "talks/loop.wav: Too many levels of symbolic links",
        "talks/pipe.wav: not a regular file",
        "missing.wav: no such file or folder",
        "nul\0.wav: embedded null byte",
    ]


def test_links_to_folders_are_not_followed(tmp_path, audio):
    audio("talks/a.wav")
    (tmp_path / "talks" / "again").symlink_to(tmp_path / "talks")
    assert names(find_recordings([tmp_path / "talks"])) == ["a"]


def test_nothing_to_read_is_an_error(tmp_path):
    with pytest.raises(UserError, match="give files, folders, or - for standard input"):
        find_recordings([])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no audio or video in .*empty"):
        find_recordings([tmp_path / "empty"])
    (tmp_path / "list.txt").write_text("\n\n")
    with pytest.raises(UserError, match="list.txt names none"):
        find_recordings([], tmp_path / "list.txt")
    with pytest.raises(UserError, match="list of recordings not found"):
        find_recordings([], tmp_path / "no.txt")
    with pytest.raises(DataError, match="no recording can be read"):
        find_recordings([tmp_path / "missing.wav", tmp_path / "too.wav"])


def test_bytes_that_are_not_utf8_are_escaped():
    assert utf8_path(os.fsdecode(b"caf\xe9/\xc3\xa9")) == "caf\\xe9/é"
