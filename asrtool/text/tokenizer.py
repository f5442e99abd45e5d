"""Tokenizers: BPE (sentencepiece), characters, phones by a lexicon, and whole words for tiny vocabularies.

A tokenizer is one JSON file. Unit 0 is the CTC blank in all of them, so `size` counts it and `encode` never returns it.
"""

import base64
import io
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path

from asrtool.errors import DataError, UserError, require_file
from asrtool.files import write_json
from asrtool.readers import read_json
from asrtool.text.lexicon import Lexicon, Pronunciation, is_reserved
from asrtool.text.words import composed, count_words, has_control_characters, is_mark, most_frequent, shortened

BLANK = 0
BLANK_SYMBOL = "<blank>"
INVALID = (ValueError, LookupError, TypeError, AttributeError, RuntimeError, OverflowError)  # see `tokenizer_of`
MAX_UNITS = 1_000_000  # a model's output for as many would have gigabytes; vocabularies of words have 200,000
SPACE = "\u2581"  # sentencepiece's mark for a space, used by the character tokenizer as well


class Tokenizer(ABC):
    """Text to unit numbers and back. `symbols[i]` is the printable name of unit i."""

    symbols: list[str]
    separator: str | None = None  # the symbol of the unit between words, if there is one: a space, or silence
    spells: str = "words"  # what `decode` and `reference` are made of, or "phones"

    @property
    def size(self) -> int:
        """The number of units, blank included: the width of the model's output."""
        return len(self.symbols)

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Unit numbers of `text`. Check `unknown` first: what has no unit raises KeyError."""

    def alternatives(self, text: str) -> list[list[list[int]]]:
        """The pronunciations of each word of `text`; here the one that `encode` gives, a mark for the space first."""
        words: list[list[int]] = []
        for unit in self.encode(text):
            if not words or self.symbols[unit].startswith(SPACE):
                words.append([])
            words[-1].append(unit)
        return [[word] for word in words]

    @abstractmethod
    def decode(self, units: Iterable[int]) -> str:
        """The text that `units` spell, words joined by single spaces."""

    def reference(self, text: str) -> str:
        """What `decode` should have found where `text` was said: the text itself, when units spell words."""
        return text

    @abstractmethod
    def unknown(self, text: str) -> list[str]:
        """The characters or words of `text` that have no unit."""

    def pronunciations(self, word: str) -> tuple[Pronunciation, ...]:
        """All the ways in which units spell `word`, as symbols, the usual one first. Check `unknown` first."""
        return (tuple(self.symbols[unit] for unit in self.encode(word)),)

    @abstractmethod
    def to_dict(self) -> dict:
        """Plain values for the file."""


class SymbolTokenizer(Tokenizer):
    """Units that the text spells out: its words, or its characters with a mark for the space."""

    def __init__(self, kind: str, symbols: Sequence[str]):
        if kind == "char" and not all(len(symbol) == 1 for symbol in symbols[1:]):
            raise ValueError("it has symbols of several characters")
        self.kind = kind
        self.symbols = list(symbols)
        self.separator = SPACE if kind == "char" else None
        self._number = {symbol: number for number, symbol in enumerate(self.symbols) if number != BLANK}

    def _split(self, text: str) -> list[str]:
        words = text.split()
        return words if self.kind == "word" else list(SPACE.join(words))

    def encode(self, text: str) -> list[int]:
        return [self._number[symbol] for symbol in self._split(text)]

    def alternatives(self, text: str) -> list[list[list[int]]]:
        return [[[unit]] for unit in self.encode(text)] if self.kind == "word" else super().alternatives(text)

    def decode(self, units: Iterable[int]) -> str:
        symbols = [self.symbols[unit] for unit in units]
        return " ".join(symbols) if self.kind == "word" else " ".join("".join(symbols).replace(SPACE, " ").split())

    def unknown(self, text: str) -> list[str]:
        return [symbol for symbol in self._split(text) if symbol not in self._number]

    def to_dict(self) -> dict:
        return {"type": self.kind, "symbols": self.symbols}

    @classmethod
    def train(cls, kind: str, texts: Iterable[str]) -> "SymbolTokenizer":
        """All symbols of `texts`, sorted, after the blank."""
        splitter = cls(kind, [])
        found = {symbol for text in texts for symbol in splitter._split(text)}
        return cls(kind, [BLANK_SYMBOL, *sorted(found)])


class PhoneTokenizer(Tokenizer):
    """Phones of a lexicon, and maybe a silence, of which training targets have none: graphs put it between words.

    `decode` gives phones: which words they are is for a graph to say.
    """

    spells = "phones"

    def __init__(self, symbols: Sequence[str], lexicon: Lexicon, silence: str | None = None):
        if not set(lexicon.symbols).union([silence] if silence else []) <= set(symbols[1:]):
            raise ValueError("its lexicon has phones that are not units")
        self.symbols, self.lexicon, self.separator = list(symbols), lexicon, silence
        self._number = {symbol: number for number, symbol in enumerate(self.symbols)}

    def encode(self, text: str) -> list[int]:
        return [unit for ways in self.alternatives(text) for unit in ways[0]]

    def alternatives(self, text: str) -> list[list[list[int]]]:
        """For each word of `text` all its pronunciations in unit numbers, the usual one first. KeyError as `encode`."""
        number = self._number
        return [[[number[phone] for phone in way] for way in self.pronunciations(word)] for word in text.split()]

    def decode(self, units: Iterable[int]) -> str:
        """The phones, joined by single spaces, without silence."""
        return " ".join(symbol for symbol in map(self.symbols.__getitem__, units) if symbol != self.separator)

    def reference(self, text: str) -> str:
        """The usual pronunciations, without silence; a word that has none is one <unk>, which no hypothesis has."""
        ways = [self.lexicon.pronunciations.get(word, (("<unk>",),)) for word in text.split()]
        return " ".join(phone for way, *_ in ways for phone in way if phone != self.separator)

    def unknown(self, text: str) -> list[str]:
        return [word for word in text.split() if word not in self.lexicon.pronunciations]

    def pronunciations(self, word: str) -> tuple[Pronunciation, ...]:
        return self.lexicon.pronunciations[word]

    def to_dict(self) -> dict:
        lexicon = {word: [" ".join(way) for way in ways] for word, ways in self.lexicon.pronunciations.items()}
        return {"type": "phone", "symbols": self.symbols, "silence": self.separator, "lexicon": lexicon}

    @classmethod
    def from_dict(cls, content: dict) -> "PhoneTokenizer":
        """The tokenizer that `to_dict` gave."""
        if content["silence"] not in (None, *content["symbols"][1:]):
            raise ValueError("its silence is not a unit")
        return cls(content["symbols"], _lexicon(content["lexicon"]), content["silence"])


def _lexicon(content: dict[str, list[str]]) -> Lexicon:
    """The lexicon of a tokenizer file. One of INVALID where it is none."""
    for word, ways in content.items():
        if word.split() != [word]:
            raise ValueError(f"{word!r:.50} is not a word of a lexicon")
        if not isinstance(ways, list) or not ways or not all(map(str.split, ways)):
            raise ValueError(f"{word!r:.50} has no list of pronunciations")
    return Lexicon({word: tuple(tuple(way.split()) for way in ways) for word, ways in content.items()})


class BpeTokenizer(Tokenizer):
    """Byte-pair units by sentencepiece. Its <unk>, piece 0, stands where the blank is, and `encode` never yields it."""

    def __init__(self, model: bytes):
        import sentencepiece

        self._model = model
        self._pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        size = self._pieces.get_piece_size()
        if self._pieces.unk_id() != BLANK or not all(math.isfinite(self._pieces.get_score(i)) for i in range(size)):
            raise ValueError("its pieces do not begin with the unknown one, or have scores that are not finite")
        self.symbols = [BLANK_SYMBOL, *(self._pieces.id_to_piece(i) for i in range(1, size))]
        # A model from elsewhere may have a piece for a character and not use it, or none for the space before it
        self._characters = {s for s in self.symbols if len(s) == 1 and BLANK not in self._pieces.encode(s)}

    def encode(self, text: str) -> list[int]:
        units = self._pieces.encode(" ".join(text.split()))
        if BLANK in units:
            raise KeyError(text)
        return units

    def decode(self, units: Iterable[int]) -> str:
        return self._pieces.decode(list(units))

    def unknown(self, text: str) -> list[str]:
        return [character for character in "".join(text.split()) if character not in self._characters]

    def __reduce__(self):
        return BpeTokenizer, (self._model,)

    def to_dict(self) -> dict:
        return {"type": "bpe", "model": base64.b64encode(self._model).decode("ascii")}

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> "BpeTokenizer":
        """BPE of exactly `vocab_size` units, blank included. Raises UserError when the text cannot fill them."""
        import sentencepiece

        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(texts),
                model_writer=model,
                model_type="bpe",
                vocab_size=vocab_size,
                character_coverage=1.0,  # every character of the transcripts has a unit
                max_sentence_length=1 << 24,  # bytes; longer ones would be left out in silence
                normalization_rule_name="identity",  # what the recipe wrote is what is learnt
                unk_id=BLANK,
                bos_id=-1,
                eos_id=-1,
                pad_id=-1,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise UserError(_explain(str(error), vocab_size)) from error
        return cls(model.getvalue())


def _explain(message: str, vocab_size: int) -> str:
    """sentencepiece's complaint about the vocabulary size in one line; its figure is the largest possible size."""
    if "Vocabulary size too high" in message:
        largest = message.rstrip().rstrip(".").split()[-1]
        return f"--vocab-size {vocab_size} is more than the text can fill; the largest possible is {largest}"
    if "smaller than required_chars" in message or "Vocabulary size is smaller" in message:
        needed = re.search(r"\d+ vs (\d+)", message)
        return f"--vocab-size {vocab_size} is too few for the text's characters; give {needed[1] if needed else 'more'}"
    return f"sentencepiece could not train on this text: {' '.join(message.split())}"


