"""Tokenizers: BPE (sentencepiece), characters, phones of a lexicon, and whole words for tiny vocabularies.

Phones in context are in asrtool/text/context_units.py, the pdfs of a Kaldi system in asrtool/text/pdf_tokenizer.py.

A tokenizer is one JSON file. Unit 0 is the CTC blank in all of them, so `size` counts it and `encode` never returns it.
"""

import base64
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path

from asrtool.errors import UserError, require_file
from asrtool.files import write_json
from asrtool.readers import read_json
from asrtool.text.lexicon import MIN_PROBABILITY, Lexicon, Pronunciation
from asrtool.text.words import has_control_characters, is_mark

BLANK = 0
BLANK_SYMBOL = "<blank>"
# What `tokenizer_from_dict` raises for content that is not a tokenizer
INVALID = (ValueError, LookupError, TypeError, AttributeError, RuntimeError, OverflowError)
MAX_UNITS = 1_000_000  # for more, a model's output layer has gigabytes; vocabularies of words have about 200,000
SPACE = "\u2581"  # sentencepiece's mark for a space, used by the character tokenizer as well


class Tokenizer(ABC):
    """Text to units and back. A unit is a number; `symbols[i]` is the printable name of unit i.

    Searches call a unit of a hypothesis a token.
    """

    symbols: list[str]
    separator: str | None = None  # the symbol of the unit between words, if there is one: a space, or silence
    # What the texts of `decode` and `reference` consist of: "words" or "phones" (the `token_type` of hyps.jsonl), or
    # "pdfs", which are never a result
    output_type: str = "words"

    @property
    def size(self) -> int:
        """The number of units, blank included: the width of the model's output."""
        return len(self.symbols)

    @property
    def units_are_words(self) -> bool:
        """True if each unit is a word of the text of `decode`; phones are the words of their text.

        Otherwise a word begins at each unit that begins with SPACE.
        """
        return self.output_type != "words"

    @property
    def has_spaces(self) -> bool:
        """True if the units can write a space; without one, a text that is not made of words is a single word."""
        return any(SPACE in symbol for symbol in self.symbols)

    @property
    def begins_word(self) -> list[bool]:
        """For each unit, whether it begins a word wherever it is in a text."""
        return [self.units_are_words or symbol.startswith(SPACE) for symbol in self.symbols]

    @property
    def silence(self) -> int | None:
        """The unit of silence, which is optional between words, if there is one: phones may have one."""
        if self.output_type != "phones" or self.separator is None:
            return None
        return self.symbols.index(self.separator)

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Returns the units of `text`. Raises KeyError for text without units: check `unknown` first."""

    def pronunciation_units(self, text: str) -> list[list[list[int]]]:
        """Returns all pronunciations of each word of `text` in units, the usual one first. Raises KeyError as `encode`.

        Without a lexicon each word has one: the units that `encode` returns for it; a word begins with SPACE.
        """
        words: list[list[int]] = []
        for unit in self.encode(text):
            if not words or self.symbols[unit].startswith(SPACE):
                words.append([])
            words[-1].append(unit)
        return [[word] for word in words]

    @abstractmethod
    def decode(self, units: Iterable[int]) -> str:
        """Returns the text of `units`, words joined by single spaces."""

    @property
    def without_context(self) -> "Tokenizer":
        """The tokenizer of the phones, if units are phones in context; otherwise this tokenizer."""
        return self

    def aligned_units(self, symbols: Sequence[str]) -> list[int | None]:
        """Returns the unit of each symbol of the alignment of an utterance; None for a symbol that is unknown."""
        numbers = {symbol: number for number, symbol in enumerate(self.symbols)}
        return [numbers.get(symbol) for symbol in symbols]

    def reference(self, text: str) -> str:
        """Returns the reference for scoring: the text that `decode` returns if the transcript `text` is recognised."""
        return text

    @abstractmethod
    def unknown(self, text: str) -> list[str]:
        """Returns the characters or words of `text` that have no unit."""

    def pronunciations(self, word: str) -> tuple[Pronunciation, ...]:
        """Returns all pronunciations of `word` as unit symbols, the usual one first. Check `unknown` first."""
        return (tuple(self.symbols[unit] for unit in self.encode(word)),)

    def lexicon_of(self, words: Iterable[str]) -> Lexicon:
        """Returns the pronunciations of all `words` that have any."""
        return Lexicon({word: self.pronunciations(word) for word in words if not self.unknown(word)})

    @abstractmethod
    def to_dict(self) -> dict:
        """Returns the tokenizer as plain values for its file."""


class SymbolTokenizer(Tokenizer):
    """Units that are the words of a text, or its characters with a mark for the space."""

    def __init__(self, kind: str, symbols: Sequence[str]):
        if kind == "char" and not all(len(symbol) == 1 for symbol in symbols[1:]):
            raise ValueError("it has symbols of several characters")
        self.kind = kind
        self.symbols = list(symbols)
        self._units = {symbol: unit for unit, symbol in enumerate(self.symbols) if unit != BLANK}
        self.separator = SPACE if kind == "char" and SPACE in self._units else None

    @property
    def units_are_words(self) -> bool:
        """True if units are words, False if they are characters."""
        return self.kind == "word"

    def split(self, text: str) -> list[str]:
        """Returns the words of `text`, or its characters with a mark for each space."""
        words = text.split()
        return words if self.units_are_words else list(SPACE.join(words))

    def encode(self, text: str) -> list[int]:
        """Returns the units of `text`."""
        return [self._units[symbol] for symbol in self.split(text)]

    def pronunciation_units(self, text: str) -> list[list[list[int]]]:
        """Returns the only pronunciation of each word of `text`: one unit if units are words, else its characters."""
        return [[[unit]] for unit in self.encode(text)] if self.units_are_words else super().pronunciation_units(text)

    def decode(self, units: Iterable[int]) -> str:
        """Returns the text of `units`."""
        symbols = [self.symbols[unit] for unit in units]
        return " ".join(symbols) if self.units_are_words else " ".join("".join(symbols).replace(SPACE, " ").split())

    def unknown(self, text: str) -> list[str]:
        """Returns the words, or characters, of `text` that have no unit."""
        return [symbol for symbol in self.split(text) if symbol not in self._units]

    def to_dict(self) -> dict:
        """Returns the tokenizer as plain values for its file."""
        return {"type": self.kind, "symbols": self.symbols}


class PhoneTokenizer(Tokenizer):
    """Phones of a lexicon, and maybe silence, which training targets do not have: graphs insert it between words.

    `decode` returns phones: a graph is needed to find the words.
    """

    output_type = "phones"

    def __init__(self, symbols: Sequence[str], lexicon: Lexicon, silence: str | None = None):
        if not set(lexicon.symbols).union([silence] if silence else []) <= set(symbols[1:]):
            raise ValueError("its lexicon has phones that are not units")
        self.symbols = list(symbols)
        self.lexicon = lexicon
        self.separator = silence
        self._units = {symbol: unit for unit, symbol in enumerate(self.symbols)}

    def encode(self, text: str) -> list[int]:
        """Returns the units of the usual pronunciation of each word."""
        return [unit for pronunciations in self.pronunciation_units(text) for unit in pronunciations[0]]

    def pronunciation_units(self, text: str) -> list[list[list[int]]]:
        """Returns all pronunciations of each word of `text` in units, the usual one first.

        Raises KeyError as `encode`.
        """
        units = self._units
        return [[[units[phone] for phone in pron] for pron in self.pronunciations(word)] for word in text.split()]

    def decode(self, units: Iterable[int]) -> str:
        """Returns the phones, joined by single spaces, without silence."""
        return " ".join(symbol for symbol in map(self.symbols.__getitem__, units) if symbol != self.separator)

    def reference(self, text: str) -> str:
        """Returns the usual pronunciations, without silence. A word without any is <unk>, which no hypothesis has."""
        phones: list[str] = []
        for word in text.split():
            phones += self.lexicon.pronunciations.get(word, (("<unk>",),))[0]
        return " ".join(phone for phone in phones if phone != self.separator)

    def unknown(self, text: str) -> list[str]:
        """Returns the words of `text` without a pronunciation."""
        return [word for word in text.split() if word not in self.lexicon.pronunciations]

    def pronunciations(self, word: str) -> tuple[Pronunciation, ...]:
        """Returns all pronunciations of `word` in phones, the usual one first."""
        return self.lexicon.pronunciations[word]

    def lexicon_of(self, words: Iterable[str]) -> Lexicon:
        """Returns the pronunciations of all `words` that have any, with their probabilities."""
        return self.lexicon.only(words)

    def to_dict(self) -> dict:
        """Returns the tokenizer as plain values for its file."""
        words = self.lexicon.pronunciations.items()
        lexicon = {word: [" ".join(pron) for pron in several] for word, several in words}
        content = {"type": "phone", "symbols": self.symbols, "silence": self.separator, "lexicon": lexicon}
        if not self.lexicon.probabilities:
            return content
        probabilities = {word: [self.lexicon.probability(word, pron) for pron in several] for word, several in words}
        return content | {"probabilities": probabilities}

    @classmethod
    def from_dict(cls, content: dict) -> "PhoneTokenizer":
        """Returns the tokenizer whose `to_dict` returned `content`."""
        if content["silence"] not in (None, *content["symbols"][1:]):
            raise ValueError("its silence is not a unit")
        lexicon = _lexicon_from_dict(content["lexicon"], content.get("probabilities"))
        return cls(content["symbols"], lexicon, content["silence"])


def _lexicon_from_dict(content: dict[str, list[str]], probabilities: dict[str, list[float]] | None) -> Lexicon:
    """Returns the lexicon of a tokenizer file. Raises one of INVALID where `content` is not a lexicon."""
    for word, prons in content.items():
        if word.split() != [word]:
            raise ValueError(f"{word!r:.50} is not a word of a lexicon")
        if not isinstance(prons, list) or not prons or not all(map(str.split, prons)):
            raise ValueError(f"{word!r:.50} has no list of pronunciations")
    lexicon = Lexicon({word: tuple(tuple(pron.split()) for pron in prons) for word, prons in content.items()})
    if probabilities is None:
        return lexicon
    known = {}
    for word, several in lexicon.pronunciations.items():
        for pronunciation, probability in zip(several, probabilities[word], strict=True):
            if not MIN_PROBABILITY <= probability <= 1:
                raise ValueError(f"{word!r:.50} has a pronunciation with probability {probability!r:.50}")
            known[word, pronunciation] = float(probability)
    return Lexicon(lexicon.pronunciations, {key: value for key, value in known.items() if value < 1})


class BpeTokenizer(Tokenizer):
    """Byte-pair units by sentencepiece.

    sentencepiece numbers <unk> 0. As `encode` refuses text that needs it, this number is free, and is the blank's.
    """

    def __init__(self, model: bytes):
        import sentencepiece

        self._model = model
        self._pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        size = self._pieces.get_piece_size()
        if self._pieces.unk_id() != BLANK or not all(math.isfinite(self._pieces.get_score(i)) for i in range(size)):
            raise ValueError("its pieces do not begin with the unknown one, or have scores that are not finite")
        self.symbols = [BLANK_SYMBOL, *(self._pieces.id_to_piece(i) for i in range(1, size))]
        if any(map(has_control_characters, self.symbols)):
            raise ValueError("it has a piece with control characters")
        # A sentencepiece model that was not trained by asrtool may have a piece for a character and still return <unk>
        # for it, or have no piece for the space before it.
        unk = BLANK
        self._characters = {s for s in self.symbols if len(s) == 1 and unk not in self._pieces.encode(s)}

    def encode(self, text: str) -> list[int]:
        """Returns the units of `text`."""
        units = self._pieces.encode(" ".join(text.split()))
        if self._pieces.unk_id() in units:
            raise KeyError(text)
        return units

    def decode(self, units: Iterable[int]) -> str:
        """Returns the text of `units`."""
        return self._pieces.decode(list(units))

    def unknown(self, text: str) -> list[str]:
        """Returns the characters of `text` that have no unit."""
        return [character for character in "".join(text.split()) if character not in self._characters]

    def __reduce__(self):
        """Pickles the model's bytes, for loader processes."""
        return BpeTokenizer, (self._model,)

    def to_dict(self) -> dict:
        """Returns the tokenizer as plain values for its file."""
        return {"type": "bpe", "model": base64.b64encode(self._model).decode("ascii")}


