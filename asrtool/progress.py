"""The progress of a loop: a bar on a terminal, and a log line every few seconds elsewhere."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from asrtool.logs import shows_bars

logger = logging.getLogger(__name__)
T = TypeVar("T")

LOG_SECONDS = 10.0  # between log lines: often enough to follow it, rare enough to read afterwards


def progress(items: Iterable[T], description: str, total: int | None = None, units: str = "cuts") -> Iterator[T]:
    """Yields the `items` and shows how many there were, of `total` if it is known."""
    from tqdm import tqdm

    if shows_bars():
        yield from tqdm(items, desc=description, total=total, unit=f" {units}", leave=False, dynamic_ncols=True)
        return
    of_total = f"/{total}" if total else ""
    start_time = time.monotonic()
    last_line_time = start_time
    for count, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last_line_time > LOG_SECONDS:
            last_line_time = now
            logger.info(f"{description}: {count}{of_total} {units}, {count / (now - start_time):.1f}/s")


@contextmanager
def progress_meter(description: str, total: float | None, units: str) -> Iterator[Callable[[float], object]]:
    """Yields a function that adds to an amount, such as seconds of audio, and shows it, of `total` if it is known."""
    from tqdm import tqdm

    if shows_bars():
        numbers = "{n:.0f}/{total:.0f} " if total else "{n:.0f} "
        layout = "{desc}: {percentage:3.0f}%|{bar}| " if total else "{desc}: "
        layout += numbers + units + " [{elapsed}" + ("<{remaining}]" if total else "]")
        with tqdm(desc=description, total=total, bar_format=layout, leave=False, dynamic_ncols=True) as bar:
            yield bar.update
        return
    yield _LineMeter(description, total, units).add


class _LineMeter:
    """Logs an amount every LOG_SECONDS."""

    def __init__(self, description: str, total: float | None, units: str):
        self.description = description
        self.of_total = f"/{total:.0f}" if total else ""
        self.units = units
        self.amount = 0.0
        self.start_time = self.last_line_time = time.monotonic()

    def add(self, amount: float) -> None:
        self.amount += amount
        now = time.monotonic()
        if now - self.last_line_time > LOG_SECONDS:
            self.last_line_time = now
            speed = self.amount / (now - self.start_time)
            logger.info(f"{self.description}: {self.amount:.0f}{self.of_total} {self.units}, {speed:.1f}/s")
