"""Lexicons: words and their pronunciations, in units of the acoustic model.

A file has one line for each pronunciation: the word and its phones, separated by spaces or tabs. Several lines of a
word are alternative pronunciations, the usual one first. CMUdict's files (`word(2)` for alternatives, comments) and
Kaldi's lexiconp.txt (a probability after each word) are read as well; a lexicon with probabilities is written so, too.
A lexicon has no silence between words: graphs insert it.
"""

import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from asrtool.errors import DataError, UserError
from asrtool.files import require_output, require_same_kind, write_text
from asrtool.readers import read_lines
from asrtool.text.words import change_case, composed, has_control_characters, is_mark, shortened

logger = logging.getLogger(__name__)

OTHER_SUFFIXES = (".gz", ".json", ".jsonl", ".arpa", ".npz", ".pt", ".fst")  # a lexicon is written as plain text
RESERVED = frozenset(["<eps>", "<blank>", "<blk>", "<s>", "</s>"])  # symbols of graphs; with them #0, #1 ...
VARIANT = re.compile(r"(?<=.)\([0-9]+\)$")  # CMUdict's number of an alternative
STRESSED = re.compile(r"([A-Za-z]{2})[0-2]")  # vowels of ARPAbet, the only phones with stress
DECIMAL = re.compile(r"[0-9]*\.[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+[eE]-[0-9]+")  # 0.25, 1e-05: never a phone
NUMBER = re.compile(rf"[0-9]+|{DECIMAL.pattern}")
ROUNDING = 1e-6  # of probabilities in a file
MIN_PROBABILITY = 1e-30  # costs of smaller ones overflow in graphs

Pronunciation = tuple[str, ...]


@dataclass(frozen=True)
class Lexicon:
    """`pronunciations[word]`: one or more sequences of unit symbols, the usual one first.

    `probabilities[word, pronunciation]`: all probabilities other than 1. As in Kaldi, a word's need not sum to 1.
    """

    pronunciations: dict[str, tuple[Pronunciation, ...]]
    probabilities: Mapping[tuple[str, Pronunciation], float] = field(default_factory=dict)

    @property
    def symbols(self) -> list[str]:
        """All symbols that occur, sorted."""
        return sorted({symbol for prons in self.pronunciations.values() for pron in prons for symbol in pron})

    def only(self, words: Iterable[str]) -> "Lexicon":
        """Returns the part of the lexicon that pronounces `words`; words that it lacks do not count."""
        chosen = {word: self.pronunciations[word] for word in words if word in self.pronunciations}
        return Lexicon(chosen, {key: value for key, value in self.probabilities.items() if key[0] in chosen})

    def updated(self, other: "Lexicon") -> "Lexicon":
        """Returns the lexicon of the words of both; a word of `other` has the pronunciations that it has there."""
        pronunciations = {**self.pronunciations, **other.pronunciations}
        kept = {key: value for key, value in self.probabilities.items() if key[0] not in other.pronunciations}
        return Lexicon(pronunciations, {**kept, **other.probabilities})

    def probability(self, word: str, pronunciation: Pronunciation) -> float:
        """Returns the probability of a pronunciation of `word`."""
        return self.probabilities.get((word, pronunciation), 1.0)


@dataclass(frozen=True)
class _Entry:
    line: int
    word: str
    phones: Pronunciation
    probability: float


