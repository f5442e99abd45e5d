"""ARPA files, the text format of n-gram models that SRILM, KenLM, Kaldi and others share.

    \\data\\                                   log10 of the probability, the words, and log10 of the back-off weight
    ngram 1=...                             where the n-gram is a history too, which is 0 if not given
    \\1-grams:
    -2.1234  WORD  -0.5678
    \\end\\
"""

import gzip
import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from asrtool.errors import DataError, UserError, require_file
from asrtool.files import atomic_path
from asrtool.lm.arpa_blocks import Block, line_blocks, parse
from asrtool.lm.ngram import BOS, EOS, LN10, UNK, NgramModel
from asrtool.lm.ngram_checks import MAX_ORDER
from asrtool.lm.ngram_trie import Trie
from asrtool.progress import progress
from asrtool.text.words import composed

logger = logging.getLogger(__name__)

BLOCK = 100_000  # lines written at once: enough for numpy to pay, little memory
GZIP_LEVEL = 3  # of 9: a 4-gram model is a gigabyte of text; level 6 takes half as long again for a tenth less
MAX_PROBLEMS = 10_000  # listed: a file of something else may have as many as lines
DATA = b"\\data\\"
COUNT = re.compile(rb"ngram\s+(\d+)\s*=\s*(\d+)")
DIGITS = 18  # of a count that are read: more than any model has
UNKNOWN = -100.0  # log10 p(<unk>) of a file without it, as KenLM assumes
NEVER = -99.0


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
    """The model in an ARPA file, plain or .gz, of any tool. Words are brought into Unicode's composed form (NFC).

    <s>, </s> and <unk> are added, with next to no probability and a warning, where they are missing. Raises UserError
    for what is no ARPA file, DataError with a line for each n-gram that is wrong.
    """
    return _Reader(require_file(path, "language model", "make it with `asrtool lm train`")).read()


def begins_as_arpa(path: Path) -> bool:
    """Whether the file `path` has the line \\data\\ in its first megabyte. UserError when it cannot be read."""
    return any(line.strip() == DATA for line in next(line_blocks(path), []))


