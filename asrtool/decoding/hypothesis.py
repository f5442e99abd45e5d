"""What every search returns."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Hypothesis:
    """One decoded token sequence.

    tokens: token ids, without blanks. frames: for each token the index of the output frame (after subsampling) where
    it begins. score: natural log-probability; each search says of what (a path, or all paths of the sequence).
    """

    tokens: list[int]
    frames: list[int]
    score: float
