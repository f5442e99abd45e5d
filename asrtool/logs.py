"""Log lines of asrtool: the standard `logging` under the name "asrtool", shown on stderr with the time and the rank.

Every module logs to `logging.getLogger(__name__)`, below "asrtool". The command line calls `log_to_stderr`; a program
that uses asrtool as a library sees no lines below WARNING unless it configures logging, and can silence or redirect
all of them at the logger "asrtool".
"""

import logging
import os
import sys
from contextlib import suppress

CONTROL = {number: f"\\x{number:02x}" for number in (*range(32), 127, *range(128, 160)) if chr(number) not in "\n\t"}


def printable(message: str) -> str:
    """`message` with control characters as \\xNN: names come from data, and must not steer a terminal."""
    return message.translate(CONTROL)


class LineFormatter(logging.Formatter):
    """`2026-11-28 20:07:15 message`, with `rank N: ` before the message where there are several processes."""

    default_msec_format = None

    def __init__(self):
        several = int(os.environ.get("WORLD_SIZE") or 1) > 1
        rank = f"rank {os.environ.get('RANK', '0')}: " if several else ""
        super().__init__(f"%(asctime)s {rank}%(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record, without control characters."""
        return printable(super().format(record))


class StderrHandler(logging.Handler):
    """Writes lines to the current `sys.stderr`, clear of any progress bar; stdout is kept for results."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record. A closed stderr is not a reason to stop."""
        from tqdm import tqdm

        with suppress(OSError, ValueError):
            tqdm.write(self.format(record), file=sys.stderr)
            sys.stderr.flush()


def log_to_stderr(level: int = logging.INFO) -> None:
    """Show the log lines of asrtool from `level` on, on stderr. A second call only changes the level."""
    logger = logging.getLogger("asrtool")
    logger.setLevel(level)
    logger.propagate = False
    if not any(isinstance(handler, StderrHandler) for handler in logger.handlers):
        handler = StderrHandler()
        handler.setFormatter(LineFormatter())
        logger.addHandler(handler)
