"""Lexicons: words and how they are pronounced, in units of the acoustic model."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Lexicon:
    """`pronunciations[word]`: one or more sequences of unit symbols, the usual one first."""

    pronunciations: dict[str, tuple[tuple[str, ...], ...]]

    @property
    def symbols(self) -> list[str]:
        """All symbols that occur, sorted."""
        return sorted({symbol for ways in self.pronunciations.values() for way in ways for symbol in way})
