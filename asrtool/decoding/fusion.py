"""A language model's part in prefix beam search (shallow fusion): what a further unit adds to a prefix's score."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from asrtool.errors import UserError
from asrtool.lm.ngram import SPECIAL
from asrtool.text.tokenizer import SPACE, Tokenizer
from asrtool.text.words import CASES, change_case, shortened

if TYPE_CHECKING:
    from asrtool.lm.ngram import LanguageModel


class Fusion(Protocol):
    """What PrefixBeam asks. `most`: no gain is higher; `start`: the state before the first unit."""

    start: Any
    most: float

    def extend(self, state: Any, unit: int) -> tuple[float, Any]:
        """What the unit adds to the score, and the state behind it."""

    def end(self, state: Any) -> float:
        """What the end of the utterance adds."""


class UnitFusion:
    """A model over the units' symbols: weight * ln P(symbol | those before) - penalty, for each unit."""

    def __init__(self, lm: "LanguageModel", symbols: Sequence[str], weight: float = 0.5, penalty: float = 0.0):
        self.lm, self.symbols, self.weight, self.penalty = lm, symbols, weight, penalty
        self.start, self.most = lm.start, max(0.0, -penalty)

    def extend(self, state: Any, unit: int) -> tuple[float, Any]:
        """The gain of a unit, and the model's state behind it."""
        score, after = self.lm.score(state, self.symbols[unit])
        return self.weight * score - self.penalty, after

    def end(self, state: Any) -> float:
        """That of the sentence's end."""
        return self.weight * self.lm.score(state, "</s>")[0]


class WordFusion:
    """A model over words that units spell, BPE or characters: the same for each word, with the unit that ends it.

    That is the next unit that begins with sentencepiece's mark of a space, or the end. States: the model's before the
    word that is being spelled, and what there is of it.
    """

    def __init__(self, lm: "LanguageModel", symbols: Sequence[str], weight: float = 0.5, penalty: float = 0.0):
        self.lm, self.symbols, self.weight, self.penalty = lm, symbols, weight, penalty
        self.start, self.most = (lm.start, ""), max(0.0, -penalty)

    def extend(self, state: tuple[Any, str], unit: int) -> tuple[float, tuple[Any, str]]:
        """The gain of the word that the unit ends, if it does, and the state behind the unit."""
        symbol = self.symbols[unit]
        if not symbol.startswith(SPACE):
            return 0.0, (state[0], state[1] + symbol)
        gain, behind = self._word(*state)
        return gain, (behind, symbol[len(SPACE) :])

    def end(self, state: tuple[Any, str]) -> float:
        """That of the last word and of the sentence's end."""
        gain, behind = self._word(*state)
        return gain + self.weight * self.lm.score(behind, "</s>")[0]

    def _word(self, before: Any, word: str) -> tuple[float, Any]:
        if not word:
            return 0.0, before
        score, behind = self.lm.score(before, word)
        return self.weight * score - self.penalty, behind


def check_unit_lm(lm: "LanguageModel", tokenizer: Tokenizer, path: Path) -> None:
    """UserError unless the words of `lm`, from the file `path`, are the tokenizer's units.

    Where units are words, the model may know others, too. KenLM's binaries do not list their words: there, one unit
    that is known has to do.
    """
    units = dict.fromkeys(tokenizer.symbols[1:])
    check_words(lm, units, path, "the model's units")
    are_words = tokenizer.spells == "words" and not any(symbol.startswith(SPACE) for symbol in units)
    other = None if are_words else next((word for word in _words(lm) if word not in units), None)
    if other is not None:
        hint = "make it of the units, or leave --lm-units out where it is over words"
        raise UserError(f"{path}: '{shortened(other)}' is not one of the model's units; {hint}")


def check_word_lm(lm: "LanguageModel", tokenizer: Tokenizer, path: Path) -> None:
    """UserError when the units of `tokenizer` can spell no word of `lm`, from the file `path`."""
    words = _words(lm)
    if words and all(map(tokenizer.unknown, words)):
        cases = (case for case in CASES if any(not tokenizer.unknown(change_case(word, case)) for word in words))
        hint = f"in {case} case they can" if (case := next(cases, None)) else "was it made for other units?"
        raise UserError(
            f"{path}: the model's units cannot spell '{shortened(words[0])}' or any other of its words; {hint}"
        )


def check_words(lm: "LanguageModel", words: Iterable[str], path: Path, what: str) -> None:
    """UserError when `lm`, from the file `path`, knows none of `words`, which `what` names."""
    words = list(words)
    if words and not any(word in lm for word in words):
        cases = (case for case in CASES if any(change_case(word, case) in lm for word in words))
        hint = f"it knows them in {case} case" if (case := next(cases, None)) else "was it made for another system?"
        raise UserError(f"{path} knows none of {what}, such as '{shortened(words[0])}'; {hint}")


def _words(lm: "LanguageModel") -> list[str]:
    """The words of `lm` but for <s>, </s> and <unk>, where it lists them."""
    return [word for word in getattr(lm, "words", ()) if word.lower() not in SPECIAL]
