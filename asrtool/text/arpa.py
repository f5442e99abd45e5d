"""ARPA files, the text format of n-gram models that SRILM, KenLM, Kaldi and others share.

    \\data\\                                   log10 of the probability, the words, and log10 of the back-off weight
    ngram 1=...                             where the n-gram is a history too, which is 0 if not given
    \\1-grams:
    -2.1234  WORD  -0.5678
    \\end\\
"""

import gzip
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

from asrtool.errors import DataError, UserError, require_file
from asrtool.files import atomic_path
from asrtool.progress import progress, say
from asrtool.text.ngram import BOS, EOS, LN10, UNK, NgramModel
from asrtool.text.ngram_trie import Trie

BLOCK = 100_000  # lines handled at once: enough for numpy to pay, little memory
GZIP_LEVEL = 3  # of 9: a 4-gram model has a gigabyte of text, and level 6 takes twice the time for a tenth less
UNKNOWN = -100.0  # log10 p(<unk>) of a file without it, as KenLM assumes
NEVER = -99.0
Rows = list[tuple[int, list[bytes]]]  # line number, fields


def write_arpa(model: NgramModel, path: str | Path) -> None:
    """Write `model` to `path`, gzipped when that ends in .gz. A back-off weight is left out where nothing follows."""
    blocks = [
        (n, np.arange(first, min(first + BLOCK, model.trie.nodes(n).stop)))
        for n in range(1, model.order + 1)
        for first in range(model.trie.nodes(n).start, model.trie.nodes(n).stop, BLOCK)
    ]
    with atomic_path(path) as temporary, _create(temporary) as file:
        file.write("\\data\\\n" + "".join(f"ngram {n}={c}\n" for n, c in enumerate(model.trie.counts(), 1)))
        last, words = 0, np.array(model.words, dtype=object)
        for n, nodes in progress(blocks, f"writing {Path(path).name}", units="blocks"):
            if n != last:
                file.write(f"\n\\{n}-grams:\n")
                last = n
            file.writelines(_format(model, words, n, nodes))
        file.write("\n\\end\\\n")


def _format(model: NgramModel, words: np.ndarray, order: int, nodes: np.ndarray) -> Iterator[str]:
    columns = [words[column].tolist() for column in model.trie.spell(nodes, order)]
    logprobs = (model.logprobs[nodes].astype(float) / LN10).tolist()
    backoffs = (model.backoffs[nodes].astype(float) / LN10).tolist()
    shown = model.trie.inner[nodes] | (model.backoffs[nodes] != 0)
    tails = [f"\t{value:.7g}\n" if tail else "\n" for value, tail in zip(backoffs, shown.tolist(), strict=True)]
    line = "%.7g\t" + " ".join(["%s"] * order) + "%s"
    return map(line.__mod__, zip(logprobs, *columns, tails, strict=True))


def _create(path: Path):
    if path.suffix == ".gz":
        return gzip.open(path, "wt", GZIP_LEVEL, encoding="utf-8", newline="\n")
    return open(path, "w", encoding="utf-8", newline="\n")


def read_arpa(path: str | Path) -> NgramModel:
    """The model in an ARPA file, plain or .gz, of any tool.

    <s>, </s> and <unk> are added, with next to no probability and a warning, where they are missing. Raises UserError
    for what is no ARPA file, DataError with a line for each n-gram that is wrong.
    """
    path = require_file(path, "language model", "make it with `asrtool lm train`")
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            return _Reader(path, file).read()
    except (gzip.BadGzipFile, EOFError) as error:
        raise UserError(f"{path} is not a complete gzip file ({error}); copy or make it again") from error