def train_tokenizer(kind: str, texts: Iterable[str], vocab_size: int = 500) -> Tokenizer:
    """A tokenizer of `kind` "bpe", "char" or "word" from transcripts. `vocab_size` counts for bpe alone.

    Raises UserError without any text, and DataError that counts the words no unit can stand for, such as <unk>.
    """
    texts = [" ".join(composed(text).split()) for text in texts if text.strip()]
    if not texts:
        raise UserError("no transcripts to make a tokenizer from; look at the manifest's supervisions")
    _refuse_marks(kind, texts)
    return BpeTokenizer.train(texts, vocab_size) if kind == "bpe" else SymbolTokenizer.train(kind, texts)


def _refuse_marks(kind: str, texts: Iterable[str]) -> None:
    counts = count_words(texts)
    reasons = {word: why for word in most_frequent(counts) if (why := _no_unit(kind, word))}
    if reasons:
        rows = [f"{shortened(word)}: {counts[word]} times; {why}" for word, why in reasons.items()]
        hint = "remove them, or the sentences that have them, from the transcripts"
        raise DataError(f"{len(rows)} words of the transcripts cannot have units: {hint}", rows)


def _no_unit(kind: str, word: str) -> str:
    """Why a tokenizer of `kind` can have no unit for `word`, or nothing where it can."""
    if is_mark(word) or (kind == "word" and is_reserved(word)):
        return "a mark of language models and graphs, not a word that was spoken"
    if has_control_characters(word):
        return "it has control characters"
    return f"{SPACE} stands for a space in the units" if kind != "word" and SPACE in word else ""


