"""How often the words of an aligned manifest have each of their pronunciations, for `asrtool lexicon --aligned`."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from asrtool.data.shards import entries_with_trees
from asrtool.errors import DataError
from asrtool.progress import progress
from asrtool.text.lexicon import Lexicon, Pronunciation
from asrtool.text.words import change_case

TIME_STEP = 1e-3  # in seconds: times of words and units are rounded to less


class _Item(NamedTuple):
    symbol: str
    start: float
    duration: float


def count_pronunciations(cuts: Path, lexicon: Lexicon, case: str = "keep") -> Counter[tuple[str, Pronunciation]]:
    """Counts the words of a manifest with alignments "word" and "unit", as `asrtool align` writes it.

    `case` ("keep", "upper", "lower") is applied to the words. Those that `lexicon` lacks or has with other
    pronunciations are not counted. Raises DataError with all cuts that have no such alignment, and if no word is
    counted.
    """
    counts: Counter[tuple[str, Pronunciation]] = Counter()
    problems = []
    for entry, tree in progress(entries_with_trees(cuts), f"counting in {cuts.name}"):
        try:
            aligned = list(_aligned_words(tree))
        except (TypeError, ValueError, LookupError):
            aligned = []
        if not aligned:
            problems.append(f"{entry.id}: no alignment of words and units")
        cased = ((change_case(word, case), units) for word, units in aligned)
        counts.update((word, units) for word, units in cased if units in lexicon.pronunciations.get(word, ()))
    if problems:
        hint = "make it with `asrtool align` and a system of phones"
        raise DataError(f"{len(problems)} cuts of {cuts} have no alignment to count; {hint}", problems)
    if not counts:
        hint = "align it with a system of these phones, and give the same --case"
        raise DataError(f"no word of {cuts} is aligned with a pronunciation of the lexicon; {hint}", [])
    return counts


def _aligned_words(tree: dict) -> Iterator[tuple[str, Pronunciation]]:
    """Yields the words of a line of a manifest, each with the units in its time."""
    alignment = tree["supervisions"][0]["alignment"]
    words, units = ([_Item(str(item[0]), float(item[1]), float(item[2])) for item in alignment[name]]
                    for name in ("word", "unit"))  # fmt: skip
    position = 0
    for word in words:
        while position < len(units) and units[position].start < word.start - TIME_STEP:
            position += 1
        begin = position
        while position < len(units) and units[position].start < word.start + word.duration - TIME_STEP:
            position += 1
        yield word.symbol, tuple(unit.symbol for unit in units[begin:position])
