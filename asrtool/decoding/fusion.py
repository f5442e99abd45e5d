"""Shallow fusion: the language model score that a further unit adds to a prefix in prefix beam search."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from asrtool.errors import UserError
from asrtool.lm.ngram import EOS, SPECIAL_WORDS
from asrtool.text.tokenizer import SPACE, Tokenizer
from asrtool.text.words import CASES, change_case, shortened

if TYPE_CHECKING:
    from asrtool.lm.ngram import LanguageModel


class Fusion(Protocol):
    """The language model interface of PrefixBeam.

    start: the state before the first unit. max_gain: an upper bound of what a unit adds to the score.
    """

    start: Any
    max_gain: float

    def extend(self, state: Any, unit: int) -> tuple[float, Any]:
        """Returns what the unit adds to the score, and the state after it."""

    def end(self, state: Any) -> float:
        """Returns what the end of the utterance adds to the score."""


class UnitFusion:
    """A language model over units: each unit adds weight * ln P(symbol | symbols before) - penalty."""

    def __init__(self, lm: "LanguageModel", symbols: Sequence[str], weight: float = 0.5, penalty: float = 0.0):
        self.lm = lm
        self.symbols = symbols
        self.weight = weight
        self.penalty = penalty
        self.start: Any = lm.start
        self.max_gain = max(0.0, -penalty)

    def extend(self, state: Any, unit: int) -> tuple[float, Any]:
        """Returns the gain of a unit, and the language model's state after it."""
        score, next_state = self.lm.score(state, self.symbols[unit])
        return self.weight * score - self.penalty, next_state

    def end(self, state: Any) -> float:
        """Returns the gain of the sentence end."""
        return self.weight * self.lm.score(state, EOS)[0]


class WordFusion:
    """A language model over words, for units that are pieces of words (BPE or characters).

    A word adds weight * ln P(word | words before) - penalty as soon as it has ended: with the next unit that begins
    with sentencepiece's mark of a space, or at the end of the utterance. A state is the language model's state before
    the current word, and the text of that word so far.
    """

    def __init__(self, lm: "LanguageModel", symbols: Sequence[str], weight: float = 0.5, penalty: float = 0.0):
        self.lm = lm
        self.symbols = symbols
        self.weight = weight
        self.penalty = penalty
        self.start: tuple[Any, str] = (lm.start, "")
        self.max_gain = max(0.0, -penalty)

    def extend(self, state: tuple[Any, str], unit: int) -> tuple[float, tuple[Any, str]]:
        """Returns the gain of the word that the unit ends (0 if it ends none), and the state after the unit."""
        lm_state, word = state
        symbol = self.symbols[unit]
        if not symbol.startswith(SPACE):
            return 0.0, (lm_state, word + symbol)
        gain, next_state = self._word_gain(lm_state, word)
        return gain, (next_state, symbol[len(SPACE) :])

    def end(self, state: tuple[Any, str]) -> float:
        """Returns the gain of the last word and of the sentence end."""
        lm_state, word = state
        gain, next_state = self._word_gain(lm_state, word)
        return gain + self.weight * self.lm.score(next_state, EOS)[0]

    def _word_gain(self, lm_state: Any, word: str) -> tuple[float, Any]:
        if not word:
            return 0.0, lm_state
        score, next_state = self.lm.score(lm_state, word)
        return self.weight * score - self.penalty, next_state


def check_unit_lm(lm: "LanguageModel", tokenizer: Tokenizer, path: Path) -> None:
    """Raises UserError unless the words of `lm`, from the file `path`, are the tokenizer's units.

    Where units are words, the model may contain further words. KenLM's binaries do not list their words: there it is
    enough that one unit is in the model.
    """
    units = dict.fromkeys(tokenizer.symbols[1:])
    check_vocabulary(lm, units, path, "the model's units")
    are_words = tokenizer.output_type == "words" and tokenizer.units_are_words
    other = None if are_words else next((word for word in _words(lm) if word not in units), None)
    if other is not None:
        hint = "train it on units, or leave --lm-units out for a model over words"
        if tokenizer.output_type != "words":
            hint = "prefix search over phones takes a language model of phones; for words, use --method graph"
        raise UserError(f"{path}: '{shortened(other)}' is not one of the model's units; {hint}")


def check_word_lm(lm: "LanguageModel", tokenizer: Tokenizer, path: Path) -> None:
    """Raises UserError when no word of `lm`, from the file `path`, can be written in the units of `tokenizer`.

    Where the units have no space, a text is a single word, and a model all of whose words are units is one over units.
    """
    words = _words(lm)
    if words and not tokenizer.has_spaces and set(words) <= set(tokenizer.symbols):
        raise UserError(f"{path}: all of its words are units of the model, which have no space; add --lm-units")
    if words and all(map(tokenizer.unknown, words)):
        cases = (case for case in CASES if any(not tokenizer.unknown(change_case(word, case)) for word in words))
        hint = f"in {case} case they can" if (case := next(cases, None)) else "was it trained for other units?"
        raise UserError(
            f"{path}: the model's units cannot write '{shortened(words[0])}' or any other of its words; {hint}"
        )


def check_vocabulary(lm: "LanguageModel", words: Iterable[str], path: Path, what: str) -> None:
    """Raises UserError when `lm`, from the file `path`, contains none of `words`, which `what` describes."""
    words = list(words)
    if words and not any(word in lm for word in words):
        cases = (case for case in CASES if any(change_case(word, case) in lm for word in words))
        hint = f"it has them in {case} case" if (case := next(cases, None)) else "was it trained for another system?"
        raise UserError(f"{path} contains none of {what}, such as '{shortened(words[0])}'; {hint}")


def _words(lm: "LanguageModel") -> list[str]:
    """Returns the words of `lm` except <s>, </s> and <unk>; none where the model does not list them."""
    return [word for word in getattr(lm, "words", ()) if word.lower() not in SPECIAL_WORDS]
