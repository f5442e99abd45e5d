"""What n-gram models are trained and measured on: sentences of words, as one array of numbers."""

import logging
import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asrtool.data.texts import read_sentences
from asrtool.errors import UserError
from asrtool.files import read_lines
from asrtool.lm.ngram import BOS, EOS, SPECIAL, UNK
from asrtool.progress import progress
from asrtool.text.tokenizer import Tokenizer
from asrtool.text.words import SENTENCE_MARKS, change_case, composed, is_mark, shortened

logger = logging.getLogger(__name__)

UNKNOWN_MARKS = frozenset([UNK])
VARIANT = re.compile(r"\([0-9]+\)$")  # CMUdict's mark of a further pronunciation: WORD(2)
NOT_WORDS = re.compile(r"<eps>|#[0-9]+|" + "|".join(SPECIAL), re.IGNORECASE)  # what Kaldi's words.txt has besides


@dataclass(frozen=True)
class Corpus:
    """Sentences: `tokens` (L,) int32 are numbers of `words`, each sentence <s> ... </s>; words 0, 1, 2 are SPECIAL."""

    words: list[str]
    tokens: np.ndarray

    @property
    def sentences(self) -> int:
        """How many there are."""
        return int((self.tokens == SPECIAL.index(BOS)).sum())

    def counts(self) -> np.ndarray:
        """How often each word occurs, (V,)."""
        return np.bincount(self.tokens, minlength=len(self.words))


def sentences(paths: Iterable[Path], case: str = "keep", tokenizer: Tokenizer | None = None) -> Iterator[list[str]]:
    """The words of every sentence: a line of a text file (.gz too), or a transcript of a manifest (*.jsonl, .jsonl.gz).

    `case` ("keep", "upper", "lower") is applied, but to <unk>, which in any case is the unknown word. A `tokenizer`
    turns each sentence into the symbols of its units; what it cannot encode is left out and counted. Blank lines are no
    sentences. UserError for <s> and </s> in any case, since sentences are marked here.
    """
    left_out = 0
    for path in paths:
        for number, line in enumerate(read_sentences(Path(path)), 1):
            words = _words(line, case, f"sentence {number} of {path}")
            if tokenizer and (UNK in words or tokenizer.unknown(" ".join(words))):
                left_out += 1
            elif words:
                yield _units(tokenizer, words) if tokenizer else words
    if left_out:
        logger.info(f"{left_out} sentences were left out: they have characters or words that the tokenizer does not")


def _words(line: str, case: str, where: str) -> list[str]:
    """The words of `line` in `case`. Marks are recognised before the case changes, which would make words of them."""
    if "<" not in line:
        return change_case(line, case).split()
    words = line.split()
    if marks := [word for word in words if is_mark(word, SENTENCE_MARKS)]:
        raise UserError(f"{where} has {marks[0]} among its words; remove {BOS} and {EOS}, which are added to each one")
    return [UNK if is_mark(word, UNKNOWN_MARKS) else change_case(word, case) for word in words]


def _units(tokenizer: Tokenizer, words: list[str]) -> list[str]:
    return [tokenizer.symbols[unit] for unit in tokenizer.encode(" ".join(words))]


def read_corpus(lines: Iterable[list[str]]) -> Corpus:
    """All sentences of `lines`, their words numbered as they come. 4 bytes a word are kept."""
    numbers = {word: number for number, word in enumerate(SPECIAL)}
    start, end = numbers[BOS], numbers[EOS]
    tokens = array("i")
    for count, words in enumerate(progress(lines, "reading text", units="sentences"), 1):
        found = [numbers.setdefault(word, len(numbers)) for word in words]
        if start in found or end in found:
            raise UserError(f"sentence {count} of the text has {BOS} or {EOS} among its words; remove them from it")
        tokens.append(start)
        tokens.extend(found)
        tokens.append(end)
    if not tokens:
        raise UserError("the text has no words; give files with a sentence a line")
    return Corpus(list(numbers), np.frombuffer(tokens, np.int32))


def limit_vocabulary(corpus: Corpus, given: Iterable[str] | None = None, top: int = 0, min_count: int = 1) -> Corpus:
    """The corpus with all words outside a vocabulary made <unk>, and its words sorted.

    The vocabulary is `given`, or the words seen at least `min_count` times, the `top` most frequent of them if not 0.
    """
    counts = corpus.counts()
    seen = {word: int(counts[number]) for number, word in enumerate(corpus.words) if word not in SPECIAL}
    if given is not None:
        chosen = _given(set(given), seen)
    else:
        often = sorted((-count, word) for word, count in seen.items() if count >= min_count)
        chosen = {word for _, word in often[: top or None]}
    words = [*SPECIAL, *sorted(chosen)]
    numbers = {word: number for number, word in enumerate(words)}
    unknown = numbers[UNK]
    return Corpus(words, np.array([numbers.get(word, unknown) for word in corpus.words], np.int32)[corpus.tokens])


def _given(wanted: set[str], seen: dict[str, int]) -> set[str]:
    if not wanted & seen.keys():
        hint = other_case(wanted, seen) or f"the list has '{_first(wanted)}', the text '{_first(seen)}'"
        raise UserError(f"no word of the vocabulary is in the text: {hint}")
    return wanted


def _first(words: Iterable[str]) -> str:
    return shortened(min(words, default=""))


def read_words(path: str | Path) -> list[str]:
    """The first field of every line: of a word list, a lexicon (`WORD PH PH`) or Kaldi's words.txt."""
    lines = read_lines(path, "word list", "give a file with a word a line, or a lexicon")
    words = dict.fromkeys(VARIANT.sub("", word) for line in lines for word in composed(line).split(maxsplit=1)[:1])
    words = [word for word in words if not NOT_WORDS.fullmatch(word)]
    if not words:
        raise UserError(f"no words in {path}; write one a line, or WORD PH PH ...")
    return words


def other_case(words: Iterable[str], known: Iterable[str]) -> str:
    """What to do about `words` that are unknown when most would be known in another case; else nothing."""
    words, known = [word for word in words if word not in SPECIAL], set(known)
    for case in ("upper", "lower"):
        changed = sum(change_case(word, case) in known for word in words)
        if words and changed > len(words) / 2 > sum(word in known for word in words):  # the majority decides
            other = "lower" if case == "upper" else "upper"
            return f"it is a matter of case, one is {case} and the other {other}; try --case {case} or --case {other}"
    return ""
