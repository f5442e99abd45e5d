"""Audio that arrives by a pipe or a file object is copied to a temporary file: most formats need to seek."""

import os
import select
import stat
import tempfile
from pathlib import Path
from typing import IO, BinaryIO

from asrtool.data.sources import InvalidEntry
from asrtool.files import sweep_temporary, temporary_path

COPY_BYTES = 1 << 20  # copied at a time
MAX_SPOOLED_BYTES = 1 << 34  # 16 GiB, a day of stereo at 48 kHz: more is not a recording, such as /dev/zero
PIPE_WAIT_SECONDS = 10.0  # for the first byte of a named pipe: its writer may start a little later


def open_spool() -> IO[bytes]:
    """Returns an empty temporary file, which is removed when it is closed.

    Its name has the number of the process, so that a later process removes what one that was killed has left.
    """
    folder = Path(tempfile.gettempdir())
    sweep_temporary(folder)
    return tempfile.NamedTemporaryFile(prefix=f"{temporary_path(folder / 'asrtool-audio').name}-", dir=folder)


def spool(source: BinaryIO, name: str) -> IO[bytes]:
    """Returns a temporary file with all bytes of `source`; it is removed when it is closed. Raises InvalidEntry."""
    file = open_spool()
    try:
        size = _copy(source, file, name)
        file.flush()
    except OSError as error:
        file.close()
        folder = tempfile.gettempdir()
        reason = f"copying to {folder} failed: {error.strerror}; set TMPDIR to a folder with more space"
        raise InvalidEntry(f"{name}: {reason}") from error
    except BaseException:
        file.close()
        raise
    if size == 0:
        file.close()
        raise InvalidEntry(f"no data: {name} is empty")
    return file


def _copy(source: BinaryIO, target: IO[bytes], name: str) -> int:
    size = 0
    while content := source.read(COPY_BYTES):
        if not isinstance(content, bytes | bytearray | memoryview):
            raise InvalidEntry(f"{name} gives text, not bytes; open it in binary mode")
        size += target.write(content)
        if size > MAX_SPOOLED_BYTES:
            raise InvalidEntry(f"{name} has more than {MAX_SPOOLED_BYTES >> 30} GiB")
    return size


def is_pipe(path: str | Path) -> bool:
    """Returns True for a named pipe, and for what a shell writes for <(command)."""
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def spool_pipe(path: str | Path, wait_seconds: float = PIPE_WAIT_SECONDS) -> IO[bytes]:
    """Returns a temporary file with what comes through a named pipe. Raises InvalidEntry if nothing comes."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # returns at once, even without a writer
    except OSError as error:
        raise InvalidEntry(f"not readable: {path} ({error.strerror})") from error
    with open(descriptor, "rb") as pipe:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        if not poll.poll(1000 * wait_seconds):
            raise InvalidEntry(f"no data: nothing was written to the pipe {path} within {wait_seconds:g} s")
        os.set_blocking(descriptor, True)
        return spool(pipe, str(path))
