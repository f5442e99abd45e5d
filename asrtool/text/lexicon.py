"""Lexicons: words and how they are pronounced, in units of the acoustic model.

A file holds words only, a line a pronunciation: the word and its phones, parted by spaces or tabs. Several lines of a
word are alternatives, the usual one first. Also read are CMUdict's files (`word(2)` for alternatives, comments) and
Kaldi's lexiconp.txt (a probability behind each word, which decides the order of the alternatives and no more). Silence
between words is no matter of the lexicon: graphs put it there.
"""

import logging
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from asrtool.errors import DataError, UserError
from asrtool.files import require_output, require_same_kind, write_text
from asrtool.readers import read_lines
from asrtool.text.words import change_case, composed, has_control_characters, is_mark, shortened

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    pass

OTHER_SUFFIXES = (".gz", ".json", ".jsonl", ".arpa", ".npz", ".pt", ".fst")  # a lexicon is written as plain text
RESERVED = frozenset(["<eps>", "<blank>", "<blk>", "<s>", "</s>"])  # symbols of graphs; with them #0, #1 ...
VARIANT = re.compile(r"(?<=.)\([0-9]+\)$")  # CMUdict's number of an alternative
STRESSED = re.compile(r"([A-Za-z]{2})[0-2]")  # vowels of ARPAbet, the only phones that carry stress
DECIMAL = re.compile(r"[0-9]*\.[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+[eE]-[0-9]+")  # 0.25, 1e-05: no phones
NUMBER = re.compile(rf"[0-9]+|{DECIMAL.pattern}")

Pronunciation = tuple[str, ...]


@dataclass(frozen=True)
class Lexicon:
    """`pronunciations[word]`: one or more sequences of unit symbols, the usual one first."""

    pronunciations: dict[str, tuple[Pronunciation, ...]]

    @property
    def symbols(self) -> list[str]:
        """All symbols that occur, sorted."""
        return sorted({symbol for ways in self.pronunciations.values() for way in ways for symbol in way})


@dataclass(frozen=True)
class _Entry:
    line: int
    word: str
    phones: Pronunciation
    weight: float


def read_lexicon(
    path: str | Path, stress: str = "keep", case: str = "keep", phones: Collection[str] | None = None
) -> Lexicon:
    """The lexicon in a file (UTF-8, maybe .gz) in any of the three formats.

    `stress` "drop" takes the digits off ARPAbet's vowels, `case` ("keep", "upper", "lower") is that of the words; what
    becomes equal by either is one pronunciation. Lines that repeat another are named and count once. Raises UserError
    without any pronunciation, and DataError with all faults and their lines: empty pronunciations, reserved symbols,
    phones that are not among `phones`.
    """
    entries = list(_entries(path))
    if not entries:
        raise UserError(f"{path} holds no pronunciations; write lines such as HELLO HH AH L OW")
    if faults := list(_faults(entries, phones)):
        raise DataError(f"{len(faults)} faults in {path}; mend them, or leave these lines out", faults)
    _name_repeated(entries, path)
    ways: dict[str, dict[Pronunciation, None]] = {}
    for entry in sorted(entries, key=lambda entry: -entry.weight):  # stable: as in the file where there are no weights
        word = change_case(entry.word, case)
        way = tuple(map(without_stress, entry.phones)) if stress == "drop" else entry.phones
        ways.setdefault(word, {})[way] = None
    return Lexicon({word: tuple(found) for word, found in ways.items()})


@cache
def without_stress(phone: str) -> str:
    """AH0, AH1 and AH2 are AH; phones that are no vowels of ARPAbet stay as they are."""
    stressed = STRESSED.fullmatch(phone)
    return stressed[1] if stressed else phone


def _entries(path: str | Path) -> Iterator[_Entry]:
    lines = read_lines(path, "lexicon", "make it with `asrtool lexicon`")
    rows = [(number, fields) for number, line in enumerate(lines, 1) if (fields := _fields(composed(line)))]
    weighted = _have_probabilities([fields for _, fields in rows])
    for number, (word, *phones) in rows:
        weight = float(phones.pop(0)) if weighted else 1.0
        yield _Entry(number, VARIANT.sub("", word), tuple(phones), weight)


