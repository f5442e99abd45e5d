"""The result of every search."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch


@dataclass(frozen=True)
class Hypothesis:
    """A decoded token sequence, and what a graph adds to it.

    tokens: token ids, without blanks. frames: for each token the index of the output frame (after subsampling) where
    it begins. score: natural log-probability; each search defines of what (a path, or all paths of the sequence).

    words: the output labels of a graph; None where the tokens themselves make the text. word_frames: for each word the
    frame in which the graph emitted it, which is within the word or just after it. complete: whether the path ends in
    a final state; if not, this is the best partial path. others: further hypotheses, best first. lattice: its lines in
    Kaldi's text format, where one was asked for. word_posteriors: the posterior of each word in the lattice; None where
    the search has no lattice.
    """

    tokens: list[int]
    frames: list[int]
    score: float
    words: list[str] | None = None
    word_frames: list[int] = field(default_factory=list)
    complete: bool = True
    others: tuple["Hypothesis", ...] = ()
    lattice: str = ""
    word_posteriors: list[float] | None = None

    def with_others(self, others: Sequence["Hypothesis"]) -> "Hypothesis":
        """Returns this hypothesis with further ones as `others`."""
        return replace(self, others=tuple(others)) if others else self


# log-probs (N, T, V) and lengths (N,) -> a hypothesis of each utterance
Search = Callable[[torch.Tensor, torch.Tensor], list[Hypothesis]]
