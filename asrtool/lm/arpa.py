"""ARPA files, the text format of n-gram models that SRILM, KenLM, Kaldi and others share.

    \\data\\                                   log10 of the probability, the words, and log10 of the back-off weight
    ngram 1=...                             where the n-gram is a history too, which is 0 if not given
    \\1-grams:
    -2.1234  WORD  -0.5678
    \\end\\
"""

import gzip
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

import numpy as np

from asrtool.errors import DataError, UserError, require_file
from asrtool.files import atomic_path
from asrtool.lm.arpa_blocks import END_MARKER, NgramLines, header_count, line_blocks, parse_ngrams
from asrtool.lm.ngram import BOS, EOS, LN10, LOG_ZERO_ARPA, UNK, NgramModel
from asrtool.lm.ngram_checks import MAX_ORDER, require_writable_words
from asrtool.lm.ngram_trie import Trie
from asrtool.progress import progress
from asrtool.text.words import composed_part

logger = logging.getLogger(__name__)

BLOCK_NGRAMS = 100_000  # n-grams written at once: enough for numpy to be fast, and little memory
GZIP_LEVEL = 3  # of 9: a 4-gram model is a gigabyte of text; level 6 takes 1.5 times as long to save a tenth
MAX_PROBLEMS = 10_000  # listed: a file of another kind may have as many as lines
DATA_MARKER = b"\\data\\"
LOG_UNK_ARPA = -100.0  # log10 p(<unk>) for a file without <unk>, as KenLM assumes


def write_arpa(model: NgramModel, path: str | Path) -> None:
    """Writes `model` to `path`, gzipped when the name ends in .gz.

    The back-off weight of an n-gram that no longer one begins with is left out. Raises UserError for words that the
    file cannot hold.
    """
    require_writable_words(model.words)
    blocks = [
        (n, np.arange(first, min(first + BLOCK_NGRAMS, model.trie.nodes(n).stop)))
        for n in range(1, model.order + 1)
        for first in range(model.trie.nodes(n).start, model.trie.nodes(n).stop, BLOCK_NGRAMS)
    ]
    words = np.array(model.words, dtype=object)
    with atomic_path(path) as temporary, _open_to_write(temporary) as file:
        file.write("\\data\\\n" + "".join(f"ngram {n}={c}\n" for n, c in enumerate(model.trie.counts(), 1)))
        last_order = 0
        for n, nodes in progress(blocks, f"writing {Path(path).name}", units="blocks"):
            if n != last_order:
                file.write(f"\n\\{n}-grams:\n")
                last_order = n
            file.writelines(_format_lines(model, words, n, nodes))
        file.write("\n\\end\\\n")


def _format_lines(model: NgramModel, words: np.ndarray, order: int, nodes: np.ndarray) -> Iterator[str]:
    columns = [words[column].tolist() for column in model.trie.ngram_words(nodes, order)]
    logprobs = (model.logprobs[nodes].astype(float) / LN10).tolist()
    backoffs = (model.backoffs[nodes].astype(float) / LN10).tolist()
    has_backoff = model.trie.has_children[nodes] | (model.backoffs[nodes] != 0)
    ends = [f"\t{value:.7g}\n" if shown else "\n" for value, shown in zip(backoffs, has_backoff.tolist(), strict=True)]
    line = "%.7g\t" + " ".join(["%s"] * order) + "%s"
    return map(line.__mod__, zip(logprobs, *columns, ends, strict=True))


def _open_to_write(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "wt", GZIP_LEVEL, encoding="utf-8", newline="\n")
    return open(path, "w", encoding="utf-8", newline="\n")


def read_arpa(path: str | Path) -> NgramModel:
    """Reads the model in an ARPA file of any tool, plain or .gz. Words are brought into Unicode's composed form (NFC).

    <s>, </s> and <unk> are added, with nearly zero probability and a warning, where the file lacks them. Raises
    UserError for a file that is not ARPA, and DataError with a line for each n-gram that is wrong.
    """
    return _ArpaReader(require_file(path, "language model", "train one with `asrtool lm train`")).read()


def begins_as_arpa(path: Path) -> bool:
    """Returns whether a file has the line \\data\\ in its first megabyte. Raises UserError when it cannot be read."""
    return any(line.strip() == DATA_MARKER for line in next(line_blocks(path), []))


