"""The lexicon of a list of words: looked up in dictionaries, then guessed or spelled."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from asrtool.errors import UserError
from asrtool.text.lexicon import Lexicon, Pronunciation, is_word, read_lexicon, without_stress
from asrtool.text.words import shortened

CMUDICT = "cmudict"
NAMED = 10  # words that are left out are named up to here: enough to see what they are like


@dataclass(frozen=True)
class Found:
    """The lexicon of a list of words, and where it comes from."""

    lexicon: Lexicon
    origins: Mapping[str, int]  # words by source
    left_out: list[str]  # the most frequent first
    occurrences: float  # of those left out, in percent of all of the list

    def __str__(self) -> str:
        words = self.lexicon.pronunciations
        origins = ", ".join(f"{count} {name}" for name, count in self.origins.items())
        ways = sum(map(len, words.values()))
        made = f"{len(words)} words ({origins}), {ways} pronunciations, {len(self.lexicon.symbols)} phones"
        if not self.left_out:
            return made
        names = " ".join(map(shortened, self.left_out[:NAMED])) + (" ..." if len(self.left_out) > NAMED else "")
        return f"{made}; {len(self.left_out)} left out, {self.occurrences:.2f} % of the text: {names}"


def read_source(name: str, stress: str = "keep", case: str = "keep", phones: Collection[str] | None = None) -> Lexicon:
    """The dictionary `name`: "cmudict", or the path of a lexicon file. Options and errors are `read_lexicon`'s."""
    return read_lexicon(cmudict_path() if name == CMUDICT else name, stress, case, phones)


def cmudict_path() -> Path:
    """CMUdict (American English, lower case, no stress) in the package pocketsphinx, which need not be imported."""
    package = find_spec("pocketsphinx")
    for folder in package.submodule_search_locations if package else []:
        if (path := Path(folder) / "model/en-us/cmudict-en-us.dict").is_file():
            return path
    raise UserError("CMUdict comes with the package pocketsphinx: pip install pocketsphinx, or give --source FILE")


def pronounce(words: Mapping[str, int], sources: Mapping[str, Lexicon], unknown: str = "drop") -> Found:
    """The pronunciations of `words` (with their occurrences), each word's from the first of `sources` that has it.

    Words that none has: `unknown` "drop" leaves them out, "characters" spells them, "g2p" guesses by what it learns
    from all sources, and leaves out those with letters that these have not. Raises UserError when the sources have no
    word of the list or disagree about stress, or when characters would be taken for phones.
    """
    _check_stress(sources)
    found: dict[str, tuple[Pronunciation, ...]] = {}
    origins: Counter[str] = Counter()
    for word in words:
        if name := next((name for name, source in sources.items() if word in source.pronunciations), None):
            found[word] = sources[name].pronunciations[word]
            origins[f"from {name}"] += 1
    if sources and not found:
        raise UserError(_no_overlap(words, sources))
    rest = [word for word in words if word not in found and is_word(word) and not word.startswith("<")]  # as in <unk>
    guessed = _guess(rest, sources, unknown) if rest and unknown != "drop" else {}
    if guessed:
        origins[f"by {unknown}"] = len(guessed)
        found |= {word: (way,) for word, way in guessed.items()}
    if not found:
        raise UserError("no words to make a lexicon of; is there text, and a --source or --unknown characters?")
    left_out = [word for word in words if word not in found]
    share = 100 * sum(words[word] for word in left_out) / sum(words.values())
    return Found(Lexicon(found), origins, left_out, share)


def _check_stress(sources: Mapping[str, Lexicon]) -> None:
    symbols = _symbols(sources)
    for symbol in sorted(symbols):
        if (plain := without_stress(symbol)) != symbol and plain in symbols:
            raise UserError(f"the sources have both {symbol} and {plain}, with stress and without; give --stress drop")


def _symbols(sources: Mapping[str, Lexicon]) -> set[str]:
    return {symbol for source in sources.values() for symbol in source.symbols}


def _no_overlap(words: Mapping[str, int], sources: Mapping[str, Lexicon]) -> str:
    def example(of: Iterable[str]) -> str:
        return shortened(next((word for word in of if word.isalpha()), ""))

    theirs = ", ".join(f"{name}'s like '{example(source.pronunciations)}'" for name, source in sources.items())
    return f"none of the {len(words)} words is there: they are like '{example(words)}', {theirs}; give --case?"


def _guess(words: list[str], sources: Mapping[str, Lexicon], unknown: str) -> dict[str, Pronunciation]:
    if unknown == "characters":
        return _spell(words, _symbols(sources))
    from asrtool.text.g2p import guess

    if not sources:
        raise UserError("--unknown g2p learns from a dictionary; give a --source")
    return guess(words, _join(sources.values()))


def _spell(words: Iterable[str], phones: set[str]) -> dict[str, Pronunciation]:
    if both := sorted(phones.intersection("".join(words))):
        hint = "give --unknown g2p or drop, or another --case"
        raise UserError(f"{' '.join(both)}: phones of the sources, and letters of words that they have not; {hint}")
    return {word: tuple(word) for word in words}


def _join(sources: Iterable[Lexicon]) -> Lexicon:
    joined: dict[str, tuple[Pronunciation, ...]] = {}
    for source in sources:
        joined = source.pronunciations | joined
    return Lexicon(joined)
