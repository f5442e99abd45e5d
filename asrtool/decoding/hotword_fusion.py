"""Hotwords in prefix beam search: a bonus that a prefix earns letter by letter, and loses where the phrase breaks off.

Units are followed as text, with a space before each word, so that it does not matter how a word is divided into units.
Where the units have no space, each character is followed as a word: a phrase may begin anywhere in the text. A trie
holds the phrases. A prefix keeps its partial phrases, each a node of the trie and what the prefix had scored when the
phrase began:

    text of the prefix    SHE WENT TO NEW Z             hotword NEW ZEALAND, weight w
    settled               0                             best choice of complete phrases in the text before
    partial phrases       NEW Z -> 0 + w * (1 + 1/7)    a seventh of ZEALAND
    score                 the largest of all these

A phrase is complete when its last word has ended, with the next word or the utterance. Otherwise its partial score
disappears, which takes the bonus back. Aho and Corasick (1975) follow all phrases at once as well; their automaton
keeps the longest partial phrase only, which cannot say how overlapping phrases are best chosen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from asrtool.decoding.fusion import Fusion
from asrtool.decoding.hotwords import Hotword
from asrtool.text.tokenizer import SPACE, Tokenizer


@dataclass
class _Node:
    """A node of the trie: the beginning of one phrase or of several.

    credit: the bonus for this part of a phrase, of the phrase with the highest. bonus: of a phrase that ends here.
    """

    credit: float = 0.0
    bonus: float | None = None
    children: dict[str, "_Node"] = field(default_factory=dict)


class _Partial(NamedTuple):
    """A phrase that the text so far ends in the middle of, and the score of the text before it."""

    node: _Node
    before: float


class _State(NamedTuple):
    """What matters of a prefix. `score` is its bonus, `settled` the bonus of its complete phrases."""

    inner: Any  # the state of the language model
    partials: tuple[_Partial, ...]
    settled: float
    score: float
    after_space: bool


class HotwordFusion:
    """A `Fusion` that adds the bonuses of hotwords to another one, or to none.

    The units of `tokenizer` are words, or have SPACE at the beginning of words or as a unit between them, or have none.
    """

    def __init__(self, hotwords: Sequence[Hotword], tokenizer: Tokenizer, inner: Fusion | None = None):
        self.inner = inner
        symbols = tokenizer.symbols
        longest_unit = max(map(len, symbols[1:]))
        self.texts: list[Sequence[str]] = list(symbols)
        if tokenizer.units_are_words:
            self.texts = [(SPACE, symbol) for symbol in symbols]
            max_gain = max(h.weight for h in hotwords)
        elif tokenizer.has_spaces:
            max_gain = max(h.weight * min(1.0, longest_unit / len(word)) for h in hotwords for word in h.words)
        else:
            self.texts = ["".join(SPACE + character for character in symbol) for symbol in symbols]
            hotwords = [_of_characters(hotword) for hotword in hotwords]
            max_gain = longest_unit * max(h.weight for h in hotwords)
        self.max_gain = max_gain + (inner.max_gain if inner else 0.0)
        self.root = _trie(hotwords, tokenizer.units_are_words)
        self.start = self._follow(_State(inner.start if inner else None, (), 0.0, 0.0, False), SPACE)

    def extend(self, state: _State, unit: int) -> tuple[float, _State]:
        """Returns the change of the score by a unit, and the state after it."""
        gain = 0.0
        following = self._follow(state, self.texts[unit])
        if self.inner:
            gain, inner = self.inner.extend(state.inner, unit)
            following = following._replace(inner=inner)
        return gain + following.score - state.score, following

    def end(self, state: _State) -> float:
        """Returns the change of the score by the end of the utterance, which ends a word and breaks phrases off."""
        gain = self.inner.end(state.inner) if self.inner else 0.0
        return gain + _settled(state) - state.score

    def _follow(self, state: _State, text: Sequence[str]) -> _State:
        """Returns the state after further characters; where units are words, a word is one character."""
        inner, partials, settled, _, after_space = state
        for character in text:
            if character != SPACE:
                partials = tuple(_step(partials, character))
            elif not after_space:
                settled = _settled(state._replace(partials=partials, settled=settled))
                partials = (*_step(partials, SPACE), _Partial(self.root, settled))
            after_space = character == SPACE
        score = max([settled, *(partial.before + partial.node.credit for partial in partials)])
        return _State(inner, partials, settled, score, after_space)


def _of_characters(hotword: Hotword) -> Hotword:
    """Returns the phrase with its characters as words, and the same bonus in total."""
    characters = tuple("".join(hotword.words))
    return Hotword(characters, hotword.weight * len(hotword.words) / len(characters))


def _settled(state: _State) -> float:
    """Returns the bonus of the complete phrases if a word ends here."""
    ends = [partial.before + partial.node.bonus for partial in state.partials if partial.node.bonus is not None]
    return max([state.settled, *ends])


def _step(partials: Sequence[_Partial], character: str) -> Iterator[_Partial]:
    """Yields the partial phrases that the character continues."""
    for node, before in partials:
        child = node.children.get(character)
        if child is not None:
            yield _Partial(child, before)


def _trie(hotwords: Sequence[Hotword], are_words: bool) -> _Node:
    """Returns the root, before the first letter of each phrase; words are joined by SPACE.

    Where units are words (`are_words`), a word takes the place of its letters.
    """
    root = _Node()
    for hotword in hotwords:
        node = root
        for number, word in enumerate(hotword.words):
            letters = [word] if are_words else list(word)
            if number:
                node = _child(node, SPACE, hotword.weight * number)
            for position, letter in enumerate(letters, 1):
                node = _child(node, letter, hotword.weight * (number + position / len(letters)))
        node.bonus = hotword.weight * len(hotword.words)
    return root


def _child(node: _Node, character: str, credit: float) -> _Node:
    """Returns the child of `node`, which is created if needed, and has at least this credit."""
    child = node.children.setdefault(character, _Node())
    child.credit = max(child.credit, credit)
    return child