def _fields(line: str) -> list[str]:
    """What stands on a line before any comment. Those of CMUdict begin with ;;; or #, or come last, after a #."""
    fields = line.split()
    if not fields or fields[0].startswith(";;;") or (fields[0][0] == "#" and not fields[0][1:].isdecimal()):
        return []
    return fields[: fields.index("#")] if "#" in fields else fields


def _have_probabilities(rows: list[list[str]]) -> bool:
    """Whether each second field is a number in (0, 1], and one has a decimal point: `1` alone may well be a phone."""
    seconds = [fields[1] if len(fields) > 1 else "" for fields in rows]
    return any(map(DECIMAL.fullmatch, seconds)) and all(NUMBER.fullmatch(s) and 0 < float(s) <= 1 for s in seconds)


def _name_repeated(entries: list[_Entry], path: str | Path) -> None:
    """A warning, for a repeated line may have been meant as another; no error, for CMUdict has some."""
    first: dict[tuple[str, Pronunciation], int] = {}
    for entry in entries:
        line = first.setdefault((entry.word, entry.phones), entry.line)
        if line != entry.line:
            where = f"{path}: line {entry.line}: {shortened(entry.word)}"
            logger.info(f"{where}: the same pronunciation as in line {line}; it counts once")


def _faults(entries: list[_Entry], phones: Collection[str] | None) -> Iterator[str]:
    found = {phone for entry in entries for phone in entry.phones}
    bad = {phone: fault for phone in found if (fault := _phone_fault(phone, phones))}
    for entry in entries:
        where = f"line {entry.line}: {shortened(entry.word)}"
        if is_reserved(entry.word):
            yield f"{where}: a reserved symbol, not a word"
        if has_control_characters(entry.word):
            yield f"{where}: the word has control characters"
        if not entry.phones:
            yield f"{where}: no pronunciation"
        if not bad.keys().isdisjoint(entry.phones):
            wrong = dict.fromkeys(phone for phone in entry.phones if phone in bad)
            yield from (f"{where}: {shortened(phone)} {bad[phone]}" for phone in wrong)


def _phone_fault(phone: str, phones: Collection[str] | None) -> str | None:
    if is_reserved(phone) or is_mark(phone):
        return "is a reserved symbol, not a phone"
    if has_control_characters(phone):
        return "has control characters"
    if DECIMAL.fullmatch(phone):
        return "is not a phone; probabilities stand behind the word, in all lines or in none"
    return "is not among the phones" if phones is not None and phone not in phones else None


def is_reserved(symbol: str) -> bool:
    """Whether graphs use the symbol themselves: <eps>, <blank>, <s>, #0 ..."""
    return symbol.lower() in RESERVED or symbol.startswith("#")


def is_word(text: str) -> bool:
    """Whether a lexicon file can hold `text` as a word, so that it is read as the same."""
    if text.split() != [text] or text.startswith(";;;") or has_control_characters(text):
        return False
    return not is_reserved(text) and not VARIANT.search(text)


def write_lexicon(lexicon: Lexicon, path: str | Path) -> None:
    """Write the lexicon, words in the order of their characters. DataError with all words that a file cannot hold."""
    wrong = [word for word in lexicon.pronunciations if not is_word(word)]
    if wrong:
        raise DataError(f"{len(wrong)} words cannot stand in a lexicon file; leave them out", [*map(shortened, wrong)])
    lines = [" ".join((word, *way)) for word, ways in sorted(lexicon.pronunciations.items()) for way in ways]
    write_text(path, "".join(f"{line}\n" for line in lines))


def require_lexicon_output(out: str | Path, inputs: Iterable[str | Path], phones: Collection[str]) -> None:
    """UserError unless a lexicon of `phones` may be written to `out`: a new file, or one that `write_lexicon` wrote.

    Nearly every text can be read as a lexicon, all words but the first being phones, but not as one of these phones.
    """

    def require_lexicon(path: Path) -> None:
        for line in read_lines(path):
            _, *pronunciation = composed(line).split() or [""]
            if not pronunciation or not set(phones).issuperset(pronunciation):
                raise UserError(f"{path} is not a lexicon of these phones")

    if str(out).endswith(OTHER_SUFFIXES):
        raise UserError(f"OUT is {out}, but a lexicon is written as plain text (*.txt); was OUT forgotten?")
    require_output(out, (), inputs)
    require_same_kind(out, "a lexicon of the phones that are to be written", require_lexicon)
