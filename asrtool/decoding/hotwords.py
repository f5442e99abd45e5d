"""Hotwords: phrases that the user expects, such as names, and the bonus that a search gives them.

A file of hotwords has one phrase a line, and after a tab its weight if it has one of its own:

    # guests of today's programme
    KOWALCZYK
    NEW ZEALAND<tab>3.5

The weight is the bonus of each word of the phrase, in nats. A sequence of words scores the best choice of phrases in it
that do not overlap; a phrase matches whole words only, so that ART has no bonus in PARTY.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from asrtool.errors import UserError
from asrtool.readers import read_lines
from asrtool.text.tokenizer import Tokenizer
from asrtool.text.words import CASES, change_case, composed, has_control_characters, is_mark, shortened

DEFAULT_WEIGHT = 5.0  # nats for each word: docs/add_words.md has the measurement
MAX_WEIGHT = 100.0  # nats: a word that occurs once in a billion has 21, so more than this only overrides the audio
MAX_HOTWORDS = 20_000  # phrases: more than a list of contacts; a whole vocabulary belongs into the language model
MAX_WORDS = 50  # of a phrase: a phrase, not a text
COMMENT = "#"

HotwordSource = Path | str | Sequence[str]  # a file, or lines as of a file


@dataclass(frozen=True)
class Hotword:
    """A phrase, and the bonus for each of its words in nats."""

    words: tuple[str, ...]
    weight: float = DEFAULT_WEIGHT

    def __str__(self) -> str:
        return " ".join(self.words)


def read_hotwords(source: HotwordSource) -> list[Hotword]:
    """Returns the phrases of a file of hotwords, or of its lines, in their order; words are in the composed form (NFC).

    Raises UserError with all lines that are wrong, and for a source without phrases.
    """
    name = str(source) if isinstance(source, Path | str) else "the hotwords"
    weights: dict[tuple[str, ...], float] = {}
    problems = []
    for number, line in enumerate(_lines(source), 1):
        try:
            hotword = _parse_line(line)
            if hotword and weights.setdefault(hotword.words, hotword.weight) != hotword.weight:
                raise ValueError("the phrase has another weight in an earlier line")
        except ValueError as error:
            problems.append(f"line {number} ({shortened(line.strip())}): {error}")
    if problems:
        raise UserError(f"{name}: {'; '.join(problems)}; write a phrase a line, and a weight after a tab")
    if not weights:
        raise UserError(f"{name} has no phrases; write one a line")
    if len(weights) > MAX_HOTWORDS:
        hint = "add words in such numbers to the graph: `asrtool graph --add-words`"
        raise UserError(f"{name} has {len(weights):,} phrases; at most {MAX_HOTWORDS:,} can be hotwords; {hint}")
    return [Hotword(words, weight) for words, weight in weights.items()]


def _lines(source: HotwordSource) -> Iterator[str]:
    if isinstance(source, Path | str):
        return read_lines(source, "file of hotwords", "write one with a phrase a line")
    return iter(source)


def _parse_line(line: str) -> Hotword | None:
    """Returns the hotword of a line; None for an empty line and for a comment. ValueError says what is wrong."""
    line = composed(line.strip("\r\n"))
    if not line.strip() or line.lstrip().startswith(COMMENT):
        return None
    phrase, *rest = line.strip(" ").split("\t")
    words = tuple(phrase.split())
    if len(rest) > 1:
        raise ValueError("more than one tab")
    if not words:
        raise ValueError("no phrase before the tab")
    if len(words) > MAX_WORDS:
        raise ValueError(f"{len(words)} words, and a phrase has at most {MAX_WORDS}")
    if any(is_mark(word) or has_control_characters(word) for word in words):
        raise ValueError("a mark or a control character, which nobody says")
    return Hotword(words, _parse_weight(rest[0]) if rest and rest[0].strip() else DEFAULT_WEIGHT)


def _parse_weight(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 < weight <= MAX_WEIGHT:
        raise ValueError(f"the weight '{shortened(text.strip())}' is not a number above 0 and at most {MAX_WEIGHT:g}")
    return weight


def require_writable(hotwords: Sequence[Hotword], tokenizer: Tokenizer, total: int | None = None) -> None:
    """Raises UserError with all phrases that the units of `tokenizer` cannot write.

    total: the number of phrases of the whole list, if `hotwords` are a part of it.
    """
    missing = {str(hotword): units for hotword in hotwords if (units := tokenizer.unknown(str(hotword)))}
    if not missing:
        return
    listed = ", ".join(f"{phrase} ({' '.join(dict.fromkeys(units))})" for phrase, units in missing.items())
    raise UserError(
        f"{len(missing)} of {total or len(hotwords)} hotwords cannot be written in the model's units: {listed}; "
        + (_case_hint(list(missing), tokenizer) or "correct them, or leave them out")
    )


def _case_hint(phrases: Sequence[str], tokenizer: Tokenizer) -> str:
    """Says in which case the units can write the phrases; empty if in none."""
    for case in CASES:
        count = sum(not tokenizer.unknown(change_case(phrase, case)) for phrase in phrases)
        if count:
            return f"in {case} case {'they can be' if count == len(phrases) else f'{count} of them can be'}"
    return ""


def hotwords_hash(hotwords: Sequence[Hotword]) -> str:
    """Returns the sha256 of phrases and weights, whatever the layout of their file."""
    rows = [[list(hotword.words), hotword.weight] for hotword in hotwords]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
