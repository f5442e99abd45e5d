"""Log lines of asrtool: the standard `logging` under the name "asrtool", shown on stderr with the time and the rank.

Every module logs to `logging.getLogger(__name__)`, below "asrtool". The command line calls `log_to_stderr`. A program
that uses asrtool as a library sees no lines below WARNING unless it configures logging, and can silence or redirect all
of them at the logger "asrtool".
"""

import logging
import os
import sys
from contextlib import suppress

# Control characters, but for line ends and tabs, as \xNN, and bytes of a file's name that are not UTF-8
ESCAPES = {number: f"\\x{number:02x}" for number in (*range(32), 127, *range(128, 160)) if chr(number) not in "\n\t"}
ESCAPES |= {0xDC00 + byte: f"\\x{byte:02x}" for byte in range(128, 256)}  # as os.fsdecode returns them


def printable(message: str) -> str:
    """Returns `message` with control characters and bytes that are not UTF-8 as \\xNN.

    Names come from data: they must not control a terminal, and standard output refuses such bytes.
    """
    return message.translate(ESCAPES)


class LineFormatter(logging.Formatter):
    """Formats `2026-11-28 20:07:15 message`; with several processes `2026-11-28 20:07:15 rank 1: message`.

    A warning or an error has its level before the message. The time is local time.
    """

    default_msec_format = None  # no milliseconds

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Returns the line of a record, without its traceback."""
        has_ranks = os.environ.get("WORLD_SIZE", "1") != "1"  # torchrun sets it
        rank = f"rank {os.environ.get('RANK', '0')}: " if has_ranks else ""
        level = f"{record.levelname}: " if record.levelno >= logging.WARNING else ""
        return f"{record.asctime} {rank}{level}{record.message}"

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line of a record, with its traceback, if any, and without control characters."""
        return printable(super().format(record))


class StderrHandler(logging.Handler):
    """Writes lines to the current `sys.stderr` without disturbing a progress bar; stdout is kept for results."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one record. A closed stderr is not an error."""
        from tqdm import tqdm

        if sys.stderr is None:
            return
        with suppress(OSError, ValueError), tqdm.external_write_mode(file=sys.stderr):
            sys.stderr.write(f"{self.format(record)}\n")  # one write: other processes may write to the same pipe
            sys.stderr.flush()


def log_to_stderr(level: int = logging.INFO) -> None:
    """Shows the log lines of asrtool from `level` on, on stderr. A second call only changes the level."""
    logger = logging.getLogger("asrtool")
    logger.setLevel(level)
    logger.propagate = False
    if not any(isinstance(handler, StderrHandler) for handler in logger.handlers):
        handler = StderrHandler()
        handler.setFormatter(LineFormatter())
        logger.addHandler(handler)


def shows_bars() -> bool:
    """Returns True if progress bars are wanted: stderr is a terminal, and log lines of level INFO are shown."""
    is_terminal = sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()
    return is_terminal and logging.getLogger("asrtool").isEnabledFor(logging.INFO)
