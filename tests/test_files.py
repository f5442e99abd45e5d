import errno
import gzip
import json
import os
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asrtool import files, readers
from asrtool.errors import UserError
from asrtool.files import (
    DISK_FULL_ERRORS,
    atomic_path,
    new_folder,
    sweep_temporary,
    temporary_path,
    write_json,
    write_jsonl,
    write_text,
)
from asrtool.readers import read_json, read_jsonl, read_lines


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KB that holds `old.txt`."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    (disk / "old.txt").write_text("old")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_file_appears_under_its_name_only_when_it_is_complete(tmp_path):
    target = tmp_path / "new" / "folder" / "file.jsonl.gz"
    with atomic_path(target) as temporary:
        temporary.write_text("all of it")
        assert not target.exists()
        assert temporary.parent == target.parent  # the same file system, so that renaming is one step
        assert temporary.name.endswith(".jsonl.gz")  # by which writers choose their format
    assert target.read_text() == "all of it"
    assert names(target.parent) == [target.name]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, OSError(errno.EIO, "broken")])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, failure):
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(failure if isinstance(failure, type) else type(failure)), atomic_path(target) as temporary:
        temporary.write_text("half of the n")
        raise failure
    assert target.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("code", sorted(DISK_FULL_ERRORS))
def test_a_disk_that_is_full_only_at_the_end_is_a_user_error(tmp_path, monkeypatch, step, code):
    """Network file systems report a full disk as late as fsync."""
    target = tmp_path / "file.txt"
    target.write_text("old")

    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(UserError, match=f"no space left to write {target}"):
        write_text(target, "new")
    assert target.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(small_disk):
    with pytest.raises(UserError, match="no space left"):
        write_text(small_disk / "old.txt", "x" * 100_000)
    assert (small_disk / "old.txt").read_text() == "old"
    assert names(small_disk) == ["old.txt"]


def test_an_error_other_than_a_full_disk_keeps_its_nature(tmp_path, monkeypatch):
    def fail(*_):
        raise PermissionError(errno.EACCES, "denied")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(PermissionError):
        write_text(tmp_path / "file.txt", "new")


def test_contents_are_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    """Else a power cut can leave an empty file under the final name."""
    steps = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (steps.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda *names: (steps.append("rename"), replace(*names)))
    write_text(tmp_path / "file.txt", "new")
    assert steps.index("rename") > 0
    assert steps[0].endswith("-file.txt")
    assert steps[-1] == str(tmp_path)


def test_rows_that_fail_midway_leave_the_old_file(tmp_path):
    def rows():
        yield {"id": 1}
        raise RuntimeError("no more")

    target = tmp_path / "rows.jsonl"
    write_jsonl(target, [{"id": 0}])
    with pytest.raises(RuntimeError):
        write_jsonl(target, rows())
    assert list(read_jsonl(target)) == [{"id": 0}]
    assert names(tmp_path) == ["rows.jsonl"]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.none())))
def test_rows_read_as_they_were_written(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "rows.jsonl"
    assert write_jsonl(path, iter(rows)) == len(rows)
    assert list(read_jsonl(path)) == rows


@pytest.mark.parametrize("bad", ['{"id": 3', "", "plain words"])
def test_a_line_that_is_not_json_is_named(tmp_path, bad):
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"id": 1}}\n{{"id": 2}}\n{bad}\n{{"id": 4}}\n')
    with pytest.raises(UserError, match=f"{path}:3: not JSON"):
        list(read_jsonl(path))


