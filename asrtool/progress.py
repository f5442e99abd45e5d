"""The progress of a loop: a bar on a terminal, and a log line every few seconds elsewhere."""

import logging
import time
from collections.abc import Iterable, Iterator
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
