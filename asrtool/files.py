"""Writing files and folders: nothing half-written under a final name, and no folder of the user replaced by mistake.

Everything that is written goes to a temporary name in the same folder first:

    .tmp-MACHINE-PID-RANDOM-NAME      PID of the process that writes it, and its machine (`_machine`)

so that the temporary files of processes that were killed can be recognised and removed (`sweep_temporary`).
"""

import contextlib
import ctypes
import errno
import hashlib
import json
import math
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from asrtool.errors import AsrtoolError, UserError
from asrtool.readers import read_json

DISK_FULL_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
TEMPORARY = ".tmp-"
ABANDONED_SECONDS = 7 * 24 * 3600.0  # age at which a temporary file of another machine counts as abandoned

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
PID_NAMESPACE = Path("/proc/self/ns/pid")
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux's renameat2


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary name in the folder of `path`; the file is renamed to `path` on success, else removed.

    It has the suffixes of `path`. If `path` is a symbolic link, the file that it leads to is written, and the link
    stays. A full disk becomes a UserError; a failure leaves an existing `path` unchanged. UserError if `path` is a
    folder, a device or a pipe.
    """
    path = Path(path)
    _require_regular_file(path)
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep_temporary(target.parent)
    temporary = temporary_path(target)
    try:
        with report_full_disk(path):
            yield temporary
            _sync(temporary)
            os.replace(temporary, target)
            _sync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _require_regular_file(path: Path) -> None:
    """Raises UserError if something else than a regular file has the name `path`, which would be replaced."""
    if os.path.isdir(path):
        raise UserError(f"OUT is {path}, which is a folder; name a file")
    if os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f"OUT is {path}, which is not a regular file but a device or a pipe; name a file")


@contextlib.contextmanager
def report_full_disk(path: str | Path) -> Iterator[None]:
    """Inside, a full disk becomes a UserError that names `path`, also where a library wrapped the OSError."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        causes = (cause for cause in _causes(error) if isinstance(cause, OSError))
        cause = next((cause for cause in causes if cause.errno in DISK_FULL_ERRORS), None)
        if cause is None:
            raise
        raise UserError(f"no space left to write {path}: {cause.strerror}; free some space and rerun") from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@contextlib.contextmanager
def new_folder(out: str | Path, marker: str, command: str) -> Iterator[Path]:
    """Yields a temporary folder next to `out`, which replaces `out` on success.

    `out` must be new, empty, or have the JSON file `marker`, which `command` writes with the names of all its files
    under "files"; else UserError. Files and folders of the old `out` that its marker does not name are the user's own,
    and stay. A failure leaves the old folder unchanged.
    """
    require_own_folder(out, marker, command)
    out = Path(out).resolve()  # through symbolic links, which stay: the folder may lie on another disk
    out.parent.mkdir(parents=True, exist_ok=True)
    sweep_temporary(out.parent)
    temporary = temporary_path(out)
    temporary.mkdir()
    try:
        with report_full_disk(out):
            yield temporary
            _keep_user_files(out, temporary, marker)
            _replace_folder(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _keep_user_files(old: Path, new: Path, marker: str) -> None:
    """Links the files that the user has put into the folder `old` into `new`."""
    if not (old / marker).is_file():
        return
    content = read_json(old / marker, "folder", "name a new folder")
    files = content.get("files") if isinstance(content, dict) else None
    written = {name for name in files if isinstance(name, str)} if isinstance(files, list) else set()
    for entry in old.iterdir():
        if entry.name in written | {marker} or (new / entry.name).exists() or entry.name.startswith(TEMPORARY):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, new / entry.name, symlinks=True, copy_function=os.link)
        else:
            os.link(entry, new / entry.name, follow_symlinks=False)


