"""L: from units to words, as Kaldi's make_lexicon_fst.py and add_lex_disambig.pl make it.

A disambiguation symbol #1, #2 ... ends every pronunciation that is also that of another word, or the beginning of a
longer one; without them, L composed with G could not be determinised. #0 stands for the back-off arcs of G.
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
RESERVED = {EPSILON, BACKOFF, "<s>", "</s>"}  # they mean something else to a grammar
WORDS, END = 0, 1  # states: before any word, and after the last one


@dataclass(frozen=True)
class Between:
    """What stands between words: nothing, `separator` always, or `silence` with `probability`, also at the ends."""

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
        raise UserError(f"the lexicon pronounces {', '.join(sorted(reserved))}, which is no word; take it out")
    return [EPSILON, *sorted(lexicon.pronunciations), BACKOFF]


def unit_table(symbols: Sequence[str], lexicon: Lexicon, between: Between) -> list[str]:
    """Units by label: <eps>, the tokenizer's symbols, #0, those that the lexicon needs, one more for silence."""
    count = 1 + max(disambiguate([way for _, way in _entries(lexicon)]), default=0) + bool(between.silence)
    marks = [f"#{number}" for number in range(count)]
    taken = {EPSILON, *marks} & set(symbols)
    if taken:
        raise UserError(f"the tokenizer has units that graphs use otherwise: {', '.join(sorted(taken))}; train another")
    return [EPSILON, *symbols, *marks]


def lexicon_fst(lexicon: Lexicon, words: Sequence[str], units: Sequence[str], between: Between) -> "StdVectorFst":
    """L with its disambiguation symbols, sorted by output label; `words` and `units` name the labels.

    Raises DataError that lists the words whose pronunciation is empty or has symbols that are no unit.
    """
    import kaldifst

    labels = {unit: label for label, unit in enumerate(units)}
    usable = set(units[2 : labels[BACKOFF]])  # neither <eps> nor blank
    _check_between(between, usable)
    _check_lexicon(lexicon, usable)
    lines = [*_gaps(between, labels, len(units) - 1), *_paths(lexicon, words, labels)]
    fst = kaldifst.compile("\n".join(lines) + "\n")
    kaldifst.add_self_loops(fst, [labels[BACKOFF]], [len(words) - 1])
    kaldifst.arcsort(fst, "olabel")
    return fst


def _entries(lexicon: Lexicon) -> list[tuple[str, tuple[str, ...]]]:
    """Words with their pronunciations, each different one once."""
    return [(word, way) for word, ways in lexicon.pronunciations.items() for way in dict.fromkeys(ways)]


def disambiguate(ways: Sequence[tuple[str, ...]]) -> list[int]:
    """For each pronunciation the number of the symbol that ends it, 0 for none."""
    counts = Counter(ways)
    beginnings = {way[:length] for way in counts for length in range(1, len(way))}
    used: Counter = Counter()
    marks = []
    for way in ways:
        used[way] += 1
        marks.append(used[way] if counts[way] > 1 or way in beginnings else 0)
    return marks


def _check_between(between: Between, usable: set[str]) -> None:
    missing = {between.separator, between.silence} - usable - {None}
    if missing:
        raise UserError(f"the tokenizer has no unit '{missing.pop()}', which is to stand between words")


def _check_lexicon(lexicon: Lexicon, usable: set[str]) -> None:
    problems = []
    for word, ways in lexicon.pronunciations.items():
        unknown = sorted({symbol for way in ways for symbol in way} - usable)
        if unknown:
            problems.append(f"{word}: no units of the tokenizer: {' '.join(unknown)}")
        if not ways or not all(ways):
            problems.append(f"{word}: an empty pronunciation")
    if problems:
        raise DataError(f"{len(problems)} words of the lexicon cannot be used; mend or drop them", problems)


def _gaps(between: Between, labels: dict[str, int], mark: int) -> Iterator[str]:
    """Arcs and final states around words, as OpenFst text; the first line begins with the start state, 2.

    Words begin in state WORDS and end in END. `mark` is the label of the symbol that follows silence, so that it is
    told from the same unit inside words.
    """
    if between.separator:  # none before the first word, none after the last
        yield from (f"2 {WORDS} 0 0", "2 3 0 0", f"{END} {WORDS} {labels[between.separator]} 0", f"{END} 3 0 0", "3")
    elif between.silence:
        silent, other = -math.log(between.probability), -math.log(1 - between.probability)
        yield from (f"2 {END} 0 0", f"{END} {WORDS} 0 0 {other}", f"{END} 3 {labels[between.silence]} 0 {silent}")
        yield from (f"3 {WORDS} {mark} 0", f"{WORDS}")
    else:
        yield from (f"2 {WORDS} 0 0", f"{END} {WORDS} 0 0", f"{WORDS}")


def _paths(lexicon: Lexicon, words: Sequence[str], labels: dict[str, int]) -> Iterator[str]:
    """The arcs of each pronunciation; the word is on the first one."""
    numbers = {word: label for label, word in enumerate(words)}
    entries = _entries(lexicon)
    marks = disambiguate([way for _, way in entries])
    state = 4
    for (word, way), mark in zip(entries, marks, strict=True):
        path = [labels[symbol] for symbol in way] + ([labels[f"#{mark}"]] if mark else [])
        stops = [WORDS, *range(state, state + len(path) - 1), END]
        state += len(path) - 1
        outputs = [numbers[word]] + [0] * (len(path) - 1)
        yield from map("{} {} {} {}".format, stops, stops[1:], path, outputs)
