"""Many lines of an ARPA file at once, as columns, so that numpy does the rest."""

from dataclasses import dataclass

import numpy as np


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
        return f"{self.first + place}: '{' '.join(self.lines[place].decode(errors='replace').split())}'"


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
        return np.array([float(text) for text in texts])
    except ValueError:
        return np.array([_float(text) for text in texts])


def _float(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