class _Reader:
    """One file, read once."""

    def __init__(self, path: Path):
        self.path, self.problems = path, []
        self.blocks = line_blocks(path)
        self.lines: list[bytes] = []  # of the present block
        self.next = 0  # which of them is read next
        self.first = 1  # the number of the first of them in the file
        self.marker = b""  # the line that ended the last section
        self.ids: dict[bytes, int] = {}

    def read(self) -> NgramModel:
        counts = self._header()
        words, logprobs, backoffs = self._unigrams(counts[0])
        trie = Trie(np.arange(-1, len(words)), len(words), [0, 1, 1 + len(words)])
        for n in range(2, len(counts) + 1):
            trie, *values = self._longer(trie, n, counts[n - 1])
            logprobs, backoffs = np.append(logprobs, values[0]), np.append(backoffs, values[1])
        if self.marker != b"\\end\\":
            self._problem(f"{self.path}: no \\end\\ after the {len(counts)}-grams; the file is not complete")
        if self.problems:
            raise self._wrong(f"{len(self.problems)} problems")
        backoffs[trie.nodes(trie.order)] = 0  # some tools write some
        scaled = ((values * LN10).astype(np.float32) for values in (logprobs, backoffs))
        return NgramModel(words, trie, *scaled)

    def _header(self) -> list[int]:
        """The counts that the file promises, for orders 1, 2 ..."""
        while self.marker != DATA:
            for _ in self._until_marker():
                pass
            if not self.marker:
                raise UserError(f"{self.path} is not an ARPA file, without \\data\\; make it with `asrtool lm train`")
        rows = [found for _, lines in self._until_marker() for line in lines if (found := COUNT.match(line))]
        orders, counts = [int(row[1][:DIGITS]) for row in rows], [int(row[2][:DIGITS]) for row in rows]
        if orders[:1] != [1] or not counts[0] or self.marker != b"\\1-grams:":
            raise self._no_words()
        if orders != list(range(1, len(orders) + 1)) or len(orders) > MAX_ORDER:
            raise UserError(f"{self.path} does not count n-grams of 1, 2 ... {MAX_ORDER} words; make the model again")
        return counts

    def _no_words(self) -> UserError:
        return UserError(f"{self.path} has no unigrams, so no words; make the model again")

    def _section(self, order: int, promised: int) -> Iterator[Block]:
        """The lines of the section that begins here; those that are no n-grams or have no sound values are problems."""
        if self.marker != b"\\%d-grams:" % order:
            if promised:
                self._problem(f"{self.path}: no section \\{order}-grams: after the {order - 1}-grams")
            return
        found = 0
        for first, lines in progress(self._until_marker(), f"reading {order}-grams", units="MB"):
            block = parse(lines, first, order)
            found += len(block.places) + len(block.bad)
            self._problems(block, block.bad, f"not a number, {order} words and perhaps a back-off weight")
            logprobs, backoffs = block.values.T
            wrong = ~((logprobs <= 0) & (backoffs <= -NEVER))  # NaN is neither
            self._problems(block, block.places[wrong], "its values are no log-probability and no back-off weight")
            np.maximum(block.values, [NEVER - 1, NEVER], out=block.values)  # some tools write -inf
            yield block
        if found != promised:
            self._problem(f"{self.path}: {found} {order}-grams, but its head promises {promised}")

    def _until_marker(self) -> Iterator[tuple[int, list[bytes]]]:
        """All lines up to the next one that begins with a backslash, which becomes the marker, and their numbers.

        They come in blocks: the number of the first line, and the lines.
        """
        self.marker = b""
        while not self.marker and self._has_lines():
            start, stop = self.next, len(self.lines)
            end = next((place for place in range(start, stop) if self.lines[place].startswith(b"\\")), stop)
            self.next = end + 1
            self.marker = b"".join(self.lines[end : end + 1]).strip()
            yield self.first + start, self.lines[start:end]

    def _has_lines(self) -> bool:
        """Whether there are more lines; those of the next block are read where need be."""
        if self.next >= len(self.lines):
            self.first += len(self.lines)
            self.lines, self.next = next(self.blocks, []), 0
        return bool(self.lines)

    def _unigrams(self, promised: int) -> tuple[list[str], np.ndarray, np.ndarray]:
        """The words, and values of the empty history and of them."""
        values, words = [np.zeros((1, 2))], {}
        for block in self._section(1, promised):
            values.append(block.values)
            for place, raw in zip(block.places, block.words, strict=True):
                word = self._word(raw, block.first + place)
                if word in words:
                    self._problems(block, [place], "its word is there twice")
                words[word] = self.ids.setdefault(raw, len(self.ids))
        if not words:
            raise self._no_words()
        return self._complete(list(words), *np.concatenate(values)[: 1 + len(words)].T)

    def _word(self, raw: bytes, number: int) -> str:
        try:
            return composed(text := raw.decode()) or text
        except UnicodeDecodeError as error:
            raise UserError(f"{self.path}:{number}: not UTF-8 ({error.reason}); convert it, e.g. with iconv") from error

    def _complete(self, words: list[str], logprobs: np.ndarray, backoffs: np.ndarray):
        """With <unk>, <s> and </s> where they are missing."""
        for word, value in ((UNK, UNKNOWN), (BOS, NEVER), (EOS, NEVER)):
            if word not in words and not (word == UNK and UNK.upper() in words):
                logger.info(f"warning: {self.path} has no {word}; it gets a log10 probability of {value:g}")
                words, logprobs, backoffs = [*words, word], np.append(logprobs, value), np.append(backoffs, 0)
        return words, logprobs, backoffs

    def _longer(self, trie: Trie, order: int, promised: int) -> tuple[Trie, np.ndarray, np.ndarray]:
        """`trie` with the n-grams of `order`, and their values."""
        keys, values, lines = [np.zeros(0, np.int64)], [np.zeros((0, 2))], [np.zeros(0, np.int64)]
        for block in self._section(order, promised):
            keys.append(self._keys(trie, block, order))
            values.append(block.values)
            lines.append(block.numbers)
        keys, values, lines = np.concatenate(keys), np.concatenate(values), np.concatenate(lines)
        sorting = np.argsort(keys, kind="stable")
        keys = keys[sorting]
        again = np.concatenate([[False], keys[1:] == keys[:-1]]) & (keys >= 0)
        for line in sorted(lines[sorting[again]]):
            self._problem(f"{self.path}:{line}: this {order}-gram is there twice")
        sound = ~again & (keys >= 0)  # with problems there will be no model, but the rest is read for its problems too
        keys, sorting = keys[sound], sorting[sound]
        offsets = [*trie.offsets, trie.offsets[-1] + len(keys)]
        return Trie(np.append(trie.keys, keys), trie.size, offsets), *values[sorting].T

    def _keys(self, trie: Trie, block: Block, order: int) -> np.ndarray:
        """The key of each n-gram, -1 with a problem where its words or its prefix are not in the file."""
        numbers = [self.ids.get(word, -1) for word in block.words]
        words = np.array(numbers, np.int64).reshape(-1, order)
        unknown = (words < 0).any(1)
        parents = 1 + words[:, 0]
        for column in range(1, order - 1):
            parents = trie.find(parents, words[:, column])
        alone = ~unknown & (parents < 0)
        self._problems(block, block.places[unknown], "a word of it is not among the 1-grams")
        self._problems(block, block.places[alone], f"its first words are not among the {order - 1}-grams")
        return np.where(unknown | alone, -1, parents * trie.size + words[:, -1])

    def _problems(self, block: Block, places: Iterable[int], what: str) -> None:
        for place in places:
            self._problem(f"{self.path}:{block.show(place)}: {what}")

    def _problem(self, text: str) -> None:
        self.problems.append(text)
        if len(self.problems) >= MAX_PROBLEMS:
            raise self._wrong(f"the first {MAX_PROBLEMS} problems")

    def _wrong(self, what: str) -> DataError:
        return DataError(f"{self.path}: {what}; make the model again", self.problems)
