"""Ctrl-C and SIGTERM, handled where nothing is half-done, and worker processes that end with their parent."""

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

logger = logging.getLogger(__name__)

PARENT_SECONDS = 1.0  # between two checks that the parent process lives
RETRY_SECONDS = 0.05  # until SIGTERM is handled that came where Python ignores exceptions
TERMINATED = 128 + signal.SIGTERM  # exit status of a process that was asked to end, as a shell gives it


def init_worker(*_: object, ends_on_sigterm: bool) -> None:
    """Makes a worker process leave Ctrl-C to its parent, and end when the parent is gone, even if that was killed.

    With `ends_on_sigterm` False it leaves SIGTERM to its parent as well, which finishes work before it ends: a service
    manager or scheduler may send the signal to all processes. It then ends only on a SIGTERM of its parent itself, by
    which multiprocessing ends daemonic processes when Python exits; without that, Python would wait for them for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Blocked, the signal waits until the thread below takes it; sigterm_held may have blocked it, too
    signal.pthread_sigmask(signal.SIG_UNBLOCK if ends_on_sigterm else signal.SIG_BLOCK, [signal.SIGTERM])
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            if ends_on_sigterm:
                time.sleep(PARENT_SECONDS)
                continue
            received = signal.sigtimedwait([signal.SIGTERM], PARENT_SECONDS)
            if received and received.si_pid == parent:
                os._exit(0)
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


@contextlib.contextmanager
def sigterm_held() -> Iterator[None]:
    """Start a worker process inside, so that it gets no SIGTERM before its `init_worker` says what is done with it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Inside, SIGTERM ends the process as an exception does, so that temporary files are removed; exit status 143.

    Afterwards SIGTERM ends it at once: nothing is left to remove, and an exception would be reported as ignored.
    """
    process = os.getpid()

    def stop(_: int, frame: FrameType | None) -> None:
        if os.getpid() == process and (_is_in_fork_hook(frame) or _is_in_import_callback(frame)):
            signal.setitimer(signal.ITIMER_REAL, RETRY_SECONDS)  # calls this function again
            return
        raise SystemExit(TERMINATED)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGALRM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _is_in_fork_hook(frame: FrameType | None) -> bool:
    """Returns True in functions that Python calls around os.fork, such as logging's: it ignores their exceptions."""
    popen = getattr(sys.modules.get("multiprocessing.popen_fork"), "Popen", None)
    if popen is None:  # no process was forked yet; importing the module here only would slow down every start
        return False
    caller = frame.f_back if frame else None
    while caller and caller.f_code is not popen._launch.__code__:
        caller = caller.f_back
    return caller is not None


def _is_in_import_callback(frame: FrameType | None) -> bool:
    """Returns True in the function that deletes the lock of an imported module: Python ignores its exceptions."""
    code = frame.f_code if frame else None
    return code is not None and (code.co_filename, code.co_name) == ("<frozen importlib._bootstrap>", "cb")


class Terminated(KeyboardInterrupt):
    """SIGTERM was received; it is handled as Ctrl-C is."""


class Interrupts:
    """While open, the first Ctrl-C or SIGTERM only sets `requested` and logs `message`; a second one interrupts.

    The log line begins with the word of the error line that ends the command: "interrupted" or "terminated".
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, message: str | None = "stopping after this step (again to stop at once)") -> None:
        self.message = message
        self.requested = False
        self.kind: type[KeyboardInterrupt] = KeyboardInterrupt  # the exception for the last signal

    def __enter__(self) -> "Interrupts":
        self._previous = [signal.signal(number, self._handle) for number in self.SIGNALS]
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in zip(self.SIGNALS, self._previous, strict=True):
            signal.signal(number, handler)

    def _handle(self, number: int, *_: object) -> None:
        self.kind = Terminated if number == signal.SIGTERM else KeyboardInterrupt
        if self.requested:
            raise self.kind
        self.requested = True
        if self.message:
            word = "terminated" if self.kind is Terminated else "interrupted"
            logger.info(f"{word}: {self.message}")
