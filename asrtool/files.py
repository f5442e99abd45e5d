"""Reading and writing files: nothing half-written under a final name, and no input that can exhaust memory.

Everything that is written goes to a temporary name in the same folder first:

    .tmp-HOST-PID-RANDOM-NAME      HOST and PID are those of the process that writes it

so that the temporary files of processes that were killed can be recognised and removed (`sweep_temporary`).
"""

import contextlib
import ctypes
import errno
import gzip
import hashlib
import json
import math
import os
import re
import shutil
import socket
import time
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from asrtool.errors import AsrtoolError, UserError, require_file

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
TEMPORARY = ".tmp-"
ABANDONED_SECONDS = 7 * 24 * 3600.0  # age at which a temporary file of another machine counts as left behind

MAX_LINE_BYTES = 8 << 20  # the longest line of a text file: a manifest's line of an hour with alignments has 3 MB
LONGEST_INT = 300  # digits: 309 are more than float64 holds
MAX_JSON_BYTES = 256 << 20  # the largest JSON file read whole: a tokenizer with a lexicon of 1 M words has 60 MB
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # half of a pair that stands for one character in JSON
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux's renameat2
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
GZIP_ERRORS = (gzip.BadGzipFile, EOFError, zlib.error)
MAX_EXPANSION = 50  # of an unpacked file to its compressed one; texts, language models and arrays have 3 to 10
EXPANSION_FREE_BYTES = 100 << 20  # unpacked bytes up to which the ratio does not matter


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary name beside `path` (same suffixes) to write to; synced and renamed on success, removed on failure.

    A full disk becomes a UserError; a failure leaves the previous file under `path`, if any, untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep_temporary(path.parent)
    temporary = temporary_path(path)
    try:
        with report_full_disk(path):
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
            _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def report_full_disk(path: str | Path) -> Iterator[None]:
    """Inside, a full disk becomes a UserError that names `path`, also where a library wrapped the OSError."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause = next((e for e in _chain(error) if isinstance(e, OSError) and e.errno in FULL), None)
        if cause is None:
            raise
        raise UserError(f"no space left to write {path}: {cause.strerror}; free some space and rerun") from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@contextlib.contextmanager
def new_folder(out: str | Path, marker: str, made_by: str) -> Iterator[Path]:
    """A temporary folder beside `out` to write to; on success it takes the place of `out`.

    `out` must be new, empty, or have the JSON file `marker`, which the command `made_by` writes with the names of all
    its files under "files"; else UserError. Files and folders of the old `out` that its marker does not name are the
    user's own, and stay. A failure leaves the old folder as it was.
    """
    require_own_folder(out, marker, made_by)
    out = Path(out).resolve()  # through symbolic links, which stay: the folder may lie on another disk
    out.parent.mkdir(parents=True, exist_ok=True)
    sweep_temporary(out.parent)
    temporary = temporary_path(out)
    temporary.mkdir()
    try:
        with report_full_disk(out):
            yield temporary
            _keep_others(out, temporary, marker)
            _swap(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _keep_others(old: Path, new: Path, marker: str) -> None:
    """Link what the user has put into the folder `old` into `new`."""
    if not (old / marker).is_file():
        return
    content = read_json(old / marker, "folder", "name a new folder")
    own = content.get("files") if isinstance(content, dict) else None
    own = {marker, *(name for name in (own if isinstance(own, list) else ()) if isinstance(name, str))}
    for entry in old.iterdir():
        if entry.name in own or (new / entry.name).exists() or entry.name.startswith(TEMPORARY):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, new / entry.name, symlinks=True, copy_function=os.link)
        else:
            os.link(entry, new / entry.name, follow_symlinks=False)


def _swap(new: Path, out: Path) -> None:
    """Put the folder `new` in the place of `out`, in one step where the system can; what `out` was is removed last."""
    for path in (new, *new.rglob("*")):
        if not path.is_symlink():
            _sync(path)
    if not out.exists():
        os.rename(new, out)
    elif not _exchanged(new, out):
        old = temporary_path(out)
        os.rename(out, old)
        os.rename(new, out)
        shutil.rmtree(old, ignore_errors=True)
    _sync(out.parent)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange the names of two folders by Linux's renameat2; False where it is not there."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except AttributeError:
        return False
    return rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0


def require_own_folder(out: str | Path, marker: str, made_by: str) -> None:
    """UserError unless `out` is new, empty, or a folder with the file `marker`, which `made_by` writes."""
    out = Path(out)
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir():
        raise UserError(f"{out} is a file; `{made_by}` writes a folder: name a new one")
    others = [name for name in os.listdir(out) if name != ".lock" and not name.startswith(TEMPORARY)]
    if others and not (out / marker).is_file():
        raise UserError(f"{out} was not made by `{made_by}` (it has no {marker}) and is not empty; name a new folder")


def temporary_path(path: Path) -> Path:
    """A new name for a temporary file or folder beside `path`, with the same suffixes."""
    name = os.fsencode(path.name)[-150:].decode(errors="ignore")  # file systems allow 255 bytes
    return path.with_name(f"{TEMPORARY}{_host()}-{os.getpid()}-{uuid.uuid4().hex[:12]}-{name}")


@cache
def _host() -> str:
    return socket.gethostname().replace("-", "_").replace("/", "_")[:64] or "host"


_swept: set[tuple[int, Path]] = set()  # process and folder


def sweep_temporary(folder: str | Path) -> None:
    """Remove the temporary files in `folder` that processes of this machine left when they were killed.

    Those of other machines go when they are a week old. A process looks into each folder once.
    """
    folder = Path(folder)
    if (os.getpid(), folder.absolute()) in _swept:
        return
    _swept.add((os.getpid(), folder.absolute()))
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
    if parts[0] == _host():
        return not is_alive(int(parts[1]))
    return time.time() - entry.stat(follow_symlinks=False).st_mtime > ABANDONED_SECONDS


def is_alive(pid: int) -> bool:
    """Whether a process of this machine has the number `pid`."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` (UTF-8) atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: object) -> None:
    """Write `value` as indented JSON, atomically. Numbers that are not finite, which JSON lacks, become null."""
    write_text(path, json.dumps(finite_or_null(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: str | Path, rows: Iterable[dict]) -> int:
    """Write one JSON object a line, atomically; returns the number of lines."""
    count = 0
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json_line(row))
            count += 1
    return count


def json_line(row: dict) -> str:
    """`row` as one line of JSON with its line end. Numbers that are not finite, which JSON lacks, become null."""
    return json.dumps(finite_or_null(row), ensure_ascii=False, allow_nan=False) + "\n"


def finite_or_null(value: Any) -> Any:
    """A tree of plain types with null for every number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite_or_null(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_null(item) for item in value]
    return value


def read_json(path: str | Path, what: str, hint: str) -> Any:
    """The content of a JSON file. UserError that names the file when it is missing, too large or not JSON.

    NaN, Infinity and keys that occur twice, which Python's reader would accept, and numbers beyond float64 are refused.
    `what` says what the file is and `hint` what to do, e.g. "scales", "make them with `asrtool tune`".
    """
    path = require_file(path, what, hint)
    if path.stat().st_size > MAX_JSON_BYTES:
        raise UserError(f"{path} has {path.stat().st_size:,} bytes, too many for {what}; {hint}")
    return parse_json(path.read_bytes(), str(path), hint, is_file=True)


def parse_json(text: str | bytes, where: str, hint: str, is_file: bool = False) -> Any:
    """The value of a JSON text; UserError that begins with `where` (of a file: and the line), and ends with `hint`."""
    try:
        return STRICT_JSON.decode(text if isinstance(text, str) else text.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        line = f":{error.lineno}" if is_file else ""
        raise UserError(f"{where}{line}: not JSON ({error.msg}); {hint}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 text ({error.reason} at byte {error.start}); {hint}") from error
    except RecursionError as error:
        raise UserError(f"{where}: nested too deeply; {hint}") from error
    except ValueError as error:
        raise UserError(f"{where}: {error}; {hint}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a finite number")


def _bounded_int(text: str) -> int:
    if len(text) > LONGEST_INT:
        raise ValueError(f"{text[:30]}... is too long a number")
    return int(text)


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:30]} is not a finite number")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for place, (key, _) in enumerate(pairs) if key in dict(pairs[:place]))
        raise ValueError(f"the key {twice[:50]!r} is there twice")
    return found


class _StrictDecoder(json.JSONDecoder):
    """Refuses numbers that are not finite, keys twice and strings that UTF-8 cannot hold, by ValueError."""

    def __init__(self):
        numbers = {"parse_constant": _refuse_constant, "parse_float": _finite_float, "parse_int": _bounded_int}
        super().__init__(**numbers, object_pairs_hook=_object)

    def decode(self, text: str) -> Any:
        """The value of a JSON text."""
        value = super().decode(text)
        if "\\u" in text and SURROGATE.search(text):
            try:
                json.dumps(value, ensure_ascii=False).encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"a string has \\u{ord(error.object[error.start]):x}, half of a character") from error
        return value


STRICT_JSON = _StrictDecoder()  # made once: 3 us a line


def read_jsonl(path: str | Path, hint: str = "write one object a line") -> Iterator[Any]:
    """The values of a JSONL file (.gz too), one by one. UserError that names the line that is not JSON."""
    for number, line in enumerate(read_lines(path, "JSONL file", hint), 1):
        yield parse_json(line, f"{path}:{number}", hint)


def read_lines(path: str | Path, what: str = "text", hint: str = "give a text file, plain or .gz") -> Iterator[str]:
    """The lines of a text file (UTF-8, a byte order mark is dropped), plain or .gz, each with its line end.

    Lines end with "\\n" or "\\r\\n", and nothing else. UserError when the file is missing (`what`, `hint`), is not
    UTF-8, is a damaged gzip file, or has a line of more than MAX_LINE_BYTES; it names the line.
    """
    number = 0
    for number, line in enumerate(read_byte_lines(path, what, hint), 1):
        try:
            text = line.removeprefix(BYTE_ORDER_MARK).decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}:{number}: not UTF-8 ({error.reason}); convert it, e.g. with iconv") from error
        if "\r" in text:
            text = text.rstrip("\r\n") + "\n"
        if "\r" in text or "\0" in text:
            raise UserError(f"{path}:{number}: {_not_a_line(text)}")
        yield text


def _not_a_line(text: str) -> str:
    """What is wrong with a line of text, and what to do."""
    if "\0" in text:
        return "a NUL character, as in UTF-16; convert it, e.g. with iconv -f UTF-16LE -t UTF-8"
    return "a carriage return within a line, as old Macs end them; convert it, e.g. with tr '\\r' '\\n'"


def read_byte_lines(
    path: str | Path, what: str = "text", hint: str = "give a text file, plain or .gz"
) -> Iterator[bytes]:
    """The lines of a file, plain or .gz, as bytes, with their line ends. UserError as of `read_lines`."""
    path = require_file(path, what, hint)
    number = 0
    try:
        with open_bytes(path) as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise UserError(f"{path}:{number}: a line of more than {MAX_LINE_BYTES >> 20} MB; is it {what}?")
                yield line
    except GZIP_ERRORS as error:
        raise UserError(f"{path}: damaged gzip file after line {number} ({error}); copy it again") from error


def open_bytes(path: str | Path) -> BinaryIO:
    """A file opened for reading bytes; decompressed when its name ends in .gz."""
    return gzip.open(path, "rb") if Path(path).suffix == ".gz" else open(path, "rb")


def max_unpacked_bytes(path: str | Path) -> int:
    """The most bytes that the compressed file `path` may unpack to. A file beyond it was written to exhaust memory."""
    return max(EXPANSION_FREE_BYTES, MAX_EXPANSION * Path(path).stat().st_size)


def read_blocks(path: str | Path, what: str, block_bytes: int = 1 << 20) -> Iterator[bytes]:
    """The content of a file, plain or .gz, in blocks of at most `block_bytes` bytes.

    UserError for a damaged gzip file, and for one that unpacks to more than `max_unpacked_bytes`; `what` says what the
    file should be, e.g. "a language model".
    """
    bytes_left = max_unpacked_bytes(path)
    try:
        with open_bytes(path) as file:
            while block := file.read(block_bytes):
                bytes_left -= len(block)
                if bytes_left < 0:
                    raise UserError(f"{path} unpacks to more than {MAX_EXPANSION} times its size; is it {what}?")
                yield block
    except GZIP_ERRORS as error:
        raise UserError(f"{path}: damaged gzip file ({error}); copy it or create it again") from error


def require_output(out: str | Path, suffixes: tuple[str, ...], inputs: Iterable[str | Path] = ()) -> None:
    """UserError unless the file `out` may be written: it has one of `suffixes`, and is not a folder or an input."""
    out = Path(out)
    if suffixes and not out.name.endswith(suffixes):
        raise UserError(f"OUT is {out}, which does not end in {' or '.join(suffixes)}; was OUT forgotten?")
    if out.is_dir() or not out.name:
        raise UserError(f"OUT is {out}, which is a folder; name a file")
    for path in inputs:
        if out.exists() and Path(path).exists() and os.path.samefile(out, path):
            raise UserError(f"OUT is {out}, which is an input as well; name another file")


def require_same_kind(out: str | Path, what: str, read: Callable[[Path], object]) -> None:
    """UserError when the file `out` exists, is not empty, and `read`, which raises AsrtoolError, does not take it.

    So a command replaces what it wrote itself, and never another file that was named by mistake. `what`: "a tokenizer".
    """
    out = Path(out)
    if not out.exists() or (out.is_file() and not out.stat().st_size):
        return
    try:
        read(out)
    except AsrtoolError as error:
        raise UserError(f"OUT is {out}, which exists and is not {what}; delete it or name another file") from error


def file_hash(path: str | Path) -> str:
    """sha256 of a file's bytes, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
