"""Many lines of an ARPA file at once, as columns, so that numpy does the rest."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asrtool.errors import UserError
from asrtool.files import GZIP_ERRORS, open_bytes

BLOCK_BYTES = 1 << 20  # read at once: some 30,000 lines, enough for numpy to pay, little memory
MAX_LINE_BYTES = 1 << 16  # five words and two numbers have some hundred
MAX_RATIO = 50  # of the text to its compressed file: ARPA files have 3 to 6; more was made to exhaust memory
SMALL = 32 << 20  # bytes of text below which the ratio does not matter
SHOWN = 200  # characters of a line in a message


def line_blocks(path: Path) -> Iterator[list[bytes]]:
    """The lines of a file (.gz too) without their line ends, about BLOCK_BYTES at a time.

    UserError for a damaged gzip file, one that grows by more than MAX_RATIO, and for a line of more than
    MAX_LINE_BYTES. A byte order mark is dropped.
    """
    rest, number, left = b"", 0, max(SMALL, MAX_RATIO * path.stat().st_size)
    try:
        with open_bytes(path) as file:
            rest = file.read(BLOCK_BYTES).removeprefix(b"\xef\xbb\xbf")
            while data := file.read(BLOCK_BYTES):
                left -= len(data)
                if left < 0:
                    raise UserError(f"{path}: unpacked it is over {MAX_RATIO} times as large; not an ARPA file")
                *lines, rest = (rest + data).split(b"\n")
                number += len(lines)
                if len(rest) > MAX_LINE_BYTES:
                    raise UserError(
                        f"{path}:{number + 1}: a line of more than {MAX_LINE_BYTES} bytes; not an ARPA file"
                    )
                if lines:
                    yield lines
    except GZIP_ERRORS as error:
        raise UserError(f"{path}: damaged gzip file after line {number} ({error}); copy it or make it again") from error
    yield rest.split(b"\n")


@dataclass(frozen=True)
class Block:
    """The n-grams of some lines, those with the right number of fields.

    words: `order` of them for each n-gram, one after the other; values: (m, 2) log10 of the probability and back-off
    weight, 0 if not given, NaN if no number; places: (m,) which of `lines` they are; bad: those that are no n-grams;
    first: the number of the first line in the file.
    """

    lines: list[bytes]
    first: int
    places: np.ndarray
    bad: np.ndarray
    words: list[bytes]
    values: np.ndarray

    @property
    def numbers(self) -> np.ndarray:
        """(m,) line numbers in the file."""
        return self.first + self.places

    def show(self, place: int) -> str:
        """Number and text of one of `lines`."""
        text = " ".join(self.lines[place].decode(errors="replace").split())
        return f"{self.first + place}: '{text[:SHOWN]}{'...' if len(text) > SHOWN else ''}'"


def parse(lines: list[bytes], first: int, order: int) -> Block:
    """The n-grams of `order` in `lines`, the first of which is line `first` of its file. Blank lines are nothing."""
    rows = [line.split() for line in lines]
    counts = np.fromiter(map(len, rows), int, len(rows))
    sound = (counts == order + 1) | (counts == order + 2)
    places = np.flatnonzero(sound)
    rows = [rows[place] for place in places.tolist()]
    backoffs = [row[order + 1] if len(row) > order + 1 else b"0" for row in rows]
    values = np.stack([_floats([row[0] for row in rows]), _floats(backoffs)], 1)
    words = [word for row in rows for word in row[1 : order + 1]]
    return Block(lines, first, places, np.flatnonzero(~sound & (counts > 0)), words, values)


def _floats(texts: list[bytes]) -> np.ndarray:
    try:
        if b"_" not in b"".join(texts):  # Python takes 1_000 for a number
            return np.array([float(text) for text in texts])
    except ValueError:
        pass
    return np.array([_float(text) for text in texts])


def _float(text: bytes) -> float:
    try:
        return float("nan") if b"_" in text else float(text)
    except ValueError:
        return float("nan")
