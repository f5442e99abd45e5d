"""Ctrl-C and SIGTERM, acted on where nothing is half-done, and processes that end with their parent."""

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator

logger = logging.getLogger(__name__)


PARENT_SECONDS = 1.0  # between two looks for the parent process
TERMINATED = 128 + signal.SIGTERM  # exit status of a process that was asked to end, as a shell gives it


def ignore_interrupts(*_) -> None:
    """For worker processes: Ctrl-C reaches the whole process group, and the parent process acts on it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def init_worker(*_) -> None:
    """For worker processes: leave Ctrl-C to the parent process, and end when it is gone, even if it was killed."""
    ignore_interrupts()
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


@contextlib.contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Inside, SIGTERM ends the process as an exception does, so that temporary files are removed; exit status 143.

    Behind it nothing is left to remove, and an exception would be reported as one that was ignored.
    """

    def stop(*_) -> None:
        raise SystemExit(TERMINATED)

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


class Terminated(KeyboardInterrupt):
    """SIGTERM, acted on as Ctrl-C is."""


class Interrupts:
    """While open, the first Ctrl-C or SIGTERM only sets `requested`; a second one interrupts at once."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested = False
        self.kind: type[KeyboardInterrupt] = KeyboardInterrupt  # what to raise for the last signal

    def __enter__(self) -> "Interrupts":
        self._before = [signal.signal(number, self._note) for number in self.SIGNALS]
        return self

    def __exit__(self, *_) -> None:
        for number, handler in zip(self.SIGNALS, self._before, strict=True):
            signal.signal(number, handler)

    def _note(self, number: int, *_) -> None:
        self.kind = Terminated if number == signal.SIGTERM else KeyboardInterrupt
        if self.requested:
            raise self.kind
        self.requested = True
        logger.info("interrupted: stopping after this step (again to stop at once)")
