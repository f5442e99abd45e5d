import errno
import json
import os
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asrtool.errors import UserError
from asrtool.files import FULL, atomic_path, read_jsonl, write_json, write_jsonl, write_text


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
@pytest.mark.parametrize("code", sorted(FULL))
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