def read_lexicon(
    path: str | Path, stress: str = "keep", case: str = "keep", phones: Collection[str] | None = None
) -> Lexicon:
    """Reads the lexicon in a file (UTF-8, plain or .gz) in any of the three formats.

    `stress` "drop" removes the digits of ARPAbet's vowels, `case` ("keep", "upper", "lower") is applied to the words;
    pronunciations that become equal are merged, and their probabilities added, up to 1. Repeated lines are logged and
    count once. With `phones`, whatever is among them is a phone: a # is then no comment, and 0.5 may be no probability.
    Raises UserError for a file without any pronunciation, and DataError with all faults and their lines: empty
    pronunciations, reserved symbols, phones that are not among `phones`.
    """
    phones = None if phones is None else frozenset(phones)
    entries = list(_read_entries(path, phones or frozenset()))
    if not entries:
        raise UserError(f"{path} holds no pronunciations; write lines such as HELLO HH AH L OW")
    if faults := list(_faults(entries, phones)):
        raise DataError(f"{len(faults)} faults in {path}; correct them, or leave these lines out", faults)
    _log_repeated(entries, path)
    merged: dict[str, dict[Pronunciation, float]] = {}
    first_entries: dict[tuple[str, Pronunciation], _Entry] = {}
    for entry in entries:
        first_entries.setdefault((entry.word, entry.phones), entry)
    for entry in first_entries.values():
        several = merged.setdefault(change_case(entry.word, case), {})
        pronunciation = tuple(map(without_stress, entry.phones)) if stress == "drop" else entry.phones
        several[pronunciation] = min(1.0, several.get(pronunciation, 0.0) + entry.probability)
    return weighted_lexicon(merged)


def weighted_lexicon(probabilities: Mapping[str, Mapping[Pronunciation, float]]) -> Lexicon:
    """Returns a lexicon with the pronunciations of each word in the order of their probabilities.

    Pronunciations of equal probability keep their order. A sum of probabilities that rounds to 1 is 1.
    """
    pronunciations, other = {}, {}
    for word, probability_of in probabilities.items():
        pronunciations[word] = tuple(sorted(probability_of, key=lambda pronunciation: -probability_of[pronunciation]))
        for pronunciation, probability in probability_of.items():
            if probability < 1 - ROUNDING:
                other[word, pronunciation] = probability
    return Lexicon(pronunciations, other)


@cache
def without_stress(phone: str) -> str:
    """Returns AH for AH0, AH1 and AH2; phones that are not vowels of ARPAbet stay as they are."""
    stressed = STRESSED.fullmatch(phone)
    return stressed[1] if stressed else phone


def _read_entries(path: str | Path, phones: frozenset[str]) -> Iterator[_Entry]:
    lines = read_lines(path, "lexicon", "create it with `asrtool lexicon`")
    rows = [(number, fields) for number, line in enumerate(lines, 1) if (fields := lexicon_fields(line, phones))]
    has_probabilities = _have_probabilities([fields for _, fields in rows], phones)
    for number, (word, *symbols) in rows:
        probability = float(symbols.pop(0)) if has_probabilities else 1.0
        yield _Entry(number, word, tuple(symbols), probability)


def lexicon_fields(line: str, phones: Collection[str] = frozenset()) -> list[str]:
    """Returns the fields of a line of a lexicon or word list before any comment: the word (in NFC), then its phones.

    CMUdict's comments begin with ;;; or #, or are after the last phone; its number of an alternative, as in WORD(2), is
    no part of the word. Fields that are among `phones` stay as they are.
    """
    first, *rest = line.split() or [""]
    fields = [composed(first), *(text if text in phones else composed(text) for text in rest)]
    fields = [text for text in fields if text]  # one of invisible characters alone is empty in NFC
    if not fields or fields[0].startswith(";;;") or (fields[0][0] == "#" and not fields[0][1:].isdecimal()):
        return []
    word, *others = fields[: fields.index("#")] if "#" in fields and "#" not in phones else fields
    return [VARIANT.sub("", word), *others]


def _have_probabilities(rows: list[list[str]], phones: Collection[str]) -> bool:
    """Returns whether each second field is a number in (0, 1], and one has a decimal point: `1` may well be a phone.

    If all of them are among `phones`, they are probabilities where a phone follows each.
    """
    seconds = [fields[1] if len(fields) > 1 else "" for fields in rows]
    if not any(map(DECIMAL.fullmatch, seconds)):
        return False
    if not all(NUMBER.fullmatch(second) and 0 < float(second) <= 1 for second in seconds):
        return False
    return not all(second in phones for second in seconds) or all(len(fields) > 2 for fields in rows)


def _log_repeated(entries: list[_Entry], path: str | Path) -> None:
    """Logs repeated lines, which may have been meant as other words. They are not an error: CMUdict has some."""
    first_lines: dict[tuple[str, Pronunciation], int] = {}
    for entry in entries:
        first = first_lines.setdefault((entry.word, entry.phones), entry.line)
        if first != entry.line:
            where = f"{path}: line {entry.line}: {shortened(entry.word)}"
            logger.info(f"{where}: the same pronunciation as in line {first}; it counts once")


