"""From a text as people write it to the words of a system: the rule that long recordings are aligned by.

1. Unicode NFC; typographic apostrophes become ', and invisible characters are removed.
2. A word that the system can write as it stands, or without the punctuation around it, is kept. Otherwise dashes,
   slashes and ellipses within it separate words, and other punctuation is removed, except marks that are part of words.
3. Case: the one of keep, upper and lower in which the system can write the most words, for the whole text.
4. Words that the lexicon of a phone system lacks get a pronunciation by g2p, as far as their letters are known.
5. What is left, such as numbers in digits, cannot be written: it is left out and listed.
"""

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from asrtool.errors import UserError
from asrtool.readers import read_lines
from asrtool.text.characters import JOINERS, WORD_MARKS
from asrtool.text.context_units import ContextTokenizer
from asrtool.text.g2p import predict_pronunciations
from asrtool.text.lexicon import Lexicon
from asrtool.text.tokenizer import PhoneTokenizer, Tokenizer
from asrtool.text.words import CASES, change_case, composed

logger = logging.getLogger(__name__)

APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\u00b4`", "'"))
SEPARATORS = re.compile(r"[-\u2010-\u2015/\u2026_]|\.\.+")  # hyphens, dashes, slashes, ellipses
INNER_MARKS = WORD_MARKS + JOINERS
SENTENCE_END = re.compile(r"[.!?\u2026\u3002\uff01\uff1f][\"'\u201d\u00bb)\]]*$")
MAX_TEXT_WORDS = 1_000_000  # about 100 hours of speech


@dataclass(frozen=True)
class SpokenWord:
    """A word in the system's own form. `line` counts from 1; `ends_sentence`: a sentence or a line ends after it."""

    text: str
    line: int
    ends_sentence: bool = False


@dataclass(frozen=True)
class SpokenText:
    """The words of a text, in order, and what became of the others.

    tokenizer: the system's own, with pronunciations for further words of the text.
    """

    words: list[SpokenWord]
    tokenizer: Tokenizer
    case: str  # "keep", "upper" or "lower"
    punctuation: int = 0  # words whose punctuation was removed, and punctuation that stood alone
    pronounced: tuple[str, ...] = ()  # words that g2p pronounced
    unwritable: list[SpokenWord] = field(default_factory=list)  # words that were left out

    def summary(self) -> str:
        """Returns what was changed, for the user."""
        notes = [f"{len(self.words)} words", f"case: {self.case}", f"punctuation removed {self.punctuation} times"]
        if self.pronounced:
            notes.append(f"{len(self.pronounced)} words pronounced by g2p: {some_of(self.pronounced)}")
        if self.unwritable:
            left_out = some_of(f"{word.text} (line {word.line})" for word in self.unwritable)
            notes.append(f"{len(self.unwritable)} words left out that the system cannot write: {left_out}")
        return "; ".join(notes)


def some_of(words: Iterable[str], shown: int = 10) -> str:
    """Returns the first few different words, for the user."""
    words = list(dict.fromkeys(words))
    return ", ".join(words[:shown]) + (", ..." if len(words) > shown else "")


def read_spoken_text(path: Path, tokenizer: Tokenizer) -> SpokenText:
    """Returns the text of a file (UTF-8, plain or .gz) in the form of `tokenizer`. UserError for one without words."""
    lines = read_lines(path, "text", "give a plain text file, the transcript of the recording")
    return spoken_text(lines, tokenizer, str(path))


def spoken_text(lines: Iterable[str], tokenizer: Tokenizer, where: str = "the text") -> SpokenText:
    """Returns the words of `lines` in the form of `tokenizer`, which is the phones' where units depend on the context.

    Raises UserError if there are none, or none that the system can write.
    """
    tokenizer = tokenizer.without_context
    rows = [(number, composed(line).translate(APOSTROPHES).split()) for number, line in enumerate(lines, 1)]
    num_words = sum(len(words) for _, words in rows)
    if not num_words:
        raise UserError(f"{where} has no words; give the transcript of the recording")
    if num_words > MAX_TEXT_WORDS:
        raise UserError(f"{where} has {num_words:,} words, more than {MAX_TEXT_WORDS:,}; split recording and text")
    case = _best_case(rows, tokenizer)
    words, punctuation = _written(rows, case, tokenizer)
    missing = list(dict.fromkeys(word.text for word in words if tokenizer.unknown(word.text)))
    larger, new = pronounce_words(missing, tokenizer)
    writable = [word for word in words if not larger.unknown(word.text)]
    unwritable = [word for word in words if larger.unknown(word.text)]
    if not writable:
        shown = some_of(missing) or "punctuation only"
        raise UserError(f"no word of {where} can be written in the system's units ({shown}); is it its language?")
    return SpokenText(writable, larger, case, punctuation, new, unwritable)


def _best_case(rows: list[tuple[int, list[str]]], tokenizer: Tokenizer) -> str:
    counts = Counter(word for _, words in rows for word in words)

    def is_known(word: str, case: str) -> bool:
        forms = _forms(word, case, tokenizer)
        return bool(forms) and not any(map(tokenizer.unknown, forms))

    def known(case: str) -> int:
        return sum(count for word, count in counts.items() if is_known(word, case))

    return max(CASES, key=known)  # the first of equally good ones: keep


def _parts(word: str) -> list[str]:
    """Returns the words within a written word, without punctuation."""
    parts = SEPARATORS.sub(" ", word).split()
    return [part for part in map(_without_punctuation, parts) if part]


def _without_punctuation(word: str) -> str:
    """Returns a word without punctuation; marks and joiners that are part of words stay within it."""
    kept = "".join(c for c in word if c in INNER_MARKS or _is_of_word(c)).strip(INNER_MARKS)
    return kept if kept.strip("'") else ""


def _without_outer_punctuation(word: str) -> str:
    places = [place for place, character in enumerate(word) if _is_of_word(character)]
    kept = word[places[0] : places[-1] + 1] if places else ""
    return kept if kept.strip("'") else ""


def _is_of_word(character: str) -> bool:
    return character == "'" or unicodedata.category(character)[0] in "LMN"


def _written(rows: list[tuple[int, list[str]]], case: str, tokenizer: Tokenizer) -> tuple[list[SpokenWord], int]:
    """Returns all words without punctuation, and how often it was removed."""
    words: list[SpokenWord] = []
    punctuation = 0
    for line, written in rows:
        for position, raw in enumerate(written, 1):
            ends = position == len(written) or bool(SENTENCE_END.search(raw))
            parts = _forms(raw, case, tokenizer)
            punctuation += parts != [change_case(raw, case)]
            words += [SpokenWord(part, line, ends and number == len(parts)) for number, part in enumerate(parts, 1)]
    return words, punctuation


def _forms(raw: str, case: str, tokenizer: Tokenizer) -> list[str]:
    """Returns the words of a written word: itself if the system can write it, else what is left of it."""
    for whole in (raw, _without_outer_punctuation(raw)):
        cased = change_case(whole, case)
        if cased and not tokenizer.unknown(cased):
            return [cased]
    return [_writable_form(change_case(part, case), tokenizer) for part in _parts(raw)]


def _writable_form(part: str, tokenizer: Tokenizer) -> str:
    """Returns a word, or else without outer apostrophes or inner marks, as far as the system can write it then."""
    bare = part.strip("'")
    without_marks = part.translate(dict.fromkeys(map(ord, INNER_MARKS)))
    forms = (part, bare, without_marks, without_marks.strip("'"))
    return next((form for form in forms if form and not tokenizer.unknown(form)), bare or part)


def pronounce_words(words: list[str], tokenizer: Tokenizer) -> tuple[Tokenizer, tuple[str, ...]]:
    """Returns the tokenizer of a phone system with pronunciations by g2p for `words` that its lexicon lacks, and these.

    Phones in context keep their units. Words for which g2p has none in the system's phones are left out; other
    tokenizers are returned as they are.
    """
    if isinstance(tokenizer, ContextTokenizer):
        larger, new_words = _pronounce(words, tokenizer.without_context)
        return ContextTokenizer(tokenizer.kind, tokenizer.symbols, larger, tokenizer.trees), new_words
    return _pronounce(words, tokenizer) if isinstance(tokenizer, PhoneTokenizer) else (tokenizer, ())


def _pronounce(words: list[str], tokenizer: PhoneTokenizer) -> tuple[PhoneTokenizer, tuple[str, ...]]:
    if not words:
        return tokenizer, ()
    try:
        predicted = predict_pronunciations(words, tokenizer.lexicon, "or train with a lexicon that has them")
    except UserError as error:
        logger.warning(f"{len(words)} words have no pronunciation ({some_of(words)}): {error}")
        return tokenizer, ()
    known = set(tokenizer.symbols)
    new = Lexicon({word: (phones,) for word, phones in predicted.items() if known.issuperset(phones)})
    lexicon = tokenizer.lexicon.updated(new)
    return PhoneTokenizer(tokenizer.symbols, lexicon, tokenizer.separator), tuple(new.pronunciations)


def pronounce_texts(texts: Iterable[str], tokenizer: Tokenizer) -> tuple[Tokenizer, tuple[str, ...]]:
    """Returns what `pronounce_words` returns for all words of `texts` that the lexicon lacks."""
    words = dict.fromkeys(word for text in texts for word in text.split())
    return pronounce_words([word for word in words if tokenizer.unknown(word)], tokenizer)
