"""G, the grammar: an n-gram model in ARPA format as an acceptor of words, built by kaldilm like Kaldi's arpa2fst.

Back-off arcs have the input label #0; sentences begin in the start state (<s>) and end in final states (</s>). N-grams
with words that are not in the word table are left out, also <unk> unless the lexicon has a pronunciation of it.

kaldilm reads a copy in the one form that it knows, as `asrtool lm` writes it: other line ends make it lose n-grams.
"""

import itertools
import logging
import re
import shutil
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from asrtool.errors import UserError
from asrtool.files import report_full_disk
from asrtool.graphs.check import BadFst, LabelCounts, checked_blocks, has_property, read_fst
from asrtool.graphs.folder import write_symbols
from asrtool.graphs.lexicon_fst import BACKOFF
from asrtool.lm.arpa_blocks import END_MARKER, header_count, line_blocks
from asrtool.readers import read_lines
from asrtool.text.words import shortened

if TYPE_CHECKING:
    from kaldifst import StdVectorFst

logger = logging.getLogger(__name__)
ASCII_WHITE_SPACE = " \t\r\n\f\v"  # that divides the fields of a line
SENTENCE_MARKS = {"<s>", "</s>"}
NOT_WORDS = SENTENCE_MARKS | {"<unk>", "<UNK>"}
BOS, EOS = b"<s>", b"</s>"
SECTION = re.compile(rb"\\(\d+)-grams:")
BACKOFF_WEIGHT = re.compile(rb"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
NEGATIVE_INFINITY_TEXTS = (b"-inf", b"-infinity")  # in lower case
ARPA_LOG_ZERO = b"-99"  # log10 of a probability of 0, as tools write it that do not write -inf
MAX_EXAMPLES = 5  # words of a list that is not shown completely
MAX_ERROR_CHARACTERS = 300  # of an error of kaldilm, which repeats the line
ARPA2FST = """
import sys
from kaldilm import arpa2fst
arpa, fst, words, backoff = sys.argv[1:]
arpa2fst(arpa, fst, read_symbol_table=words, disambig_symbol=backoff, max_arpa_warnings=0)
"""


def arpa_words(path: str | Path) -> list[str]:
    """The words of the unigrams of an ARPA file (plain or .gz) without <s> and </s>, which it must have, too."""
    lines = (
        line.strip(ASCII_WHITE_SPACE) for line in read_lines(path, "language model", "create it with `asrtool lm`")
    )
    if not any(line == "\\data\\" for line in lines):
        raise UserError(f"{path} is not an ARPA file: it has no \\data\\ section; create one with `asrtool lm train`")
    if not any(line == "\\1-grams:" for line in itertools.takewhile(_is_before_ngrams, lines)):
        raise UserError(f"{path} has no unigrams: the section \\1-grams: is missing; train the LM again")
    words = _unigram_words(itertools.takewhile(lambda line: not line.startswith("\\"), lines), path)
    missing = SENTENCE_MARKS - words.keys()
    if missing:
        raise UserError(f"{path} has no unigram {' and '.join(sorted(missing))}; train the LM on whole sentences")
    return [word for word in words if word not in SENTENCE_MARKS]


def _unigram_words(rows: Iterable[str], path: str | Path) -> dict[str, None]:
    """The words of the rows of unigrams, in their order.

    UserError for a word that occurs twice, of which kaldilm would keep both, and for a word that is not in NFC, which
    the words of lexicons are. Words with white space such as U+00A0, which no text has, are left out with a warning.
    """
    words: dict[str, None] = {}
    for row in rows:
        fields = [field.decode() for field in row.encode().split(maxsplit=2)[:2]]  # as asrtool/lm/arpa.py divides
        if not unicodedata.is_normalized("NFC", row):
            raise UserError(f"{path} has words that are not in Unicode's composed form (NFC); see `asrtool lm convert`")
        if len(fields) > 1 and fields[1] in words:
            raise UserError(f"{path} has the unigram '{shortened(fields[1])}' twice; train the model again")
        words |= dict.fromkeys(fields[1:2])
    odd = [word for word in words if word.split() != [word]]
    if odd:
        logger.warning(
            f"{path}: {len(odd)} words with a space such as U+00A0 are left out: {_examples(map(ascii, odd))}"
        )
    for word in odd:
        del words[word]
    return words


def _is_before_ngrams(line: str) -> bool:
    return not line.startswith("\\") or line == "\\1-grams:"


def compare_vocabularies(lexicon: Collection[str], lm: Collection[str]) -> list[str]:
    """A line for each of the two vocabularies that lacks words of the other; UserError for no word in common."""
    lexicon_words = set(lexicon) - NOT_WORDS
    lm_words = set(lm) - NOT_WORDS
    if not lexicon_words & lm_words:
        hint = "take a lexicon of the LM's words"
        if _case_hint(lm_words, lexicon_words):
            hint = "give both the same case"
        words = f"LM: {_examples(lm_words)}; lexicon: {_examples(lexicon_words)}"
        raise UserError(f"no word of the LM is in the lexicon ({words}); {hint}")
    lines = []
    for own, others, text in (
        (lm_words, lexicon_words, "words of the LM have no pronunciation, so they are left out"),
        (lexicon_words, lm_words, "words of the lexicon are not in the LM, so they are left out"),
    ):
        missing = own - others
        if missing:
            lines.append(f"{len(missing)} of {len(own)} {text}: {_examples(missing)}{_case_hint(missing, others)}")
    return lines


def _examples(words: Iterable[str]) -> str:
    words = list(words)
    return ", ".join(sorted(words)[:MAX_EXAMPLES]) + (" ..." if len(words) > MAX_EXAMPLES else "")


def _case_hint(missing: set[str], others: set[str]) -> str:
    """Says how many of the missing words are among the others in another case; empty for none."""
    folded = {word.casefold() for word in others}
    count = sum(word.casefold() in folded for word in missing)
    return f" ({count} of them are there in another case)" if count else ""


def grammar_fst(path: str | Path, words: Sequence[str]) -> "StdVectorFst":
    """G of an ARPA file, sorted by input label; `words` are symbols by label.

    UserError with the wrong line, and for a full temporary folder. kaldilm runs in a process of its own, since it ends
    its process at an error, and returns G as text.
    """
    path = Path(path)
    disk = f"temporary files in {tempfile.gettempdir()} (TMPDIR names another folder)"
    with tempfile.TemporaryDirectory() as folder, report_full_disk(disk):
        plain = Path(folder, "lm.arpa")
        num_ngrams = _normalise(path, plain, set(words[1:-1]) | SENTENCE_MARKS)
        table = Path(folder, "words.txt")
        fst = Path(folder, "G.fst")
        write_symbols(table, words)
        result = subprocess.run(
            [sys.executable, "-c", ARPA2FST, plain, fst, table, BACKOFF],
            capture_output=True,
            text=True,
            errors="replace",
        )
        if result.returncode:
            raise UserError(f"{path} is not a valid ARPA file: {_kaldilm_error(result)}; train the model again")
        return _read_grammar(path, fst, len(words), num_ngrams)


def _normalise(path: Path, plain: Path, words: Collection[str]) -> int:
    """Writes the ARPA file `path` to `plain` as kaldilm reads it; returns the number of n-grams that G must have.

    The copy has no compression, no byte order mark, line ends "\\n", -99 for log10 values of -inf, no back-off weights
    of the highest order that the header names, and sections for orders that it counts no n-grams of. G has the n-grams
    of `words`, except those with <s> after or </s> before another word, and the unigram <s>.
    """
    known = {word.encode() for word in words}
    order = 0  # of the section; 0 outside of them
    highest = 0  # order that the header names
    empty_orders: set[int] = set()  # without a section so far
    num_ngrams = 0
    with open(plain, "wb") as file:
        for lines in line_blocks(path):
            for number, line in enumerate(lines):
                fields = line.split()
                if line.startswith(b"\\"):
                    section = SECTION.match(line)
                    order = int(section[1]) if section else 0
                    empty_orders.discard(order)
                    if line.strip() == END_MARKER:
                        line = b"".join(b"\\%d-grams:\n" % empty for empty in sorted(empty_orders)) + END_MARKER
                elif order and fields:
                    ngram = fields[1 : order + 1]
                    if known.issuperset(ngram) and EOS not in ngram[:-1] and BOS not in ngram[1:] and ngram != [BOS]:
                        num_ngrams += 1
                    line = _readable_ngram(line, fields, order, is_highest=order == highest)
                elif row := header_count(line):
                    counted_order, count = row
                    highest = max(highest, counted_order)
                    if not count:
                        empty_orders.add(counted_order)
                lines[number] = line.rstrip() + b"\n"
            file.writelines(lines)
    return num_ngrams


def _readable_ngram(line: bytes, fields: list[bytes], order: int, is_highest: bool) -> bytes:
    """Returns the line of an n-gram of `order` as kaldilm reads it: `fields` are log10 value, words, back-off."""
    if is_highest and len(fields) == order + 2 and BACKOFF_WEIGHT.fullmatch(fields[-1]):
        fields = fields[:-1]  # some tools write weights that no longer n-gram uses
        line = b"\t".join([fields[0], b" ".join(fields[1:])])
    return _without_infinity(fields, order) if b"inf" in line.lower() else line


def _without_infinity(fields: list[bytes], order: int) -> bytes:
    """Returns the line of an n-gram of `order` with -99 instead of -inf: `fields` are log10 value, words, back-off."""
    values = [fields[0], *fields[order + 1 :]]
    first, *others = [ARPA_LOG_ZERO if value.lower() in NEGATIVE_INFINITY_TEXTS else value for value in values]
    return b"\t".join([first, b" ".join(fields[1 : order + 1]), *others])


def _read_grammar(path: Path, fst: Path, words: int, num_ngrams: int) -> "StdVectorFst":
    """Reads the FST that kaldilm wrote, which must have `num_ngrams` n-grams.

    The exit status of kaldilm is 0 even if the disk was full; then the file is cut short.
    """
    try:
        grammar = read_fst(fst, LabelCounts(words, words))
        found = _count_ngrams(fst, words)
    except (BadFst, FileNotFoundError) as error:
        problem = error if isinstance(error, BadFst) else "is missing"
        disk = fst.parent.parent
        free = shutil.disk_usage(fst.parent).free
        hint = f"set TMPDIR if no space was left in {disk} ({free:,} bytes now), or train the model again"
        raise UserError(f"{path}: its G.fst from kaldilm {problem}; {hint}") from error
    if not has_property(grammar, "deterministic"):
        raise UserError(f"{path} has an n-gram twice; train the model again")
    if found != num_ngrams:
        problem = f"{num_ngrams:,} n-grams of the words of the lexicon, but kaldilm read {found:,} of them"
        raise UserError(f"{path} has {problem}; write it again with `asrtool lm convert`")
    return grammar


def _count_ngrams(fst: Path, words: int) -> int:
    """Returns the n-grams in the file of G: arcs with a word, and final weights, which are n-grams that end in </s>."""
    *_, blocks = checked_blocks(fst, LabelCounts(words, words))
    backoff = words - 1  # the last label
    return sum(
        int(np.count_nonzero(block.arcs.labels[:, 0] != backoff)) + int(np.count_nonzero(block.final != np.inf))
        for block in blocks
    )


def _kaldilm_error(result: subprocess.CompletedProcess[str]) -> str:
    """The last error in the log of kaldilm; without one, how its process ended."""
    errors = [line.removeprefix("[E] ") for line in result.stderr.splitlines() if line.startswith("[E] ")]
    if errors:
        return errors[-1][:MAX_ERROR_CHARACTERS]
    if result.returncode < 0:
        return f"kaldilm was ended by signal {-result.returncode}, perhaps for lack of memory"
    return (result.stderr.strip().splitlines() or ["kaldilm printed no message"])[-1]
