import errno
import json
import os
import shutil
import socket
import subprocess

import pytest

from asrtool import files
from asrtool.errors import UserError
from asrtool.files import (
    DISK_FULL_ERRORS,
    atomic_path,
    new_folder,
    require_output,
    sweep_temporary,
    temporary_path,
    write_json,
    write_jsonl,
    write_text,
)
from asrtool.readers import read_jsonl


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


def test_other_errors_than_a_full_disk_are_not_changed(tmp_path, monkeypatch):
    def fail(*_):
        raise PermissionError(errno.EACCES, "denied")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(PermissionError):
        write_text(tmp_path / "file.txt", "new")


def test_contents_are_synced_before_the_file_is_renamed(tmp_path, monkeypatch):
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


def test_json_is_written_with_indentation_and_unicode(tmp_path):
    write_json(tmp_path / "a.json", {"word": "größer", "n": [1, 2]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "größer" in text
    assert text.endswith("\n")
    assert json.loads(text) == {"word": "größer", "n": [1, 2]}


@pytest.fixture
def own_folder(tmp_path):
    """A folder that a command wrote, with a file and a folder of the user."""
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
def test_a_folder_is_unchanged_if_its_replacement_fails(own_folder, failure):
    with pytest.raises(failure), new_folder(own_folder, "made.json", "asrtool make") as folder:
        (folder / "same.fst").write_text("half")
        raise failure
    assert (own_folder / "same.fst").read_text() == "1" and names(own_folder.parent) == ["graph"]


@pytest.mark.parametrize("content", [{"words.txt": "a"}, {"made.txt": ""}, {"made.json/x": ""}])
def test_a_folder_without_the_marker_is_refused_and_unchanged(tmp_path, content):
    for name, text in content.items():
        (tmp_path / "lang" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "lang" / name).write_text(text)
    before = sorted(tmp_path.rglob("*"))
    with (
        pytest.raises(UserError, match="was not written by `asrtool make`"),
        new_folder(tmp_path / "lang", "made.json", "asrtool make"),
    ):
        pass
    assert sorted(tmp_path.rglob("*")) == before


def test_only_temporary_files_of_dead_local_processes_are_removed(tmp_path):
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


@pytest.mark.parametrize("other", ["BOOT_ID", "PID_NAMESPACE"])
def test_temporary_files_of_another_container_or_boot_of_this_host_name_stay_for_a_week(tmp_path, monkeypatch, other):
    """The number of a process that lives in another container is of none, or of another one, here."""
    child = subprocess.Popen(["sleep", "0"])
    child.wait()
    mine = temporary_path(tmp_path / "a.txt")
    theirs = tmp_path / mine.name.replace(f"-{os.getpid()}-", f"-{child.pid}-")
    theirs.touch()
    (tmp_path / "identity").write_text("of another one")
    monkeypatch.setattr(files, other, tmp_path / "identity")
    files._machine.cache_clear()
    try:
        sweep_temporary(tmp_path)
        assert theirs.exists()
        os.utime(theirs, (0, 0))
        files._swept.clear()
        sweep_temporary(tmp_path)
        assert not theirs.exists()
    finally:
        files._machine.cache_clear()


def test_a_system_without_proc_knows_its_processes_by_the_name_of_the_host(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PID_NAMESPACE", tmp_path / "none")
    files._machine.cache_clear()
    try:
        assert temporary_path(tmp_path / "a").name.split("-")[1] == socket.gethostname().replace("-", "_")[:50]
    finally:
        files._machine.cache_clear()


@pytest.mark.parametrize("kind", ["file", "new", "chain"])
def test_a_file_behind_a_symbolic_link_is_written_and_the_link_stays(tmp_path, kind):
    (tmp_path / "disk").mkdir()
    real = tmp_path / "disk" / "real.txt"
    link = tmp_path / "link.txt"
    link.symlink_to("disk/real.txt")
    if kind == "chain":
        link.rename(tmp_path / "first.txt")
        link.symlink_to("first.txt")
    if kind != "new":
        real.write_text("old")
        with pytest.raises(ValueError), atomic_path(link) as temporary:
            temporary.write_text("half")
            raise ValueError
        assert real.read_text() == "old"
    write_text(link, "new")
    assert link.is_symlink() and real.read_text() == "new" and names(tmp_path / "disk") == ["real.txt"]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/null")])
@pytest.mark.parametrize("write", [lambda path: write_text(path, "new"), lambda path: require_output(path, ())])
def test_what_is_no_regular_file_is_not_replaced(tmp_path, make, write):
    make(tmp_path / "out")
    before = os.lstat(tmp_path / "out").st_ino
    with pytest.raises(UserError, match=r"OUT is .*out, which is (a folder|not a regular file)"):
        write(tmp_path / "out")
    assert os.lstat(tmp_path / "out").st_ino == before and names(tmp_path) == ["out"]


def test_nonfinite_numbers_are_written_as_null(tmp_path):
    write_json(tmp_path / "a.json", {"loss": float("nan"), "all": [1.5, float("inf")]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"loss": None, "all": [1.5, None]}


def test_a_folder_behind_a_symbolic_link_is_replaced_and_the_link_stays(tmp_path, own_folder):
    link = tmp_path / "link"
    link.symlink_to(own_folder)
    with new_folder(link, "made.json", "asrtool make") as folder:
        (folder / "new").touch()
    assert link.is_symlink() and (own_folder / "new").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".tmp-")]


def test_a_broken_link_is_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="link is a file"), new_folder(tmp_path / "link", "made.json", "asrtool make"):
        pass
