"""Progress for people: a bar on a terminal, a plain log line now and then elsewhere."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

logger = logging.getLogger(__name__)
T = TypeVar("T")

LOG_SECONDS = 10.0  # between plain lines: often enough to see it live, rare enough to read afterwards


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
            logger.info(f"{what}: {count}{f'/{total}' if total else ''} {units}, {count / (now - start):.1f}/s")
