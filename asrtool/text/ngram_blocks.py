"""Many lines of an ARPA file at once, as columns: splitting them one by one would take five times as long."""

from dataclasses import dataclass

import numpy as np

SPACE = np.zeros(256, bool)
SPACE[list(b" \t\n\v\f\r")] = True  # where bytes.split() splits


@dataclass(frozen=True)
class Block:
    """The n-grams of some lines, those with the right number of fields.

    words: (m, order) bytes; values: (m, 2) log10 of probability and back-off weight, 0 if not given, NaN if no number;
    places: (m,) which of `lines` they are; bad: those that are no n-grams; `first` is the number of the first line.
    """

    lines: list[bytes]
    first: int
    places: np.ndarray
    bad: np.ndarray
    words: np.ndarray
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
    text = b"".join(lines)
    fields = np.array([*text.split(), b"0"], dtype=object)  # the last one is for all that have no back-off weight
    counts = _count_fields(text, lines)
    sound = (counts == order + 1) | (counts == order + 2)
    begins = (np.cumsum(counts) - counts)[sound]
    backoffs = np.where(counts[sound] == order + 2, begins + order + 1, len(fields) - 1)
    values = np.stack([_floats(fields[begins]), _floats(fields[backoffs])], 1)
    words = fields[begins[:, None] + np.arange(1, order + 1)]
    return Block(lines, first, np.flatnonzero(sound), np.flatnonzero(~sound & (counts > 0)), words, values)


def _count_fields(text: bytes, lines: list[bytes]) -> np.ndarray:
    space = SPACE[np.frombuffer(text, np.uint8)]
    begins = ~space
    begins[1:] &= space[:-1]
    ends = np.cumsum([0, *map(len, lines)])
    return np.diff(np.concatenate([[0], np.cumsum(begins)])[ends])


def _floats(texts: np.ndarray) -> np.ndarray:
    try:
        return np.fromiter(map(float, texts), float, len(texts))
    except ValueError:
        return np.array([_float(text) for text in texts])


def _float(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
