"""Locks, so that a folder or a file has one writer at a time. A lock ends with its process, however that ends.

    with write_lock(folder, "asrtool train"): ...
    with write_lock(folder, "asrtool lm train-neural", file="lm.pt"): ...

The lock is a POSIX record lock on the file FOLDER/.lock, or FOLDER/.FILE.lock. The operating system releases it when
the process ends, also for processes on other machines where the mount of a file server supports locks, so that a lock
is never stale. The file names the holder of the lock, and is not removed. Worker processes do not inherit the lock.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from asrtool.errors import UserError
from asrtool.files import sweep_temporary

LOCK = ".lock"
BUSY = {errno.EACCES, errno.EAGAIN}
UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}

_held: dict[tuple[int, Path], tuple[int, bool]] = {}  # (process, lock file) -> (times entered, shared)
_guard = threading.Lock()


@contextlib.contextmanager
def write_lock(folder: str | Path, command: str, shared: bool = False, file: str | None = None) -> Iterator[None]:
    """Inside, no other process writes into `folder`, which is created if it is missing, or to its `file`.

    With `shared`, other processes with a shared lock may write at the same time, each its own files. Raises UserError
    with the host and process that hold the lock. On a file system without locks there is no protection.
    """
    folder = Path(folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / (f".{file}.lock" if file else LOCK)
    key = (os.getpid(), lock)
    with _guard:
        depth = _held.get(key, (0, shared))[0]
        _held[key] = (depth + 1, shared)
    if depth:  # POSIX locks belong to the process: releasing an inner one would release the outer one
        try:
            yield
        finally:
            _leave(key)
        return
    descriptor = -1
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        _acquire(descriptor, folder / file if file else folder, command, shared)
        sweep_temporary(folder)
        yield
    finally:
        _leave(key)
        if descriptor >= 0:
            os.close(descriptor)


def _leave(key: tuple[int, Path]) -> None:
    with _guard:
        depth, shared = _held[key]
        if depth == 1:
            del _held[key]
        else:
            _held[key] = (depth - 1, shared)


def _acquire(descriptor: int, path: Path, command: str, shared: bool) -> None:
    try:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.lockf(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in UNSUPPORTED:
            return
        if error.errno not in BUSY:
            raise
        holder = _describe_holder(os.pread(descriptor, 4096, 0))
        raise UserError(f"{path} is in use by {holder}; wait for it, end it, or name another one") from error
    text = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "command": command}).encode() + b"\n"
    with contextlib.suppress(OSError):  # on a full disk the lock works as well, without a name
        os.pwrite(descriptor, text, 0)
        os.ftruncate(descriptor, len(text))


def _describe_holder(content: bytes) -> str:
    try:
        holder = json.loads(content)
        return f"{holder['command']} (process {holder['pid']} on {holder['host']})"
    except (ValueError, LookupError, TypeError):
        return "another process"
