"""Ctrl-C and SIGTERM, taken where nothing is half-done."""

import signal

from asrtool.progress import say


def ignore_interrupts(*_) -> None:
    """For worker processes: Ctrl-C reaches the whole group, and it is the parent's to act on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Interrupts:
    """While open, the first Ctrl-C or SIGTERM only sets `requested`; a second one interrupts at once."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> "Interrupts":
        self._before = [signal.signal(number, self._note) for number in self.SIGNALS]
        return self

    def __exit__(self, *_) -> None:
        for number, handler in zip(self.SIGNALS, self._before, strict=True):
            signal.signal(number, handler)

    def _note(self, *_) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        say("interrupted: stopping after this step (again to stop at once)")
