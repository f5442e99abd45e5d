"""What every search returns."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Hypothesis:
    """One decoded token sequence, and what a graph adds to it.

    tokens: token ids, without blanks. frames: for each token the index of the output frame (after subsampling) where
    it begins. score: natural log-probability; each search says of what (a path, or all paths of the sequence).

    words: those of the graph's output labels; None where the tokens spell the text. word_frames: for each word the
    frame in which the graph put it out, which is within the word or just behind it. complete: whether the path ends in
    a final state; if not, this is the best partial one. others: further hypotheses, best first. lattice: its lines in
    Kaldi's text format, where one was asked for.
    """

    tokens: list[int]
    frames: list[int]
    score: float
    words: list[str] | None = None
    word_frames: list[int] = field(default_factory=list)
    complete: bool = True
    others: tuple["Hypothesis", ...] = ()
    lattice: str = ""

    def among(self, others: Sequence["Hypothesis"]) -> "Hypothesis":
        """This one, with further hypotheses behind it."""
        return replace(self, others=tuple(others)) if others else self