def test_json_is_written_for_people_to_read(tmp_path):
    write_json(tmp_path / "a.json", {"word": "größer", "n": [1, 2]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "größer" in text
    assert text.endswith("\n")
    assert json.loads(text) == {"word": "größer", "n": [1, 2]}


@pytest.fixture
def own_folder(tmp_path):
    """A folder that a command wrote, with a file of the user's beside."""
    out = tmp_path / "graph"
    with new_folder(out, "made.json", "asrtool make") as folder:
        write_json(folder / "made.json", {"files": ["old.fst", "same.fst"]})
        (folder / "old.fst").write_text("1")
        (folder / "same.fst").write_text("1")
    (out / "thesis.txt").write_text("years of work")
    (out / "notes").mkdir()
    (out / "notes" / "a.txt").write_text("more of it")
    return out


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_is_replaced_and_the_users_files_in_it_stay(own_folder, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(files, "_exchange", lambda *_: False)
    with new_folder(own_folder, "made.json", "asrtool make") as folder:
        write_json(folder / "made.json", {"files": ["same.fst"]})
        (folder / "same.fst").write_text("2")
        assert (own_folder / "old.fst").read_text() == "1"
    assert names(own_folder) == ["made.json", "notes", "same.fst", "thesis.txt"]
    assert (own_folder / "same.fst").read_text() == "2"
    assert (own_folder / "notes" / "a.txt").read_text() == "more of it"
    assert names(own_folder.parent) == ["graph"]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_folder_stays_as_it_was_when_its_replacement_fails(own_folder, failure):
    with pytest.raises(failure), new_folder(own_folder, "made.json", "asrtool make") as folder:
        (folder / "same.fst").write_text("half")
        raise failure
    assert (own_folder / "same.fst").read_text() == "1" and names(own_folder.parent) == ["graph"]


@pytest.mark.parametrize("content", [{"words.txt": "a"}, {"made.txt": ""}, {"made.json/x": ""}])
def test_a_folder_of_others_is_refused_untouched(tmp_path, content):
    for name, text in content.items():
        (tmp_path / "lang" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "lang" / name).write_text(text)
    before = sorted(tmp_path.rglob("*"))
    with (
        pytest.raises(UserError, match="was not made by `asrtool make`"),
        new_folder(tmp_path / "lang", "made.json", "asrtool make"),
    ):
        pass
    assert sorted(tmp_path.rglob("*")) == before


def test_temporary_files_of_dead_processes_of_this_machine_are_swept_and_no_others(tmp_path):
    child = subprocess.Popen(["sleep", "0"])
    child.wait()
    mine = temporary_path(tmp_path / "a.txt")
    dead = tmp_path / mine.name.replace(f"-{os.getpid()}-", f"-{child.pid}-")
    elsewhere = tmp_path / ".tmp-another_host-1-abcdef-b.txt"
    unknown = tmp_path / ".tmp-1003"
    for path in (mine, dead, elsewhere, unknown):
        path.touch()
    sweep_temporary(tmp_path)
    assert names(tmp_path) == sorted(path.name for path in (mine, elsewhere, unknown))


@pytest.mark.parametrize(
    "text",
    [
        '{"a": NaN}',
        '{"a": 1, "b": {"c": 1, "c": 1}}',
        "[1e999]",
        "[-Infinity]",
        "{",
        "[" * 100_000,
        '{"a": 1' + "0" * 5000 + "}",
        "[1" + "0" * 400 + "]",
    ],
)
def test_json_that_is_no_json_or_not_finite_is_one_line_that_names_the_file(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError) as refused:
        read_json(tmp_path / "x.json", "scales", "make them again")
    message = str(refused.value)
    assert "x.json" in message and "make them again" in message and len(message) < 500 and "\n" not in message


@pytest.mark.parametrize("damage", ["cut", "flipped", "no gzip", "latin-1", "long line"])
def test_lines_that_cannot_be_read_are_named(tmp_path, monkeypatch, damage):
    path = tmp_path / "text.txt.gz"
    packed = gzip.compress(b"".join(b"line %d\n" % n for n in range(10_000)))
    if damage == "cut":
        path.write_bytes(packed[: len(packed) // 2])
    elif damage == "flipped":
        path.write_bytes(packed[:500] + bytes([packed[500] ^ 255]) + packed[501:])
    elif damage == "no gzip":
        path.write_bytes(b"line 1\n")
    elif damage == "latin-1":
        path.write_bytes(gzip.compress("one\nzw\xf6lf\n".encode("latin-1")))
    else:
        monkeypatch.setattr(readers, "MAX_LINE_BYTES", 100)
        path.write_bytes(gzip.compress(b"one\n" + bytes(1000)))
    with pytest.raises(UserError, match="text.txt.gz"):
        list(read_lines(path))


def test_lines_end_where_other_tools_end_them(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes("\ufeffone\r\ntwo\u2028three\x0bfour\x85five\n\nsix".encode())
    assert list(read_lines(path)) == ["one\n", "two\u2028three\x0bfour\x85five\n", "\n", "six"]


def test_files_put_together_on_windows_are_read_as_one(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\xef\xbb\xbftwo\r\r\nthree\r")
    assert list(read_lines(path)) == ["one\n", "two\n", "three\n"]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"one\ntwo\rthree\r", r"text.txt:2: a carriage return within a line.*tr"),
        ("one\ntwo\n".encode("utf-16-le"), r"text.txt:1: a NUL character.*iconv"),
        (b"one\ntwo\0\n", r"text.txt:2: a NUL character"),
    ],
)
def test_lines_of_other_systems_are_refused_where_they_would_be_read_as_something_else(tmp_path, content, found):
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=found):
        list(read_lines(path))


def test_json_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(tmp_path / "a.json", "numbers", "write some") == [1]


def test_numbers_that_json_lacks_are_written_as_null(tmp_path):
    write_json(tmp_path / "a.json", {"loss": float("nan"), "all": [1.5, float("inf")]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"loss": None, "all": [1.5, None]}


def test_a_folder_behind_a_symbolic_link_is_replaced_where_it_lies(tmp_path, own_folder):
    link = tmp_path / "link"
    link.symlink_to(own_folder)
    with new_folder(link, "made.json", "asrtool make") as folder:
        (folder / "new").touch()
    assert link.is_symlink() and (own_folder / "new").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".tmp-")]


def test_a_link_to_a_folder_that_is_not_there_is_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="link is a file"), new_folder(tmp_path / "link", "made.json", "asrtool make"):
        pass
