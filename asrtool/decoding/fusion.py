"""A language model's part in prefix beam search (shallow fusion): what a further unit adds to a prefix's score."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from asrtool.text.tokenizer import SPACE

if TYPE_CHECKING:
    from asrtool.text.ngram import LanguageModel


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
