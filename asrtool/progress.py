"""Progress for people: a bar on a terminal, a plain line now and then in a log."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")

LOG_SECONDS = 10.0  # between plain lines: often enough to see it live, rare enough to read afterwards


CONTROL = {number: f"\\x{number:02x}" for number in (*range(32), 127, *range(128, 160)) if chr(number) not in "\n\t"}


def printable(message: str) -> str:
    """`message` with control characters as \\xNN: names come from data, and must not steer a terminal."""
    return message.translate(CONTROL)


def say(message: str) -> None:
    """Write one plain line to stderr, clear of any progress bar; stdout is kept for results."""
    from tqdm import tqdm

    with suppress(OSError, ValueError):  # a closed stderr is no reason to stop
        tqdm.write(printable(message), file=sys.stderr)
        sys.stderr.flush()


def progress(items: Iterable[T], what: str, total: int | None = None, units: str = "cuts") -> Iterator[T]:
    """Pass `items` through and show how far it is. `total` may be unknown."""
    from tqdm import tqdm

    if sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty():
        yield from tqdm(items, desc=what, total=total, unit=f" {units}", leave=False, dynamic_ncols=True)
        return
    start = last = time.monotonic()
    for count, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last > LOG_SECONDS:
            last = now
            say(f"{what}: {count}{f'/{total}' if total else ''} {units}, {count / (now - start):.1f}/s")