class _ArpaReader:
    """Reads one file once."""

    def __init__(self, path: Path):
        self.path = path
        self.problems: list[str] = []
        self.blocks = line_blocks(path)
        self.lines: list[bytes] = []  # of the current block
        self.next_row = 0  # of the current block, which is read next
        self.first_line = 1  # the number in the file of the block's first line
        self.marker = b""  # the line that ended the last section
        self.ids: dict[bytes, int] = {}

    def read(self) -> NgramModel:
        counts = self._read_header()
        words, logprobs, backoffs = self._read_unigrams(counts[0])
        trie = Trie(np.arange(-1, len(words)), len(words), [0, 1, 1 + len(words)])
        for n in range(2, len(counts) + 1):
            trie, new_logprobs, new_backoffs = self._read_order(trie, n, counts[n - 1])
            logprobs = np.append(logprobs, new_logprobs)
            backoffs = np.append(backoffs, new_backoffs)
        if self.marker != END_MARKER:
            self._add_problem(f"{self.path}: no \\end\\ after the {len(counts)}-grams; the file is not complete")
        if self.problems:
            raise self._data_error(f"{len(self.problems)} problems")
        backoffs[trie.nodes(trie.order)] = 0  # some tools write weights for the highest order
        return NgramModel(
            words, trie, logprobs=(logprobs * LN10).astype(np.float32), backoffs=(backoffs * LN10).astype(np.float32)
        )

    def _read_header(self) -> list[int]:
        """Returns the counts of n-grams in the file's header, for orders 1, 2 ..."""
        while self.marker != DATA_MARKER:
            for _ in self._lines_until_marker():
                pass
            if not self.marker:
                raise UserError(
                    f"{self.path} is not an ARPA file: it has no \\data\\ section; create one with `asrtool lm train`"
                )
        rows = [row for _, lines in self._lines_until_marker() for line in lines if (row := header_count(line))]
        orders = [order for order, _ in rows]
        counts = [count for _, count in rows]
        if orders[:1] != [1] or not counts[0] or self.marker != b"\\1-grams:":
            raise self._no_unigrams()
        if orders != list(range(1, len(orders) + 1)) or len(orders) > MAX_ORDER:
            raise UserError(f"{self.path} does not count n-grams of 1, 2 ... {MAX_ORDER} words; train the model again")
        return counts

    def _no_unigrams(self) -> UserError:
        return UserError(f"{self.path} has no unigrams, so no words; train the model again")

    def _read_section(self, order: int, expected: int) -> Iterator[NgramLines]:
        """Yields the lines of the section that begins here.

        Lines without an n-gram or with unsound values are problems.
        """
        if self.marker != b"\\%d-grams:" % order:
            if expected:
                self._add_problem(f"{self.path}: no section \\{order}-grams: after the {order - 1}-grams")
            return
        count = 0
        for first_line, lines in progress(self._lines_until_marker(), f"reading {order}-grams", units="MB"):
            block = parse_ngrams(lines, first_line, order)
            count += len(block.rows) + len(block.malformed)
            self._add_problems(block, block.malformed, f"not a number, {order} words and perhaps a back-off weight")
            logprobs, backoffs = block.values.T
            unsound = ~((logprobs <= 0) & (backoffs <= -LOG_ZERO_ARPA))  # true for NaN
            self._add_problems(block, block.rows[unsound], "its values are not a log-probability and a back-off weight")
            lowest = [LOG_ZERO_ARPA - 1, LOG_ZERO_ARPA]
            np.maximum(block.values, lowest, out=block.values)  # some tools write -inf
            yield block
        if count != expected:
            self._add_problem(f"{self.path}: {count} {order}-grams, but its header promises {expected}")

    def _lines_until_marker(self) -> Iterator[tuple[int, list[bytes]]]:
        """Yields all lines up to the next line that begins with a backslash, which becomes the marker.

        They come in blocks: the number of the first line, and the lines.
        """
        self.marker = b""
        while not self.marker and self._has_lines():
            start, stop = self.next_row, len(self.lines)
            end = next((row for row in range(start, stop) if self.lines[row].startswith(b"\\")), stop)
            self.next_row = end + 1
            self.marker = b"".join(self.lines[end : end + 1]).strip()
            yield self.first_line + start, self.lines[start:end]

    def _has_lines(self) -> bool:
        """Returns whether there are more lines; reads the next block when the current one is used up."""
        if self.next_row >= len(self.lines):
            self.first_line += len(self.lines)
            self.lines = next(self.blocks, [])
            self.next_row = 0
        return bool(self.lines)

    def _read_unigrams(self, expected: int) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Returns the words, and log-probs and back-off weights of the empty history and the words, (1 + V,) each."""
        values = [np.zeros((1, 2))]
        words: dict[str, int] = {}
        for block in self._read_section(1, expected):
            values.append(block.values)
            for row, raw in zip(block.rows, block.words, strict=True):
                word = self._decode_word(raw, block.first_line + row)
                if word in words:
                    self._add_problems(block, [row], "its word occurs twice")
                words[word] = self.ids.setdefault(raw, len(self.ids))
        if not words:
            raise self._no_unigrams()
        logprobs, backoffs = np.concatenate(values)[: 1 + len(words)].T
        return self._add_special_words(list(words), logprobs, backoffs)

    def _decode_word(self, raw: bytes, line: int) -> str:
        try:
            return composed_part(text := raw.decode()) or text  # the words of a model over units are parts of words
        except UnicodeDecodeError as error:
            raise UserError(f"{self.path}:{line}: not UTF-8 ({error.reason}); convert it, e.g. with iconv") from error

    def _add_special_words(
        self, words: list[str], logprobs: np.ndarray, backoffs: np.ndarray
    ) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Adds <unk>, <s> and </s> where the file lacks them."""
        for word, value in ((UNK, LOG_UNK_ARPA), (BOS, LOG_ZERO_ARPA), (EOS, LOG_ZERO_ARPA)):
            if word not in words and not (word == UNK and UNK.upper() in words):
                logger.warning(f"{self.path} has no {word}; it gets a log10 probability of {value:g}")
                words = [*words, word]
                logprobs = np.append(logprobs, value)
                backoffs = np.append(backoffs, 0)
        return words, logprobs, backoffs

    def _read_order(self, trie: Trie, order: int, expected: int) -> tuple[Trie, np.ndarray, np.ndarray]:
        """Returns `trie` with the n-grams of `order`, and their log-probs and back-off weights."""
        block_keys = [np.zeros(0, np.int64)]
        block_values = [np.zeros((0, 2))]
        block_lines = [np.zeros(0, np.int64)]
        for block in self._read_section(order, expected):
            block_keys.append(self._keys(trie, block, order))
            block_values.append(block.values)
            block_lines.append(block.line_numbers)
        keys = np.concatenate(block_keys)
        sorting = np.argsort(keys, kind="stable")
        keys = keys[sorting]
        repeated = np.concatenate([[False], keys[1:] == keys[:-1]]) & (keys >= 0)
        for line in sorted(np.concatenate(block_lines)[sorting[repeated]]):
            self._add_problem(f"{self.path}:{line}: this {order}-gram occurs twice")
        sound = ~repeated & (keys >= 0)  # after problems the rest is read for its problems alone
        keys = keys[sound]
        logprobs, backoffs = np.concatenate(block_values)[sorting[sound]].T
        offsets = [*trie.offsets, trie.offsets[-1] + len(keys)]
        return Trie(np.append(trie.keys, keys), trie.vocab_size, offsets), logprobs, backoffs

    def _keys(self, trie: Trie, block: NgramLines, order: int) -> np.ndarray:
        """Returns the key of each n-gram; -1, and a problem, where its words or its prefix are not in the file."""
        numbers = [self.ids.get(word, -1) for word in block.words]
        words = np.array(numbers, np.int64).reshape(-1, order)  # (m, order)
        unknown = (words < 0).any(1)
        prefixes = 1 + words[:, 0]
        for column in range(1, order - 1):
            prefixes = trie.find(prefixes, words[:, column])
        no_prefix = ~unknown & (prefixes < 0)
        self._add_problems(block, block.rows[unknown], "a word of it is not among the 1-grams")
        self._add_problems(block, block.rows[no_prefix], f"its first words are not among the {order - 1}-grams")
        return np.where(unknown | no_prefix, -1, prefixes * trie.vocab_size + words[:, -1])

    def _add_problems(self, block: NgramLines, rows: Iterable[int], what: str) -> None:
        for row in rows:
            self._add_problem(f"{self.path}:{block.quote(row)}: {what}")

    def _add_problem(self, text: str) -> None:
        self.problems.append(text)
        if len(self.problems) >= MAX_PROBLEMS:
            raise self._data_error(f"the first {MAX_PROBLEMS} problems")

    def _data_error(self, summary: str) -> DataError:
        return DataError(f"{self.path}: {summary}; train the model again", self.problems)
