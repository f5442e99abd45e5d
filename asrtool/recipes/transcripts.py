"""The rules by which the transcripts of a new recipe are normalised, and what they do to them."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from asrtool.text.lexicon import Lexicon
from asrtool.text.normalisation import NormalisationRules, count_characters, propose_rules
from asrtool.text.normaliser import Changes, Normaliser
from asrtool.text.words import change_case

Case = Literal["keep", "upper", "lower"]

MAX_CHARACTERS_SHOWN = 12  # of those that the rules remove or replace


@dataclass(frozen=True)
class NormalisedTexts:
    """Transcripts after normalisation; those that the rules drop are left out."""

    rules: NormalisationRules
    texts: list[str]
    changes: Changes

    @property
    def dropped(self) -> int:
        """Number of utterances that the rules drop."""
        return self.changes.dropped.total()

    @property
    def case(self) -> str:
        """The case of the normalised transcripts: "upper", "lower", or "keep" for both or none."""
        letters = Counter("upper" if c.isupper() else "lower" for text in self.texts for c in text if c.isalpha())
        cased = [case for case in ("upper", "lower") if letters[case]]
        has_case = any(c.upper() != c.lower() for text in self.texts[:100] for c in text)
        return cased[0] if len(cased) == 1 and has_case else "keep"

    def __str__(self) -> str:
        """Returns what the rules change, in a phrase."""
        parts = [f"{self.changes.changed:,} of {self.changes.utterances:,} transcripts changed"]
        if self.dropped:
            reasons = ", ".join(f"{count:,} for {why}" for why, count in self.changes.dropped.most_common(3))
            parts.append(f"{self.dropped:,} dropped ({reasons})")
        if characters := self._characters():
            parts.append(f"removed or replaced: {characters}")
        return "; ".join(parts)

    def _characters(self) -> str:
        listed = self.changes.characters.most_common(MAX_CHARACTERS_SHOWN)
        shown = [f"{_shown(old)} {count:,}x" for (old, _), count in listed]
        more = len(self.changes.characters) - len(listed)
        return ", ".join(shown) + (f" and {more} more" if more else "")


def _shown(character: str) -> str:
    return character if character.isprintable() and not character.isspace() else f"U+{ord(character[0]):04X}"


def normalise_texts(texts: Iterable[str], case: Case | None = None) -> NormalisedTexts:
    """Returns the texts of a corpus, normalised by the rules that are proposed for it."""
    texts = list(texts)
    rules = propose_rules(count_characters(texts), case)
    normaliser = Normaliser(rules)
    outcomes = [normaliser.normalise(text) for text in texts]
    left = [outcome.text for outcome in outcomes if not outcome.dropped and not outcome.refused]
    return NormalisedTexts(rules, left, normaliser.changes)


def case_of_lexicon(texts: Iterable[str], lexicon: Lexicon) -> Case:
    """Returns the case in which most words of the texts are in a lexicon: "keep", "upper" or "lower"."""
    words = Counter(word.strip(".,;:!?\"'()") for text in texts for word in text.split())

    def known(case: str) -> int:
        return sum(count for word, count in words.items() if change_case(word, case) in lexicon.pronunciations)

    cases: tuple[Case, ...] = ("keep", "upper", "lower")
    return max(cases, key=known)
