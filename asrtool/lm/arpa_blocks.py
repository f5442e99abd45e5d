"""Reads the lines of an ARPA file in blocks, the counts of its header, and many n-grams at once into numpy arrays."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asrtool.errors import UserError
from asrtool.readers import BYTE_ORDER_MARK, read_blocks

BLOCK_BYTES = 1 << 20  # read at once: some 30,000 lines, which is enough for numpy to be fast, and little memory
MAX_LINE_BYTES = 1 << 16  # five words and two numbers have some hundred
MAX_SHOWN = 200  # characters of a line in a message
END_MARKER = b"\\end\\"
COUNT_LINE = re.compile(rb"\s*ngram\s+(\d+)\s*=\s*(\d+)")
MAX_COUNT_DIGITS = 18  # of a count that are read: more than any model has


def header_count(line: bytes) -> tuple[int, int] | None:
    """Returns the order and the number of its n-grams that a line of the header counts; None for another line."""
    match = COUNT_LINE.match(line)
    return (int(match[1][:MAX_COUNT_DIGITS]), int(match[2][:MAX_COUNT_DIGITS])) if match else None


def line_blocks(path: Path) -> Iterator[list[bytes]]:
    """Yields the lines of a file (.gz too) without their line ends, about BLOCK_BYTES at a time.

    Raises UserError as of `read_blocks`, and for a line of more than MAX_LINE_BYTES. A byte order mark is dropped.
    """
    blocks = read_blocks(path, "an ARPA file", BLOCK_BYTES)
    rest = next(blocks, b"").removeprefix(BYTE_ORDER_MARK)
    number = 0
    for block in blocks:
        *lines, rest = (rest + block).split(b"\n")
        number += len(lines)
        if len(rest) > MAX_LINE_BYTES:
            raise UserError(f"{path}:{number + 1}: a line of more than {MAX_LINE_BYTES} bytes; not an ARPA file")
        if lines:
            yield lines
    yield rest.split(b"\n")


@dataclass(frozen=True)
class NgramLines:
    """The n-grams in a block of lines.

    lines: all lines of the block; first_line: the number of the first one in the file; rows: (m,) the index in `lines`
    of each n-gram; malformed: the indices of lines with another number of fields; words: `order` words for each n-gram,
    one n-gram after the other; values: (m, 2) log10 of the probability and of the back-off weight, which is 0 if the
    line has none, and NaN where a field is not a number.
    """

    lines: list[bytes]
    first_line: int
    rows: np.ndarray
    malformed: np.ndarray
    words: list[bytes]
    values: np.ndarray

    @property
    def line_numbers(self) -> np.ndarray:
        """(m,) the number of each n-gram's line in the file."""
        return self.first_line + self.rows

    def quote(self, row: int) -> str:
        """Returns the number and the text of line `row` of the block."""
        text = " ".join(self.lines[row].decode(errors="replace").split())
        return f"{self.first_line + row}: '{text[:MAX_SHOWN]}{'...' if len(text) > MAX_SHOWN else ''}'"


def parse_ngrams(lines: list[bytes], first_line: int, order: int) -> NgramLines:
    """Returns the n-grams of `order` in `lines`, the first of which is line `first_line` of its file.

    Skips blank lines.
    """
    fields = [line.split() for line in lines]
    counts = np.fromiter(map(len, fields), int, len(fields))
    well_formed = (counts == order + 1) | (counts == order + 2)
    rows = np.flatnonzero(well_formed)
    fields = [fields[row] for row in rows.tolist()]
    backoffs = [row[order + 1] if len(row) > order + 1 else b"0" for row in fields]
    return NgramLines(
        lines=lines,
        first_line=first_line,
        rows=rows,
        malformed=np.flatnonzero(~well_formed & (counts > 0)),
        words=[word for row in fields for word in row[1 : order + 1]],
        values=np.stack([_as_floats([row[0] for row in fields]), _as_floats(backoffs)], 1),
    )


def _as_floats(texts: list[bytes]) -> np.ndarray:
    try:
        if b"_" not in b"".join(texts):  # Python reads 1_000 as a number
            return np.array([float(text) for text in texts])
    except ValueError:
        pass
    return np.array([_as_float(text) for text in texts])


def _as_float(text: bytes) -> float:
    try:
        return float("nan") if b"_" in text else float(text)
    except ValueError:
        return float("nan")
