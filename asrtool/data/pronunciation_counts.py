"""How often the words of an aligned manifest have each of their pronunciations, for `asrtool lexicon --aligned`."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from asrtool.data.shards import entries_with_dicts
from asrtool.errors import DataError
from asrtool.progress import progress
from asrtool.text.lexicon import Lexicon, Pronunciation
from asrtool.text.words import change_case, shortened

TIME_STEP = 1e-3  # in seconds: times of words and units are rounded to less


class _Item(NamedTuple):
    symbol: str
    start: float
    duration: float


class PronunciationCounts(NamedTuple):
    """Counts of words with a pronunciation, and of the words that were not counted."""

    counts: Counter[tuple[str, Pronunciation]]
    others: Counter[tuple[str, Pronunciation]]  # words of the lexicon that are aligned with other pronunciations
    unknown: int  # words that the lexicon lacks

    def __str__(self) -> str:
        text = f"{self.counts.total():,} words counted"
        if self.others:
            (word, pronunciation), count = self.others.most_common(1)[0]
            example = f"{shortened(word)} with {shortened(' '.join(pronunciation))} {count:,} times"
            text += f", {self.others.total():,} not: their pronunciations are not in the lexicon, as {example}"
        if self.unknown:
            text += f", {self.unknown:,} are not words of the lexicon"
        return text


def count_pronunciations(cuts: Path, lexicon: Lexicon, case: str = "keep") -> PronunciationCounts:
    """Counts the words of a manifest with alignments "word" and "unit", as `asrtool align` writes it.

    `case` ("keep", "upper", "lower") is applied to the words. Raises DataError with all cuts that have no such
    alignment, and if fewer words are counted than are aligned with other pronunciations: then it was aligned with other
    phones.
    """
    counts: Counter[tuple[str, Pronunciation]] = Counter()
    others: Counter[tuple[str, Pronunciation]] = Counter()
    num_unknown = 0
    problems = []
    for entry, cut_dict in progress(entries_with_dicts(cuts), f"counting in {cuts.name}"):
        try:
            aligned = list(_aligned_words(cut_dict))
        except (TypeError, ValueError, LookupError):
            aligned = []
        if not aligned:
            problems.append(f"{entry.id}: no alignment of words and units")
        for word, units in aligned:
            word = change_case(word, case)
            if word not in lexicon.pronunciations:
                num_unknown += 1
            elif units in lexicon.pronunciations[word]:
                counts[word, units] += 1
            else:
                others[word, units] += 1
    if problems:
        hint = "make it with `asrtool align` and a system of phones"
        raise DataError(f"{len(problems)} cuts of {cuts} have no alignment to count; {hint}", problems)
    result = PronunciationCounts(counts, others, num_unknown)
    if counts.total() <= others.total():
        hint = "align it with a system of these phones, and give the same --case and --stress"
        raise DataError(f"{cuts}: {result}; {hint}", [])
    return result


def _aligned_words(cut_dict: dict) -> Iterator[tuple[str, Pronunciation]]:
    """Yields the words of a line of a manifest, each with the units in its time."""
    alignment = cut_dict["supervisions"][0]["alignment"]
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
