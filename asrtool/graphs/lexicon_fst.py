"""L, the lexicon: a transducer from units to words, built as by Kaldi's make_lexicon_fst.py and add_lex_disambig.pl.

A disambiguation symbol #1, #2 ... ends every pronunciation that another word has, too, or that is the beginning of a
longer one, or the silence between words; without them, L composed with G could not be determinised. #0 is on the
back-off arcs of G.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asrtool.errors import DataError, UserError
from asrtool.text.lexicon import Lexicon

if TYPE_CHECKING:
    from kaldifst import StdVectorFst

EPSILON = "<eps>"
BACKOFF = "#0"
RESERVED = {EPSILON, BACKOFF, "<s>", "</s>"}  # symbols with another meaning in G
BEFORE_WORD = 0  # state where each pronunciation begins
AFTER_WORD = 1  # state where each pronunciation ends


@dataclass(frozen=True)
class WordBoundary:
    """Units between words: none, always `separator`, or `silence` with `probability`.

    Silence may also precede the first word and follow the last one; a separator does not.
    """

    separator: str | None = None
    silence: str | None = None
    probability: float = 0.5

    def __post_init__(self):
        if self.separator and self.silence:
            raise UserError(f"no silence between words that '{self.separator}' separates; leave --silence out")
        if self.silence and not 0 < self.probability < 1:
            raise UserError(f"the probability of silence is {self.probability}; give one between 0 and 1")


def word_table(lexicon: Lexicon) -> list[str]:
    """Words by label: <eps>, the words in order, #0."""
    reserved = RESERVED & lexicon.pronunciations.keys()
    if reserved:
        raise UserError(f"the lexicon pronounces {', '.join(sorted(reserved))}, which is not a word; remove it")
    return [EPSILON, *sorted(lexicon.pronunciations), BACKOFF]


def unit_table(symbols: Sequence[str], lexicon: Lexicon, boundary: WordBoundary) -> list[str]:
    """Units by label: <eps>, the tokenizer's symbols, then the disambiguation symbols, #0 the first."""
    most = max(disambiguate([pronunciation for _, pronunciation in _entries(lexicon)], boundary.silence), default=0)
    if boundary.silence:
        most += 1  # follows the silence between words
    marks = [f"#{number}" for number in range(most + 1)]
    taken = {EPSILON, *marks} & set(symbols)
    if taken:
        names = ", ".join(sorted(taken))
        raise UserError(f"the tokenizer has units with names that graphs reserve: {names}; train another")
    return [EPSILON, *symbols, *marks]


def lexicon_fst(lexicon: Lexicon, words: Sequence[str], units: Sequence[str], boundary: WordBoundary) -> "StdVectorFst":
    """L with its disambiguation symbols, sorted by output label; `words` and `units` are symbols by label.

    The state before words has a loop with labels after all others, len(units) and len(words): the mark of word starts
    (asrtool/graphs/word_starts.py).
    Raises DataError with all words whose pronunciation is empty or has symbols that are not units.
    """
    import kaldifst

    labels = {unit: label for label, unit in enumerate(units)}
    usable = set(units[2 : labels[BACKOFF]])  # neither <eps> nor blank
    _check_boundary(boundary, usable)
    _check_lexicon(lexicon, usable)
    lines = [*_boundary_arcs(boundary, labels, len(units) - 1)]
    lines += _pronunciation_arcs(lexicon, words, labels, boundary.silence)
    lines.append(f"{BEFORE_WORD} {BEFORE_WORD} {len(units)} {len(words)}")
    fst = kaldifst.compile("\n".join(lines) + "\n")
    kaldifst.add_self_loops(fst, [labels[BACKOFF]], [len(words) - 1])
    kaldifst.arcsort(fst, "olabel")
    return fst


def _entries(lexicon: Lexicon) -> list[tuple[str, tuple[str, ...]]]:
    """Pairs of a word and a pronunciation; a pronunciation that a word has twice comes once."""
    return [(word, units) for word, several in lexicon.pronunciations.items() for units in dict.fromkeys(several)]


def disambiguate(pronunciations: Sequence[tuple[str, ...]], silence: str | None = None) -> list[int]:
    """For each pronunciation the number of the disambiguation symbol that ends it; 0: it needs none.

    `silence` is the unit between words, which may be the pronunciation of a word as well, such as Kaldi's !SIL.
    """
    counts = Counter(pronunciations)
    prefixes = {units[:length] for units in counts for length in range(1, len(units))}
    if silence:
        prefixes.add((silence,))
    used: Counter[tuple[str, ...]] = Counter()
    marks = []
    for units in pronunciations:
        used[units] += 1
        marks.append(used[units] if counts[units] > 1 or units in prefixes else 0)
    return marks


def _check_boundary(boundary: WordBoundary, usable: set[str]) -> None:
    for unit in (boundary.separator, boundary.silence):
        if unit and unit not in usable:
            raise UserError(f"the tokenizer has no unit '{unit}' to put between words")


def _check_lexicon(lexicon: Lexicon, usable: set[str]) -> None:
    problems = []
    for word, pronunciations in lexicon.pronunciations.items():
        unknown = sorted({symbol for units in pronunciations for symbol in units} - usable)
        if unknown:
            problems.append(f"{word}: not units of the tokenizer: {' '.join(unknown)}")
        if not pronunciations or not all(pronunciations):
            problems.append(f"{word}: an empty pronunciation")
    if problems:
        raise DataError(f"{len(problems)} words of the lexicon cannot be used; correct or remove them", problems)


def _boundary_arcs(boundary: WordBoundary, labels: dict[str, int], mark: int) -> Iterator[str]:
    """Arcs and final states around words, as OpenFst text; the first line begins with the start state, 2.

    `mark` is the label of the disambiguation symbol that follows silence, which distinguishes it from the same unit
    inside words.
    """
    if boundary.separator:
        yield f"2 {BEFORE_WORD} 0 0"
        yield "2 3 0 0"
        yield f"{AFTER_WORD} {BEFORE_WORD} {labels[boundary.separator]} 0"
        yield f"{AFTER_WORD} 3 0 0"
        yield "3"
    elif boundary.silence:
        yield f"2 {AFTER_WORD} 0 0"
        yield f"{AFTER_WORD} {BEFORE_WORD} 0 0 {-math.log(1 - boundary.probability)}"
        yield f"{AFTER_WORD} 3 {labels[boundary.silence]} 0 {-math.log(boundary.probability)}"
        yield f"3 {BEFORE_WORD} {mark} 0"
        yield f"{BEFORE_WORD}"
    else:
        yield f"2 {BEFORE_WORD} 0 0"
        yield f"{AFTER_WORD} {BEFORE_WORD} 0 0"
        yield f"{BEFORE_WORD}"


def _pronunciation_arcs(
    lexicon: Lexicon, words: Sequence[str], labels: dict[str, int], silence: str | None
) -> Iterator[str]:
    """The arcs of each pronunciation; the word is on the first one, and the cost on the last one."""
    word_labels = {word: label for label, word in enumerate(words)}
    entries = _entries(lexicon)
    marks = disambiguate([units for _, units in entries], silence)
    next_state = 4
    for (word, units), mark in zip(entries, marks, strict=True):
        symbols = [*units, f"#{mark}"] if mark else list(units)
        source = BEFORE_WORD
        output = word_labels[word]
        for symbol in symbols[:-1]:
            yield f"{source} {next_state} {labels[symbol]} {output}"
            source = next_state
            next_state += 1
            output = 0
        cost = math.log(1 / lexicon.probability(word, units))
        yield f"{source} {AFTER_WORD} {labels[symbols[-1]]} {output} {cost}"
