"""Limits of resources: functions that the process of a command calls before it begins."""

import ctypes
import os
import resource
import subprocess
import tempfile

CLONE_NEWNS = 0x20000
UNABLE = 77  # exit status if this user may not set the limit


def descriptors(count: int) -> None:
    """Allows so many open files."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))


def shared_memory(size: str) -> None:
    """Gives this process a /dev/shm of `size`, in its own mount namespace."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(CLONE_NEWNS):
        os._exit(UNABLE)
    commands = (["mount", "--make-rprivate", "/"], ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", "/dev/shm"])
    if any(subprocess.run(command, capture_output=True, check=False).returncode for command in commands):
        os._exit(UNABLE)


def streams(*numbers: int) -> None:
    """Closes some of stdin, stdout and stderr, as `2>&-` does."""
    for number in numbers:
        os.close(number)


def readers(number: int) -> None:
    """Makes a stream a pipe that nobody reads, as with `| head`."""
    reading, writing = os.pipe()
    os.close(reading)
    os.dup2(writing, number)
    os.close(writing)


def temporary_space(folder: str) -> None:
    """Puts temporary files into `folder`."""
    os.environ["TMPDIR"] = folder
    tempfile.tempdir = None