def _replace_folder(new: Path, out: Path) -> None:
    """Replaces the folder `out` by `new`, in one step if the system can; the old folder is removed last."""
    for path in (new, *new.rglob("*")):
        if not path.is_symlink():
            _sync(path)
    if not out.exists():
        os.rename(new, out)
    elif not _exchange(new, out):
        old = temporary_path(out)
        os.rename(out, old)
        os.rename(new, out)
        shutil.rmtree(old, ignore_errors=True)
    _sync(out.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Exchanges the names of two folders by Linux's renameat2; returns False if the system does not have it."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except AttributeError:
        return False
    return rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0


def require_own_folder(out: str | Path, marker: str, command: str, inputs: Iterable[str | Path] = ()) -> None:
    """Raises UserError unless `out` is new, empty, or a folder with the file `marker`, which `command` writes.

    A folder that has an input is refused as well, since the input might be replaced.
    """
    out = Path(out)
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir():
        raise UserError(f"{out} is a file; `{command}` writes a folder: name a new one")
    # .lock is the file of asrtool.locks, which the command may hold already
    others = [name for name in os.listdir(out) if name != ".lock" and not name.startswith(TEMPORARY)]
    if others and not (out / marker).is_file():
        problem = f"{out} was not written by `{command}` (it has no {marker}) and is not empty"
        raise UserError(f"{problem}; name a new folder")
    for path in map(Path, inputs):
        if path.resolve().is_relative_to(out.resolve()):
            raise UserError(f"OUT is {out}, which has the input {path}; name another folder")


def temporary_path(path: Path) -> Path:
    """Returns a new name for a temporary file or folder next to `path`, with the same suffixes."""
    name = os.fsencode(path.name)[-150:].decode(errors="ignore")  # file systems allow 255 bytes
    return path.with_name(f"{TEMPORARY}{_machine()}-{os.getpid()}-{uuid.uuid4().hex[:12]}-{name}")


@cache
def _machine() -> str:
    """Returns the name of this machine, as far as it has one numbering of processes.

    Containers may have the same host name, and the processes of one are not known to another, nor after a reboot: where
    the system tells them, the boot and the namespace of the process numbers are part of the name.
    """
    host = socket.gethostname().replace("-", "_").replace("/", "_")[:50] or "host"
    try:
        identity = BOOT_ID.read_bytes() + str(PID_NAMESPACE.stat().st_ino).encode()
    except OSError:  # a system without /proc
        return host
    return f"{host}_{hashlib.sha256(identity).hexdigest()[:12]}"


_swept: set[tuple[int, Path]] = set()  # (process, folder)


def sweep_temporary(folder: str | Path) -> None:
    """Removes the temporary files in `folder` that processes of this machine left when they were killed.

    Files of other machines are removed when they are a week old. A process checks each folder once.
    """
    folder = Path(folder)
    key = (os.getpid(), folder.absolute())
    if key in _swept:
        return
    _swept.add(key)
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if entry.name.startswith(TEMPORARY) and _is_abandoned(entry):
                remove = shutil.rmtree if entry.is_dir(follow_symlinks=False) else os.unlink
                with contextlib.suppress(OSError):
                    remove(entry.path)


def _is_abandoned(entry: os.DirEntry) -> bool:
    parts = entry.name.removeprefix(TEMPORARY).split("-", 3)
    if len(parts) != 4 or not parts[1].isdecimal():
        return False  # not a name of `temporary_path`
    if parts[0] == _machine():
        return not is_alive(int(parts[1]))
    return time.time() - entry.stat(follow_symlinks=False).st_mtime > ABANDONED_SECONDS


def is_alive(pid: int) -> bool:
    """Returns True if a process of this machine has the number `pid`, and has not ended.

    One that has ended keeps its number until its parent has asked for its status.
    """
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):  # a system without /proc
        return True
    return state not in (b"Z", b"X")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: str | Path, text: str) -> None:
    """Writes `text` (UTF-8) atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: object) -> None:
    """Writes `value` as indented JSON, atomically. Numbers that are not finite, which JSON lacks, become null."""
    write_text(path, json.dumps(finite_or_null(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: str | Path, rows: Iterable[dict]) -> int:
    """Writes one JSON object a line, atomically; returns the number of lines."""
    count = 0
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json_line(row))
            count += 1
    return count


LINE_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


def json_line(row: dict) -> str:
    """Returns `row` as a line of JSON with its line end. Numbers that are not finite, which JSON lacks, become null."""
    try:
        return LINE_ENCODER.encode(row) + "\n"
    except ValueError:  # a number that is not finite
        return LINE_ENCODER.encode(finite_or_null(row)) + "\n"


def finite_or_null(value: Any) -> Any:
    """Returns a tree of plain types with None for every number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite_or_null(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_null(item) for item in value]
    return value


def require_output(out: str | Path, suffixes: tuple[str, ...], inputs: Iterable[str | Path] = ()) -> None:
    """Raises UserError unless `out` may be written: it has one of `suffixes`, and is not a folder, device or input.

    An input that is a folder is a manifest of all files *.jsonl.gz in it, of which OUT would become one.
    """
    out = Path(out)
    if suffixes and not out.name.endswith(suffixes):
        raise UserError(f"OUT is {out}, which does not end in {' or '.join(suffixes)}; was OUT forgotten?")
    if not out.name:
        raise UserError(f"OUT is {out}, which is a folder; name a file")
    _require_regular_file(out)
    for path in inputs:
        if out.exists() and Path(path).exists() and os.path.samefile(out, path):
            raise UserError(f"OUT is {out}, which is an input as well; name another file")
        is_part = out.name.endswith((".jsonl", ".jsonl.gz")) and os.path.isdir(path)
        if is_part and os.path.realpath(out.parent) == os.path.realpath(path):
            raise UserError(f"OUT is {out}, in the folder {path}, which is an input; name a file elsewhere")


def require_same_kind(out: str | Path, what: str, read: Callable[[Path], object]) -> None:
    """Raises UserError if the file `out` exists, is not empty, and `read`, which raises AsrtoolError, cannot read it.

    So a command replaces what it wrote itself, and never another file that was named by mistake. `what` says what the
    command writes, e.g. "a tokenizer".
    """
    out = Path(out)
    if not out.exists() or (out.is_file() and not out.stat().st_size):
        return
    try:
        read(out)
    except AsrtoolError as error:
        raise UserError(f"OUT is {out}, which exists and is not {what}; delete it or name another file") from error


def file_hash(path: str | Path) -> str:
    """Returns the SHA-256 of a file's bytes, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def utf8_path(path: str | Path) -> str:
    r"""Returns a path as UTF-8 can hold it: bytes of a file's name that are not UTF-8 become \xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
