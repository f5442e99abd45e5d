"""Proposal of the rules by which a corpus is normalised, from the counts of its characters, in any language."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal

from asrtool.text.characters import (
    APOSTROPHE,
    APOSTROPHES,
    JOINERS,
    SILENT_MARKS,
    WORD_MARKS,
    is_cjk,
    is_digit,
    is_joining,
    is_letter,
    is_symbol,
)
from asrtool.text.normalisation_rules import NormalisationRules, load_rules, rules_text, write_rules
from asrtool.text.normaliser import Normaliser

Case = Literal["keep", "lower", "upper"]

__all__ = ["NormalisationRules", "count_characters", "load_rules", "propose_rules", "rules_text", "write_rules"]

MIN_COUNT = 3  # a character that occurs less often is a slip or a foreign word, and cannot be learned
MAX_RARE_SHARE = 0.001  # of all characters that may be rare; beyond it the corpus is small, and all are listed
SAME_CASE_SHARE = 0.99  # of the letters with a case, above which a corpus is regarded as upper-case or lower-case only
DIGITS_SHARE = 0.3  # of letters and digits, above which digits are the transcript itself, such as "0 1 1 0"
SPACE_SHARE = 0.05  # of the characters of Chinese or Japanese text, below which it is written without spaces

SIGMA, FINAL_SIGMA = "σς"  # the lower case of Σ at the end of a word is the latter
TURKISH_I = {"I": "ı", "İ": "i"}  # which Unicode's lower case does otherwise


def count_characters(texts: Iterable[str]) -> Counter[str]:
    """Returns how often each character occurs in texts, in Unicode's composed form (NFC)."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(unicodedata.normalize("NFC", text))
    return counts


def propose_rules(character_counts: Mapping[str, int], case: Case | None = None) -> NormalisationRules:
    """Returns rules for a corpus of any language; `character_counts` are the `count_characters` of its transcripts.

    Punctuation is removed except apostrophes and similar marks within words, text of mixed case becomes lower case
    unless `case` says "keep", "lower" or "upper", and utterances with digits, spoken symbols or rare characters are
    dropped.
    """
    counts = Counter(dict(character_counts))
    chosen = case or _propose_case(counts)
    rules = NormalisationRules(
        replace=_propose_replacements(counts, chosen),
        tags="remove" if counts["["] or counts["<"] else "keep",
        quotes="unify",
        dashes="unify",
        digits="keep" if _are_digits_the_text(counts) else "drop",
        symbols="drop",
        punctuation="remove",
        keep_in_words=APOSTROPHE + _propose_word_marks(counts),
        case=chosen,
        separate_cjk=_is_unspaced_cjk(counts),
    )
    characters = _frequent_characters(counts, rules)
    return rules.model_copy(update={"characters": characters, "other_characters": "drop"}) if characters else rules


def _propose_case(counts: Counter[str]) -> Case:
    upper = sum(count for character, count in counts.items() if character.isupper())
    lower = sum(count for character, count in counts.items() if character.islower())
    one_case = max(upper, lower) >= SAME_CASE_SHARE * (upper + lower)
    if not one_case:
        return "lower"
    return "keep" if not upper or not lower else "upper" if upper > lower else "lower"


def _propose_replacements(counts: Counter[str], case: str) -> dict[str, str]:
    replacements = {mark: "" for mark in SILENT_MARKS if counts[mark]}
    if case == "lower" and (counts["ı"] or counts["İ"]) and (counts["ş"] or counts["Ş"]):  # Turkish, Azerbaijani
        replacements |= TURKISH_I
    return replacements


def _propose_word_marks(counts: Counter[str]) -> str:
    """Returns the marks of the transcripts that are part of words. A dot in Chinese and Japanese parts names."""
    return "" if _is_unspaced_cjk(counts) else "".join(mark for mark in WORD_MARKS if counts[mark])


def _are_digits_the_text(counts: Counter[str]) -> bool:
    digits = sum(count for character, count in counts.items() if is_digit(character))
    letters = sum(count for character, count in counts.items() if is_letter(character))
    return digits > DIGITS_SHARE * (letters + digits)


def _is_unspaced_cjk(counts: Counter[str]) -> bool:
    cjk = sum(count for character, count in counts.items() if is_cjk(character))
    letters = sum(count for character, count in counts.items() if is_letter(character))
    spaces = sum(count for character, count in counts.items() if character.isspace())
    return cjk > letters / 2 and spaces < SPACE_SHARE * cjk


def _frequent_characters(counts: Counter[str], rules: NormalisationRules) -> str:
    """Returns the characters that the rules leave and that are not rare, separated by spaces."""
    normaliser = Normaliser(rules)
    left: Counter[str] = Counter()
    for character, count in counts.items():
        for result in normaliser.change(character).replace(" ", ""):
            if not is_symbol(result) and (rules.digits == "keep" or not is_digit(result)):
                left[result] += count
    for mark in _characters_of_words(counts, rules):
        left[mark] = max(left[mark], MIN_COUNT)
    if rules.case == "lower" and left[SIGMA]:
        left[FINAL_SIGMA] = max(left[FINAL_SIGMA], MIN_COUNT)
    rare = {character for character, count in left.items() if count < MIN_COUNT}
    if sum(left[character] for character in rare) > MAX_RARE_SHARE * left.total():
        rare = set()
    return " ".join(sorted(set(left) - rare, key=lambda c: (unicodedata.category(c)[0] == "M", c)))


def _characters_of_words(counts: Counter[str], rules: NormalisationRules) -> str:
    """Returns the characters that are left within words only: apostrophes, other such marks, and joiners."""
    marks = "".join(mark for mark in rules.keep_in_words if counts[mark])
    if any(counts[apostrophe] for apostrophe in APOSTROPHES):
        marks += APOSTROPHE
    if any(map(is_joining, counts)):
        marks += "".join(joiner for joiner in JOINERS if counts[joiner])
    return marks