def save_tokenizer(tokenizer: Tokenizer, path: str | Path) -> None:
    """Writes the tokenizer's file."""
    write_json(path, tokenizer.to_dict())


def same_units(one: Tokenizer, other: Tokenizer) -> bool:
    """Returns True if two tokenizers have the same units, and the same ones for each word that both can pronounce.

    Words that only one lexicon has do not count: they are the words of a language model, not of the training set.
    """
    return _comparable(one.to_dict(), other) == _comparable(other.to_dict(), one)


def _comparable(content: dict, other: Tokenizer) -> dict:
    """Returns the content of a tokenizer file with the words of its lexicon that the lexicon of `other` has, too."""
    if "phones" in content:  # of units in context
        return content | {"phones": _comparable(content["phones"], other.without_context)}
    if not isinstance(other, PhoneTokenizer) or "lexicon" not in content:
        return content
    words = content["lexicon"].keys() & other.lexicon.pronunciations.keys()
    probabilities = content.get("probabilities") or {word: [1.0] * len(content["lexicon"][word]) for word in words}
    return content | {
        "lexicon": {word: content["lexicon"][word] for word in words},
        "probabilities": {word: probabilities[word] for word in words},
    }


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Reads the tokenizer in the file `path`; UserError for a file without one."""
    hint = "create it with `asrtool tokenizer`"
    path = require_file(path, "tokenizer", hint)
    try:
        return tokenizer_from_dict(read_json(path, "a tokenizer", hint))
    except UserError as error:
        raise UserError(f"{path} is not a tokenizer of asrtool: {str(error).removeprefix(f'{path}: ')}") from error
    except INVALID as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        reason = f"no {reason}" if isinstance(error, KeyError) else reason
        raise UserError(f"{path} is not a tokenizer of asrtool ({reason}); {hint}") from error


def tokenizer_from_dict(content: dict) -> Tokenizer:
    """Returns the tokenizer whose `to_dict` returned `content`.

    Raises one of INVALID, with the reason, for any other content.
    """
    if not isinstance(content, dict):
        raise ValueError("it is not an object with a type")
    kind = content["type"]
    if kind == "bpe":
        tokenizer = BpeTokenizer(base64.b64decode(content["model"], validate=True))
        check_symbols(tokenizer.symbols)
        return tokenizer
    if kind in ("biphone", "triphone"):
        from asrtool.text.context_units import ContextTokenizer  # which imports this module

        return ContextTokenizer.from_dict(content)
    if kind == "pdf":
        from asrtool.text.pdf_tokenizer import PdfTokenizer  # which imports this module

        return PdfTokenizer.from_dict(content)
    if kind not in ("char", "phone", "word"):
        raise ValueError(f"its type is unknown: {kind!r:.50}")
    check_symbols(content["symbols"])
    return PhoneTokenizer.from_dict(content) if kind == "phone" else SymbolTokenizer(kind, content["symbols"])


def check_symbols(symbols: Sequence[str]) -> None:
    """Raises ValueError unless these can be the symbols of units: the blank first, all different, none with spaces."""
    if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols):
        raise ValueError("its symbols are not a list of strings")
    if not 2 <= len(symbols) <= MAX_UNITS:
        raise ValueError(f"it has {len(symbols)} symbols, not 2 to {MAX_UNITS:,}")
    if symbols[BLANK] != BLANK_SYMBOL:
        raise ValueError(f"its first symbol is not {BLANK_SYMBOL}")
    if len(set(symbols)) < len(symbols):
        raise ValueError("a symbol occurs twice")
    for symbol in symbols[1:]:
        if symbol.split() != [symbol] or has_control_characters(symbol) or is_mark(symbol):
            raise ValueError(f"{symbol!r:.50} cannot be a unit")
