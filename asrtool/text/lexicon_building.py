"""Builds the lexicon of a list of words: looks them up in dictionaries, and predicts the others."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from asrtool.errors import UserError
from asrtool.text.lexicon import (
    Lexicon,
    Pronunciation,
    is_lexicon_word,
    read_lexicon,
    weighted_lexicon,
    without_stress,
)
from asrtool.text.words import shortened

CMUDICT = "cmudict"
MAX_NAMED = 10  # of the words that are left out: enough to see what they are like


@dataclass(frozen=True)
class LexiconReport:
    """The lexicon of a list of words, and the source of its pronunciations."""

    lexicon: Lexicon
    words_by_source: Mapping[str, int]
    left_out: list[str]  # words without a pronunciation, the most frequent first
    left_out_percent: float  # of all occurrences of the words of the list

    def __str__(self) -> str:
        pronunciations = self.lexicon.pronunciations
        sources = ", ".join(f"{count} {name}" for name, count in self.words_by_source.items())
        count = sum(map(len, pronunciations.values()))
        phones = len(self.lexicon.symbols)
        summary = f"{len(pronunciations)} words ({sources}), {count} pronunciations, {phones} phones"
        if not self.left_out:
            return summary
        names = " ".join(map(shortened, self.left_out[:MAX_NAMED]))
        names += " ..." if len(self.left_out) > MAX_NAMED else ""
        return f"{summary}; {len(self.left_out)} left out, {self.left_out_percent:.2f} % of the text: {names}"


def read_dictionary(
    name: str, stress: str = "keep", case: str = "keep", phones: Collection[str] | None = None
) -> Lexicon:
    """Returns the dictionary `name`: "cmudict", or the path of a lexicon file.

    Options and errors as of `read_lexicon`.
    """
    return read_lexicon(cmudict_path() if name == CMUDICT else name, stress, case, phones)


def cmudict_path() -> Path:
    """Returns the path of CMUdict in the package pocketsphinx, which is not imported.

    It has American English, in lower case, without stress.
    """
    package = find_spec("pocketsphinx")
    for folder in (package.submodule_search_locations or ()) if package else ():
        if (path := Path(folder) / "model/en-us/cmudict-en-us.dict").is_file():
            return path
    raise UserError("CMUdict comes with the package pocketsphinx: pip install pocketsphinx, or give --source FILE")


def build_lexicon(
    word_counts: Mapping[str, int], dictionaries: Mapping[str, Lexicon], unknown: str = "drop"
) -> LexiconReport:
    """Returns the pronunciations of the words in `word_counts`, from the first of `dictionaries` that has the word.

    Words that no dictionary has: `unknown` "drop" leaves them out, "characters" takes their characters as phones, "g2p"
    predicts a pronunciation with a model trained on all dictionaries, and leaves out words with letters that these
    lack. Raises UserError when the dictionaries have no word of the list or disagree about stress, or when characters
    would be taken for phones.
    """
    _require_one_stress(dictionaries)
    pronunciations: dict[str, tuple[Pronunciation, ...]] = {}
    words_from: dict[str, list[str]] = {name: [] for name in dictionaries}
    words_by_source: Counter[str] = Counter()
    for word in word_counts:
        if name := next((name for name, lexicon in dictionaries.items() if word in lexicon.pronunciations), None):
            pronunciations[word] = dictionaries[name].pronunciations[word]
            words_from[name].append(word)
            words_by_source[f"from {name}"] += 1
    if dictionaries and not pronunciations:
        raise UserError(_no_overlap(word_counts, dictionaries))
    missing = [word for word in word_counts if word not in pronunciations]
    predictable = [word for word in missing if is_lexicon_word(word) and not word.startswith("<")]  # as <unk> does
    predicted = _predict(predictable, dictionaries, unknown) if predictable and unknown != "drop" else {}
    if predicted:
        words_by_source[f"by {unknown}"] = len(predicted)
        pronunciations |= {word: (pronunciation,) for word, pronunciation in predicted.items()}
    if not pronunciations:
        raise UserError("no words to build a lexicon of; is there text, and a --source or --unknown characters?")
    left_out = [word for word in missing if word not in pronunciations]
    percent = 100 * sum(word_counts[word] for word in left_out) / sum(word_counts.values())
    probabilities: dict[tuple[str, Pronunciation], float] = {}
    for name, words in words_from.items():
        probabilities |= dictionaries[name].only(words).probabilities
    return LexiconReport(Lexicon(pronunciations, probabilities), words_by_source, left_out, percent)


def with_probabilities(lexicon: Lexicon, counts: Mapping[tuple[str, Pronunciation], int]) -> Lexicon:
    """Returns the lexicon with probabilities after the `counts` of its words' pronunciations, the most frequent first.

    A pronunciation with count c has (c + 1) / (m + 1), where m is the largest count of its word: the usual one has 1,
    so that a word is not made less likely by having several, as with --max-normalize in Kaldi. Words that were not
    counted keep their probabilities.
    """
    probabilities = {}
    for word, several in lexicon.pronunciations.items():
        count_of = {pronunciation: counts.get((word, pronunciation), 0) for pronunciation in several}
        if largest := max(count_of.values()):
            probabilities[word] = {pron: (count + 1) / (largest + 1) for pron, count in count_of.items()}
        else:
            probabilities[word] = {pron: lexicon.probability(word, pron) for pron in several}
    return weighted_lexicon(probabilities)


def _require_one_stress(dictionaries: Mapping[str, Lexicon]) -> None:
    """Raises UserError when a vowel occurs both with and without stress."""
    symbols = _all_symbols(dictionaries)
    for symbol in sorted(symbols):
        if (plain := without_stress(symbol)) != symbol and plain in symbols:
            raise UserError(f"the sources have both {symbol} and {plain}, with stress and without; give --stress drop")


def _all_symbols(dictionaries: Mapping[str, Lexicon]) -> set[str]:
    return {symbol for lexicon in dictionaries.values() for symbol in lexicon.symbols}


def _no_overlap(words: Collection[str], dictionaries: Mapping[str, Lexicon]) -> str:
    def example(candidates: Iterable[str]) -> str:
        return shortened(next((word for word in candidates if word.isalpha()), ""))

    theirs = ", ".join(f"{name}'s like '{example(lexicon.pronunciations)}'" for name, lexicon in dictionaries.items())
    return f"none of the {len(words)} words is in a source: they are like '{example(words)}', {theirs}; give --case?"


def _predict(words: list[str], dictionaries: Mapping[str, Lexicon], unknown: str) -> dict[str, Pronunciation]:
    if unknown == "characters":
        return _characters_as_phones(words, _all_symbols(dictionaries))
    from asrtool.text.g2p import predict_pronunciations

    if not dictionaries:
        raise UserError("--unknown g2p learns from a dictionary; give a --source")
    merged: dict[str, tuple[Pronunciation, ...]] = {}
    for lexicon in dictionaries.values():
        merged = lexicon.pronunciations | merged
    return predict_pronunciations(words, Lexicon(merged))


def _characters_as_phones(words: Iterable[str], phones: set[str]) -> dict[str, Pronunciation]:
    if ambiguous := sorted(phones.intersection("".join(words))):
        hint = "give --unknown g2p or drop, or another --case"
        raise UserError(
            f"{' '.join(ambiguous)}: phones of the sources, and letters of words without a pronunciation; {hint}"
        )
    return {word: tuple(word) for word in words}