class _Reader:
    """One file, read once. `keys` and the like grow by an order at a time."""

    def __init__(self, path: Path, file: BinaryIO):
        self.path, self.problems = path, []
        self.lines = enumerate(file, 1)
        self.marker = b""  # the line that ended the last section
        self.ids: dict[bytes, int] = {}

    def read(self) -> NgramModel:
        counts = self._header()
        self.words, logprobs, backoffs = self._unigrams(counts)
        trie = Trie(np.arange(-1, len(self.words)), len(self.words), [0, 1, 1 + len(self.words)])
        for n in range(2, len(counts) + 1):
            trie, *values = self._longer(trie, n, counts[n - 1])
            logprobs, backoffs = np.append(logprobs, values[0]), np.append(backoffs, values[1])
        if self.marker != b"\\end\\":
            self.problems.append(f"{self.path}: no \\end\\ after the {len(counts)}-grams; the file is not complete")
        if self.problems:
            raise DataError(f"{self.path}: {len(self.problems)} problems; make the model again", self.problems)
        backoffs[trie.nodes(trie.order)] = 0
        scaled = ((values * LN10).astype(np.float32) for values in (logprobs, backoffs))
        return NgramModel(self.words, trie, *scaled)

    def _header(self) -> list[int]:
        """The counts that the file promises, for orders 1, 2 ..."""
        for _, line in self.lines:
            if line.strip() == b"\\data\\":
                break
        else:
            raise UserError(f"{self.path} is not an ARPA file, without \\data\\; make it with `asrtool lm train`")
        counts = []
        for _, line in self.lines:
            if line.startswith(b"\\"):
                self.marker = line.strip()
                break
            if found := re.match(rb"ngram\s+(\d+)\s*=\s*(\d+)", line):
                counts.append(int(found[2]))
        if not counts or not counts[0] or self.marker != b"\\1-grams:":
            raise UserError(f"{self.path} has no unigrams, so no words; make the model again")
        while counts[-1] == 0:  # SRILM promises orders of which it then has no n-gram
            counts.pop()
        return counts

    def _section(self, order: int, promised: int) -> Iterator[Rows]:
        """The rows of the section that begins here, by blocks; those of a wrong length are problems."""
        if self.marker != b"\\%d-grams:" % order:
            self.problems.append(f"{self.path}: no section \\{order}-grams: after the {order - 1}-grams")
            return
        rows, found = progress(self._rows(), f"reading {order}-grams", promised, "n-grams"), 0
        while block := list(islice(rows, BLOCK)):
            found += len(block)
            bad = [row for row in block if len(row[1]) not in (order + 1, order + 2)]
            for number, fields in bad:
                self._problem(number, fields, f"not a number, {order} words and perhaps a back-off weight")
            yield [row for row in block if len(row[1]) in (order + 1, order + 2)] if bad else block
        if found != promised:
            self.problems.append(f"{self.path}: {found} {order}-grams, but its head promises {promised}")

    def _rows(self) -> Iterator[tuple[int, list[bytes]]]:
        for number, line in self.lines:
            if line.startswith(b"\\"):
                self.marker = line.strip()
                return
            if fields := line.split():
                yield number, fields
        self.marker = b""

    def _values(self, rows: Rows, order: int) -> tuple[np.ndarray, np.ndarray]:
        """log10 probabilities and back-off weights of rows; those that are no such numbers are problems."""
        texts = [(row[0], row[order + 1] if len(row) > order + 1 else b"0") for _, row in rows]
        try:
            values = np.array(texts, dtype=np.bytes_).reshape(-1, 2).astype(float)
        except ValueError:
            values = np.array([[_number(text) for text in pair] for pair in texts])
        sound = (values[:, 0] <= 0) & ~np.isnan(values[:, 1]) & (values[:, 1] < np.inf)
        for place in np.flatnonzero(~sound):
            self._problem(*rows[place], "its values are no log-probability and no back-off weight")
        return np.maximum(values[:, 0], NEVER - 1), np.maximum(values[:, 1], NEVER)  # some tools write -inf

    def _unigrams(self, counts: list[int]) -> tuple[list[str], np.ndarray, np.ndarray]:
        values = [np.zeros((2, 1))]
        for rows in self._section(1, counts[0]):
            values.append(np.stack(self._values(rows, 1)))
            for number, fields in rows:
                if self.ids.setdefault(fields[1], len(self.ids)) != len(self.ids) - 1:
                    self._problem(number, fields, "its word is there twice")
        try:
            words = [word.decode() for word in self.ids]
        except UnicodeDecodeError as error:
            raise UserError(f"{self.path} is not UTF-8 ({error}); convert it with iconv") from error
        if not words:
            raise UserError(f"{self.path} has no unigrams, so no words; make the model again")
        values = np.concatenate(values, 1)[:, : 1 + len(words)]
        return self._complete(words, *values)

    def _complete(self, words: list[str], logprobs: np.ndarray, backoffs: np.ndarray):
        """With <unk>, <s> and </s> where they are missing."""
        for word, value in ((UNK, UNKNOWN), (BOS, NEVER), (EOS, NEVER)):
            if word.encode() not in self.ids and not (word == UNK and UNK.upper().encode() in self.ids):
                say(f"warning: {self.path} has no {word}; it gets a log10 probability of {value:g}")
                words, logprobs, backoffs = [*words, word], np.append(logprobs, value), np.append(backoffs, 0)
        return words, logprobs, backoffs

    def _longer(self, trie: Trie, order: int, promised: int) -> tuple[Trie, np.ndarray, np.ndarray]:
        """`trie` with the n-grams of `order`, and their values."""
        keys, values, lines = [np.zeros(0, np.int64)], [np.zeros((2, 0))], [np.zeros(0, np.int64)]
        for rows in self._section(order, promised):
            keys.append(self._keys(trie, rows, order))
            values.append(np.stack(self._values(rows, order)))
            lines.append(np.array([number for number, _ in rows], np.int64))
        keys, values, lines = np.concatenate(keys), np.concatenate(values, 1), np.concatenate(lines)
        sorting = np.argsort(keys, kind="stable")
        keys = keys[sorting]
        for place in 1 + np.flatnonzero((keys[1:] == keys[:-1]) & (keys[1:] >= 0)):
            self.problems.append(f"{self.path}:{lines[sorting[place]]}: this {order}-gram is there twice")
        offsets = [*trie.offsets, trie.offsets[-1] + len(keys)]
        if self.problems:  # there will be no model: the rest is read for its problems, past what is unsound here
            sound = np.flatnonzero(keys >= 0)[np.unique(keys[keys >= 0], return_index=True)[1]]
            keys, sorting, offsets[-1] = keys[sound], sorting[sound], trie.offsets[-1] + len(sound)
        return Trie(np.append(trie.keys, keys), trie.size, offsets), *values[:, sorting]

    def _keys(self, trie: Trie, rows: Rows, order: int) -> np.ndarray:
        """The key of each row's n-gram, -1 with a problem where its words or its prefix are not in the file."""
        numbers = [self.ids.get(word, -1) for _, row in rows for word in row[1 : order + 1]]
        words = np.array(numbers, np.int64).reshape(-1, order)
        parents = 1 + words[:, 0]
        for column in range(1, order - 1):
            parents = trie.find(parents, words[:, column])
        unknown = (words < 0).any(1)
        for place in np.flatnonzero(unknown | (parents < 0)):
            missing = "a word of it is not among the 1-grams" if unknown[place] else "its first words are no n-gram"
            self._problem(*rows[place], missing)
        return np.where(unknown | (parents < 0), -1, parents * trie.size + words[:, -1])

    def _problem(self, number: int, fields: list[bytes], what: str) -> None:
        shown = b" ".join(fields).decode(errors="replace")
        self.problems.append(f"{self.path}:{number}: '{shown}': {what}")


def _number(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