def phone_tokenizer(lexicon: Lexicon, texts: Iterable[str], silence: str | None = None) -> PhoneTokenizer:
    """A tokenizer of the lexicon's phones, sorted, after the blank and a unit for silence where one is named.

    Raises DataError with all words of the transcripts `texts` that have no pronunciation.
    """
    counts = count_words(texts)
    if not counts:
        raise UserError("no transcripts to make a tokenizer for; look at the manifest's supervisions")
    if silence and (is_reserved(silence) or silence.split() != [silence]):
        raise UserError(f"'{silence}' cannot name the silence; take SIL, for example")
    missing = [word for word in most_frequent(counts) if word not in lexicon.pronunciations]
    if len(missing) == len(counts):
        raise UserError(f"the lexicon has none of the transcripts' {len(counts)} words; are they in another case?")
    if missing:
        rows = [f"{shortened(word)}: {counts[word]} times" for word in missing]
        hint = "make the lexicon for them with `asrtool lexicon --unknown g2p`"
        if marks := [word for word in missing if is_mark(word)]:
            hint = f"give {marks[0]} a line such as `{marks[0]} SPN` in the lexicon, or remove it from the transcripts"
        raise DataError(f"{len(missing)} of {len(counts)} words have no pronunciation; {hint}", rows)
    phones = [phone for phone in lexicon.symbols if phone != silence]
    return PhoneTokenizer([BLANK_SYMBOL, *([silence] if silence else []), *phones], lexicon, silence)


