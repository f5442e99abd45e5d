"""Forked worker processes that are known to run: a fork that hangs is killed and repeated."""

import os
import select
import sys
from multiprocessing.context import ForkContext, ForkProcess
from multiprocessing.popen_fork import Popen
from multiprocessing.process import BaseProcess
from typing import Any

FIRST_WAIT_SECONDS = 10.0  # for the first sign of life; a machine that is short of memory takes seconds
NUM_TRIES = 4  # the wait doubles each time


def fork_context() -> ForkContext:
    """Returns a context of multiprocessing whose processes are forked, and run Python code once they are started.

    A fork copies locks of the interpreter that other threads hold at that moment, for example a thread of
    torch.distributed that frees a tensor. In Python 3.11 the child then waits for ever, before it runs any code, and
    its parent waits for it. Starting a process raises OSError when several forks in a row show no sign of life.
    """
    return _ConfirmedForkContext()


def loader_context(workers: int) -> ForkContext | None:
    """Returns the context of a torch DataLoader with this number of processes; None for torch's default."""
    return fork_context() if workers and sys.platform == "linux" else None


class _ConfirmedFork(ForkProcess):
    """A process that tells its parent through a pipe that it runs, and that ends when its parent exits.

    Python would wait at its exit for a process that is not daemonic, for example for the first one of a pool that was
    interrupted while it started the second one: it would wait for work for ever.
    """

    _pipe: tuple[int, int]  # descriptors of the ends to read and to write

    def __init__(self, *args: Any, daemon: bool | None = True, **options: Any) -> None:
        super().__init__(*args, daemon=daemon, **options)

    def _bootstrap(self, *args: int | None, **options: int | None) -> int:
        reader, writer = self._pipe
        os.close(reader)
        os.write(writer, b"1")
        os.close(writer)
        return super()._bootstrap(*args, **options)  # type: ignore[misc]  # typeshed leaves it out

    @staticmethod
    def _Popen(process: BaseProcess) -> Popen:
        assert isinstance(process, _ConfirmedFork)
        for attempt in range(NUM_TRIES):
            process._pipe = reader, writer = os.pipe()
            started = Popen(process)
            os.close(writer)
            runs = False
            try:
                runs = bool(select.select([reader], [], [], FIRST_WAIT_SECONDS * 2**attempt)[0])
            finally:  # also after a Ctrl-C: whoever starts the process does not know it yet, and would not end it
                os.close(reader)
                if not runs:
                    started.kill()
                    started.wait()
                    started.close()
            if runs:
                return started
        raise OSError(f"none of {NUM_TRIES} forked processes began to run")


class _ConfirmedForkContext(ForkContext):
    Process = _ConfirmedFork
