"""Texts for training and measuring n-gram models: sentences of words, as one array of word ids."""

import logging
import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asrtool.data.texts import read_sentences
from asrtool.errors import UserError
from asrtool.lm.ngram import BOS, BOS_ID, EOS, SPECIAL_WORDS, UNK
from asrtool.progress import progress
from asrtool.readers import read_lines
from asrtool.text.lexicon import lexicon_fields
from asrtool.text.tokenizer import Tokenizer
from asrtool.text.words import SENTENCE_MARKS, change_case, is_mark, shortened

logger = logging.getLogger(__name__)

UNK_MARKS = frozenset([UNK])
# Symbols of Kaldi's words.txt that are not words
NOT_WORD_PATTERN = re.compile(r"<eps>|#[0-9]+|" + "|".join(SPECIAL_WORDS), re.IGNORECASE)


@dataclass(frozen=True)
class Corpus:
    """Sentences as word ids.

    `tokens` (L,) int32 are indices into `words`, each sentence <s> ... </s>; words 0, 1, 2 are SPECIAL_WORDS.
    """

    words: list[str]
    tokens: np.ndarray

    @property
    def num_sentences(self) -> int:
        """The number of sentences."""
        return int((self.tokens == BOS_ID).sum())

    def word_counts(self) -> np.ndarray:
        """Returns how often each word occurs, (V,)."""
        return np.bincount(self.tokens, minlength=len(self.words))


def read_word_sequences(
    paths: Iterable[Path], case: str = "keep", tokenizer: Tokenizer | None = None
) -> Iterator[list[str]]:
    """Yields the words of every sentence of text files and manifests.

    A sentence is a line of a text file (.gz too), or a transcript of a manifest (*.jsonl, *.jsonl.gz). `case` ("keep",
    "upper", "lower") is applied to all words but <unk>, which is the unknown word in any case. A `tokenizer` turns each
    sentence into the symbols of its units; sentences that it cannot encode are left out and counted. Blank lines are
    skipped. Raises UserError for <s> and </s> in any case, since each sentence gets them here.
    """
    left_out = 0
    for path in paths:
        for number, line in enumerate(read_sentences(Path(path)), 1):
            words = _words(line, case, f"sentence {number} of {path}")
            if tokenizer and (UNK in words or tokenizer.unknown(" ".join(words))):
                left_out += 1
            elif words:
                yield _unit_symbols(tokenizer, words) if tokenizer else words
    if left_out:
        logger.info(f"{left_out} sentences were left out: the tokenizer lacks some of their characters or words")


def _words(line: str, case: str, where: str) -> list[str]:
    """Returns the words of `line` in `case`.

    Marks are recognised first, since a change of case would turn them into words.
    """
    if "<" not in line:
        return change_case(line, case).split()
    words = line.split()
    if marks := [word for word in words if is_mark(word, SENTENCE_MARKS)]:
        raise UserError(f"{where} has {marks[0]} among its words; remove {BOS} and {EOS}, which are added to each one")
    return [UNK if is_mark(word, UNK_MARKS) else change_case(word, case) for word in words]


def _unit_symbols(tokenizer: Tokenizer, words: list[str]) -> list[str]:
    return [tokenizer.symbols[unit] for unit in tokenizer.encode(" ".join(words))]


def build_corpus(sentences: Iterable[list[str]]) -> Corpus:
    """Returns the corpus of `sentences`, with word ids in the order of the words' first occurrence.

    Keeps 4 bytes a word.
    """
    numbers = {word: number for number, word in enumerate(SPECIAL_WORDS)}
    start = numbers[BOS]
    end = numbers[EOS]
    tokens = array("i")
    for count, words in enumerate(progress(sentences, "reading text", units="sentences"), 1):
        sentence = [numbers.setdefault(word, len(numbers)) for word in words]
        if start in sentence or end in sentence:
            raise UserError(f"sentence {count} of the text has {BOS} or {EOS} among its words; remove them from it")
        tokens.append(start)
        tokens.extend(sentence)
        tokens.append(end)
    if not tokens:
        raise UserError("the text has no words; give files with a sentence a line")
    return Corpus(list(numbers), np.frombuffer(tokens, np.int32))


def limit_vocabulary(
    corpus: Corpus, vocabulary: Iterable[str] | None = None, top: int = 0, min_count: int = 1
) -> Corpus:
    """Returns the corpus with all words outside a vocabulary replaced by <unk>, and its words sorted.

    Without `vocabulary` it has the words that occur at least `min_count` times, the `top` most frequent of them if
    `top` is not 0.
    """
    counts = corpus.word_counts()
    seen = {word: int(counts[number]) for number, word in enumerate(corpus.words) if word not in SPECIAL_WORDS}
    if vocabulary is not None:
        kept = set(vocabulary)
        _require_overlap(kept, seen)
    else:
        frequent = sorted((-count, word) for word, count in seen.items() if count >= min_count)
        kept = {word for _, word in frequent[: top or None]}
    words = [*SPECIAL_WORDS, *sorted(kept)]
    numbers = {word: number for number, word in enumerate(words)}
    new_numbers = np.array([numbers.get(word, numbers[UNK]) for word in corpus.words], np.int32)
    return Corpus(words, new_numbers[corpus.tokens])


def _require_overlap(vocabulary: set[str], seen: dict[str, int]) -> None:
    """Raises UserError when no word of the vocabulary is among the words `seen` in the text."""
    if not vocabulary & seen.keys():
        listed, in_text = (shortened(min(words, default="")) for words in (vocabulary, seen))
        hint = case_hint(vocabulary, seen) or f"the list has '{listed}', the text '{in_text}'"
        raise UserError(f"no word of the vocabulary is in the text: {hint}")


def read_word_list(path: str | Path) -> list[str]:
    """Returns the words of a word list, a lexicon (`WORD PH PH`) or Kaldi's words.txt: the first field of a line."""
    lines = read_lines(path, "word list", "give a file with a word a line, or a lexicon")
    fields = (word for line in lines for word in lexicon_fields(line)[:1])
    words = [word for word in dict.fromkeys(fields) if not NOT_WORD_PATTERN.fullmatch(word)]
    if not words:
        raise UserError(f"no words in {path}; write one a line, or WORD PH PH ...")
    return words


def case_hint(words: Iterable[str], known: Iterable[str]) -> str:
    """Returns what to do about unknown `words` when most of them are known in another case; else an empty text."""
    words = [word for word in words if word not in SPECIAL_WORDS]
    known = set(known)
    for case in ("upper", "lower"):
        changed = sum(change_case(word, case) in known for word in words)
        if words and changed > len(words) / 2 > sum(word in known for word in words):  # the majority decides
            other = "lower" if case == "upper" else "upper"
            return f"it is a matter of case, one is {case} and the other {other}; try --case {case} or --case {other}"
    return ""