def save_tokenizer(tokenizer: Tokenizer, path: str | Path) -> None:
    """Write the tokenizer's file."""
    write_json(path, tokenizer.to_dict())


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer in the file `path`; UserError when there is none."""
    hint = "make it with `asrtool tokenizer`"
    path = require_file(path, "tokenizer", hint)
    try:
        return tokenizer_of(read_json(path, "a tokenizer", hint))
    except UserError as error:
        raise UserError(f"{path} is not a tokenizer of asrtool: {str(error).removeprefix(f'{path}: ')}") from error
    except INVALID as error:
        raise UserError(f"{path} is not a tokenizer of asrtool ({invalid(error)}); {hint}") from error


def invalid(error: BaseException) -> str:
    """Why the content of a file is invalid, in a line."""
    reason = " ".join(str(error).split())[:200]
    return f"no {reason}" if isinstance(error, KeyError) else reason or type(error).__name__


def tokenizer_of(content: dict) -> Tokenizer:
    """The tokenizer whose `to_dict` gave `content`. One of INVALID, with the reason, where none did."""
    if not isinstance(content, dict):
        raise ValueError("it is not an object with a type")
    kind = content["type"]
    if kind == "bpe":
        tokenizer: Tokenizer = BpeTokenizer(base64.b64decode(content["model"], validate=True))
        _check_symbols(tokenizer.symbols)
        return tokenizer
    if kind not in ("char", "phone", "word"):
        raise ValueError(f"it is of no known type: {kind!r:.50}")
    _check_symbols(content["symbols"])
    return PhoneTokenizer.from_dict(content) if kind == "phone" else SymbolTokenizer(kind, content["symbols"])


def _check_symbols(symbols: Sequence[str]) -> None:
    """ValueError unless these can be the symbols of units: the blank, and others that differ and have no spaces."""
    if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols):
        raise ValueError("its symbols are not a list of strings")
    if not 2 <= len(symbols) <= MAX_UNITS:
        raise ValueError(f"it has {len(symbols)} symbols, not 2 to {MAX_UNITS:,}")
    if symbols[BLANK] != BLANK_SYMBOL:
        raise ValueError(f"its first symbol is not {BLANK_SYMBOL}")
    if len(set(symbols)) < len(symbols):
        raise ValueError("a symbol is there twice")
    for symbol in symbols[1:]:
        if symbol.split() != [symbol] or has_control_characters(symbol) or is_mark(symbol):
            raise ValueError(f"{symbol!r:.50} cannot be a unit")
