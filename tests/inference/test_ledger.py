"""The ledger of outputs: what is done is skipped, what is stale is written again, nothing else is replaced."""

import hashlib
import os
import random
from multiprocessing import get_context
from pathlib import Path

import pytest

from asrtool.errors import UserError
from asrtool.inference.ledger import LEDGER, Ledger, read_ledger, recording_facts
from asrtool.inference.recordings import STDIN, Recording

SETTINGS = {"method": "greedy", "beam": 8, "channel": "mix"}


def write_output(folder, recording, text="one two\n", name="a.txt", settings=SETTINGS):
    """Writes an output as the command does; returns its path."""
    facts = recording_facts(recording, folder)
    read_ledger(folder).add(facts, settings, {name: hashlib.sha256(text.encode()).hexdigest()})
    (folder / name).write_text(text)
    return folder / name


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "in" / "a.wav"
    path.parent.mkdir()
    path.write_bytes(b"samples")
    return Recording(path)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def state(folder, recording, settings=SETTINGS, name="a.txt"):
    result = read_ledger(folder).state(name, recording, settings)
    return result.state, result.reason


def test_an_output_is_new_then_done(folder, recording):
    assert state(folder, recording) == ("new", "")
    write_output(folder, recording)
    assert state(folder, recording) == ("done", "")
    (folder / "a.txt").unlink()
    assert state(folder, recording) == ("new", "")


def test_other_settings_make_it_stale_and_are_named(folder, recording):
    write_output(folder, recording)
    assert state(folder, recording, SETTINGS | {"beam": 16}) == ("stale", "beam was 8")
    changed = {"method": "prefix", "channel": "mix", "lm": "abc"}
    assert state(folder, recording, changed) == ("stale", "method was greedy, beam was 8, lm was not given")


def test_a_changed_recording_makes_it_stale(folder, recording):
    write_output(folder, recording)
    recording.path.write_bytes(b"others!")
    assert state(folder, recording) == ("stale", "the recording has changed")


def test_a_recording_with_another_time_or_place_and_the_same_content_is_done(folder, recording):
    write_output(folder, recording)
    os.utime(recording.path, (1, 1))
    assert state(folder, recording)[0] == "done"
    moved = recording.path.rename(recording.path.parent / "b.wav")
    assert state(folder, Recording(moved))[0] == "done"


def test_both_folders_may_be_moved(folder, recording, tmp_path):
    write_output(folder, recording)
    (tmp_path / "new").mkdir()
    folder.rename(tmp_path / "new" / "out")
    recording.path.parent.rename(tmp_path / "new" / "in")
    assert state(tmp_path / "new" / "out", Recording(tmp_path / "new" / "in" / "a.wav"))[0] == "done"


def test_another_recordings_transcript_is_not_replaced(folder, recording):
    write_output(folder, recording)
    other = recording.path.with_name("other.wav")
    other.write_bytes(b"different")
    kind, reason = state(folder, Recording(other))
    assert kind == "conflict" and reason == f"is the output of {recording.path}"


def test_a_file_of_someone_else_is_not_replaced(folder, recording):
    (folder / "a.txt").write_text("reference transcript")
    assert state(folder, recording) == ("conflict", "was not written by asrtool")
    (folder / "b.txt").mkdir()
    assert state(folder, recording, name="b.txt") == ("conflict", "is not a file")


def test_an_edited_output_is_done_and_never_replaced(folder, recording):
    write_output(folder, recording).write_text("one too, corrected")
    assert state(folder, recording)[0] == "done"
    kind, reason = state(folder, recording, SETTINGS | {"beam": 16})
    assert kind == "conflict" and reason == "was edited, and beam was 8"


def test_a_kill_between_the_row_and_the_file_leaves_the_old_file_known(folder, recording):
    write_output(folder, recording)
    new_settings = SETTINGS | {"beam": 16}
    read_ledger(folder).add(recording_facts(recording, folder), new_settings, {"a.txt": "0" * 64})  # no file follows
    assert state(folder, recording, new_settings) == ("stale", "beam was 8")
    assert state(folder, recording)[0] == "done"


def test_streams_are_never_done(folder):
    for path in (STDIN, Path("/dev/fd/63")):
        stream = Recording(path, is_stream=True)
        write_output(folder, stream, name=f"{stream.name}.txt")
        assert state(folder, stream, name=f"{stream.name}.txt") == ("stale", "the recording has changed")


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"null\n",
        b"[1, 2]\n",
        b'{"settings": ["a"], "values": {}}\n',
        b'{"settings": "a", "values": 3}\n',
        b'{"recording": {}, "settings": "a", "outputs": {}}\n',
        b'{"recording": {"path": 1, "bytes": 1, "mtime_ns": 1, "sha256": 1}, "settings": "a", "outputs": {"a": 1}}\n',
        b'{"recording": {"path": "a", "bytes": 1, "mtime_ns": 1, "sha256": "a"}, "settings": "a", "outputs": "a"}\n',
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
    ],
)
def test_what_is_not_a_row_is_skipped(folder, recording, damage):
    write_output(folder, recording, name="b.txt")
    with open(folder / LEDGER, "ab") as file:
        file.write(damage)
    write_output(folder, recording)  # begins on a line of its own, also after half a row
    assert state(folder, recording)[0] == "done"
    assert state(folder, recording, name="b.txt")[0] == "done"


def test_a_ledger_without_its_settings_says_that_they_differ(folder, recording):
    write_output(folder, recording)
    rows = (folder / LEDGER).read_text().splitlines()
    (folder / LEDGER).write_text(rows[1] + "\n")
    assert state(folder, recording, SETTINGS | {"beam": 16}) == ("stale", "the settings were others")


def add_rows(folder, number):
    ledger = Ledger(folder)
    for row in range(50):
        recording = Recording(Path(f"/dev/fd/{number}"), is_stream=True)
        ledger.add(recording_facts(recording, folder), SETTINGS, {f"{number}-{row}.txt": "0" * 64})


def test_several_processes_may_add_rows_at_the_same_time(folder):
    processes = [get_context("fork").Process(target=add_rows, args=(folder, number)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert len(read_ledger(folder).rows) == 200


def test_names_that_are_not_utf8_are_kept(folder, recording):
    name = os.fsdecode(b"caf\xe9.txt")
    write_output(folder, recording, name=name)
    assert state(folder, recording, name=name)[0] == "done"


def test_a_ledger_that_is_not_a_text_is_refused(folder, recording):
    (folder / LEDGER).write_bytes(random.Random(1).randbytes(9 << 20).replace(b"\n", b" "))
    with pytest.raises(UserError, match="ledger of asrtool transcribe"):
        read_ledger(folder)
