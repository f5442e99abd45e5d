"""Words that `asrtool graph --add-words` adds to a lexicon and a language model.

A file has one word a line, and after it, where they are known, a word that is used alike or the word's probability,
and its pronunciation in units. Several lines of a word are alternative pronunciations. Lines that begin with # are
comments.

    ZUCKERBERG
    KOWALCZYK    like=KOWALSKI     K OW AA L CH IH K
    ANTHROPOCENE probability=1e-6  AE N TH R AH P AH S IY N
"""

import logging
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from asrtool.errors import DataError, UserError
from asrtool.lm.added_words import NewWord, add_words
from asrtool.lm.ngram_files import read_ngrams, write_ngrams
from asrtool.readers import read_lines
from asrtool.text.context_units import ContextTokenizer
from asrtool.text.lexicon import Lexicon, Pronunciation, is_lexicon_word
from asrtool.text.tokenizer import PhoneTokenizer, Tokenizer
from asrtool.text.words import composed, shortened

logger = logging.getLogger(__name__)

LIKE = "like="
PROBABILITY = "probability="
MIN_PROBABILITY = 1e-30  # far below a word that occurs once in all text there is
OTHERWISE = "give their pronunciations in the file"


@dataclass
class AddedWord:
    """A word of the file, and the pronunciations that the file has for it."""

    lm: NewWord
    pronunciations: tuple[Pronunciation, ...] = ()

    @property
    def word(self) -> str:
        """The word."""
        return self.lm.word


def read_added_words(path: str | Path, units: Collection[str]) -> list[AddedWord]:
    """Returns the words of a file in their order; pronunciations are in `units`.

    Raises DataError with all lines that are wrong, and UserError for a file without words.
    """
    words: dict[str, AddedWord] = {}
    problems = []
    for number, line in enumerate(read_lines(path, "file of words", "write one with a word a line"), 1):
        fields = composed(line).split()
        if not fields or fields[0].startswith("#"):
            continue
        try:
            _add_line(words, fields, units)
        except ValueError as error:
            problems.append(f"line {number}: {shortened(fields[0])}: {error}")
    if problems:
        raise DataError(f"{len(problems)} lines of {path} are wrong; correct them, or leave them out", problems)
    if not words:
        raise UserError(f"{path} has no words; write one a line")
    return list(words.values())


def _add_line(words: dict[str, AddedWord], fields: list[str], units: Collection[str]) -> None:
    """Adds the word of a line. ValueError says what is wrong with the line."""
    word, *rest = fields
    new = NewWord(word)
    while rest and rest[0].startswith((LIKE, PROBABILITY)):
        if new != NewWord(word):
            raise ValueError("like= or probability= is given more than once; give one")
        if rest[0].startswith(LIKE):
            new = new._replace(like=rest.pop(0).removeprefix(LIKE))
        else:
            new = new._replace(probability=_probability(rest.pop(0).removeprefix(PROBABILITY)))
    if not is_lexicon_word(word) or word.startswith("<"):
        raise ValueError("it cannot be a word of a lexicon")
    if unknown := [unit for unit in rest if unit not in units]:
        raise ValueError(f"not units of the tokenizer: {' '.join(map(shortened, unknown))}")
    earlier = words.setdefault(word, AddedWord(new))
    if new != NewWord(word):
        if earlier.lm not in (new, NewWord(word)):
            raise ValueError("an earlier line has another like= or probability=")
        earlier.lm = new
    earlier.pronunciations += (tuple(rest),) if rest else ()


def _probability(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not MIN_PROBABILITY <= value < 1:
        raise ValueError(f"'{shortened(text)}' is not a probability from {MIN_PROBABILITY:g} to below 1")
    return value


def write_lm_with_words(arpa: str | Path, words: Iterable[AddedWord], out: Path) -> int:
    """Writes the n-gram model `arpa` with the words that it lacks to `out`; returns the number of these.

    Raises DataError with all words that cannot be added.
    """
    model = read_ngrams(arpa)
    new_words, problems = [], []
    for word in words:
        if word.word in model:
            if word.lm != NewWord(word.word):
                problems.append(f"{word.word}: it is in the language model already, so it keeps its n-grams")
        elif word.lm.like is not None and word.lm.like not in model:
            problems.append(f"{word.word}: {LIKE}'{shortened(word.lm.like)}' is not a word of the language model")
        else:
            new_words.append(word.lm)
    if problems:
        raise DataError(f"{len(problems)} words cannot be added to {arpa}; correct their lines", problems)
    write_ngrams(add_words(model, new_words) if new_words else model, out)
    return len(new_words)


def add_to_lexicon(lexicon: Lexicon, words: Iterable[AddedWord], tokenizer: Tokenizer) -> Lexicon:
    """Returns the lexicon with the words.

    A word has the pronunciations of the lexicon and of the file. A word without any gets the tokenizer's,
    or for phones a prediction that is learned from the lexicon. Raises DataError with all words that cannot have one.
    """
    known = dict(lexicon.pronunciations)
    missing = []
    for added in words:
        several = dict.fromkeys((*known.get(added.word, ()), *added.pronunciations))
        if several:
            known[added.word] = tuple(several)
        else:
            missing.append(added.word)
    result = Lexicon(known, lexicon.probabilities).updated(tokenizer.lexicon_of(missing))
    missing = [word for word in missing if word not in result.pronunciations]
    if missing and isinstance(tokenizer, PhoneTokenizer | ContextTokenizer):
        predicted = _predict(missing, lexicon)
        result = result.updated(Lexicon({word: (pronunciation,) for word, pronunciation in predicted.items()}))
        missing = [word for word in missing if word not in predicted]
    if missing:
        reason = "no pronunciation can be predicted, since it has letters that no word of the lexicon has"
        if not isinstance(tokenizer, PhoneTokenizer | ContextTokenizer):
            reason = "it has characters without a unit"
        problems = [f"{shortened(word)}: {reason}" for word in missing]
        raise DataError(f"{len(missing)} words cannot be written in units; {OTHERWISE}", problems)
    return result


def _predict(words: list[str], lexicon: Lexicon) -> Mapping[str, Pronunciation]:
    from asrtool.text.g2p import predict_pronunciations

    predicted = predict_pronunciations(words, lexicon, OTHERWISE)
    for word, pronunciation in predicted.items():
        logger.info(f"{word}: the predicted pronunciation is {' '.join(pronunciation)}")
    return predicted