def _faults(entries: list[_Entry], phones: Collection[str] | None) -> Iterator[str]:
    distinct = {phone for entry in entries for phone in entry.phones}
    phone_faults = {phone: fault for phone in distinct if (fault := _phone_fault(phone, phones))}
    for entry in entries:
        where = f"line {entry.line}: {shortened(entry.word)}"
        if is_reserved(entry.word):
            yield f"{where}: a reserved symbol, not a word"
        if has_control_characters(entry.word):
            yield f"{where}: the word has control characters"
        if entry.probability < MIN_PROBABILITY:
            yield f"{where}: a probability below {MIN_PROBABILITY:g}"
        if not entry.phones:
            yield f"{where}: no pronunciation"
        if not phone_faults.keys().isdisjoint(entry.phones):
            faulty = dict.fromkeys(phone for phone in entry.phones if phone in phone_faults)
            yield from (f"{where}: {shortened(phone)} {phone_faults[phone]}" for phone in faulty)


def _phone_fault(phone: str, phones: Collection[str] | None) -> str | None:
    if has_control_characters(phone):
        return "has control characters"
    if phones is not None and phone in phones:
        return None
    if is_reserved(phone) or is_mark(phone):
        return "is a reserved symbol, not a phone"
    if DECIMAL.fullmatch(phone):
        return "is not a phone; probabilities follow the word, in all lines or in none"
    return None if phones is None else "is not among the phones"


def is_reserved(symbol: str) -> bool:
    """Returns whether graphs use the symbol themselves: <eps>, <blank>, <s>, #0 ..."""
    return symbol.lower() in RESERVED or symbol.startswith("#")


def is_lexicon_word(text: str) -> bool:
    """Returns whether a lexicon file with `text` as a word is read with the same word."""
    if text.split() != [text] or text.startswith(";;;") or has_control_characters(text):
        return False
    return not is_reserved(text) and not VARIANT.search(text)


def write_lexicon(lexicon: Lexicon, path: str | Path) -> None:
    """Writes the lexicon, words in the order of their characters, with probabilities if it has any.

    Raises DataError with all words that a file cannot hold.
    """
    unwritable = [word for word in lexicon.pronunciations if not is_lexicon_word(word)]
    if unwritable:
        summary = f"{len(unwritable)} words cannot stand in a lexicon file; leave them out"
        raise DataError(summary, [*map(shortened, unwritable)])
    lines = []
    for word, pronunciations in sorted(lexicon.pronunciations.items()):
        for pronunciation in pronunciations:
            number = [_decimal(lexicon.probability(word, pronunciation))] if lexicon.probabilities else []
            lines.append(" ".join((word, *number, *pronunciation)))
    write_text(path, "".join(f"{line}\n" for line in lines))


def _decimal(probability: float) -> str:
    """Returns a probability with a decimal point or an exponent, by which a reader tells it from a phone."""
    number = f"{probability:.6g}"
    return number if DECIMAL.fullmatch(number) else f"{number}.0"


def require_lexicon_output(out: str | Path, inputs: Iterable[str | Path], phones: Collection[str]) -> None:
    """Raises UserError unless a lexicon of `phones` may be written to `out`: a new file, or a lexicon of these phones.

    Nearly every text can be read as a lexicon, with all words but the first as phones, but not with these phones.
    """

    def require_lexicon(path: Path) -> None:
        for line in read_lines(path):
            _, *pronunciation = composed(line).split() or [""]
            if pronunciation and NUMBER.fullmatch(pronunciation[0]) and pronunciation[0] not in phones:
                pronunciation.pop(0)  # the probability
            if not pronunciation or not set(phones).issuperset(pronunciation):
                raise UserError(f"{path} is not a lexicon of these phones")

    if str(out).endswith(OTHER_SUFFIXES):
        raise UserError(f"OUT is {out}, but a lexicon is written as plain text (*.txt); was OUT forgotten?")
    require_output(out, (), inputs)
    require_same_kind(out, "a lexicon of the phones that are to be written", require_lexicon)
