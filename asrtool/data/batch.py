"""A batch of utterances: padded features, and what the objectives need to know of each utterance."""

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch

WHOLE_BATCH_FIELDS = {"position", "next_position", "seconds", "skipped"}  # all others have an entry per utterance
NO_LABEL = -100  # the index that torch's cross entropy leaves out


class CorpusPosition(NamedTuple):
    """The next line of one of several corpora: line `line` of file `file` of pass `epoch` over it, all from 0."""

    epoch: int = 0
    file: int = 0
    line: int = 0


@dataclass(frozen=True)
class Position:
    """A place in the training data: number `batch` of the block that begins at line `line` of file `file` of an epoch.

    All numbers count from 0; files are numbered in the epoch's order. Where several corpora are mixed, `line` is the
    number of cuts of the epoch before the block, and `corpora` has where the block begins in each of them.
    """

    epoch: int = 0
    file: int = 0
    line: int = 0
    batch: int = 0
    corpora: tuple[CorpusPosition, ...] = ()


class SkippedCut(NamedTuple):
    """A cut that is shorter than one frame, so that it cannot be in a batch."""

    id: str
    text: str
    speaker: str | None
    reason: str


@dataclass(kw_only=True)
class Batch:
    """Padded features and targets of N utterances. Padding is zero and must have no influence on anything.

    Without training, cuts shorter than a frame are listed in `skipped` alone; N may then be 0.
    """

    position: Position = Position()
    next_position: Position = Position()  # where the data goes on after every rank's batch of this round
    ids: list[str]
    texts: list[str]
    features: torch.Tensor  # (N, T, F) float32
    feature_lens: torch.Tensor  # (N,) int64, in frames
    targets: torch.Tensor  # (N, U) int64 numbers of units; (N, 0) in decoding
    target_lens: torch.Tensor  # (N,) int64
    seconds: float  # of audio, without padding
    labels: torch.Tensor | None = None  # (N, T) int64 aligned unit of each frame or NO_LABEL; for objective ce
    speakers: list[str | None] = field(default_factory=list)
    corpora: list[int] = field(default_factory=list)  # number of the training corpus of each utterance
    skipped: list[SkippedCut] = field(default_factory=list)

    def pin_memory(self) -> "Batch":
        """Returns the batch with all tensors in pinned memory, from which a GPU copies while it computes.

        torch's DataLoader, created with pin_memory, calls this in a thread, with arrays instead of tensors.
        """
        pinned: dict[str, Any] = {
            name: torch.as_tensor(value).pin_memory()
            for name, value in vars(self).items()
            if isinstance(value, np.ndarray | torch.Tensor)
        }
        return replace(self, **pinned)

    def select(self, rows: slice) -> "Batch":
        """Returns the batch of some of the utterances, with their share of the frames as the share of the seconds."""
        selected: dict[str, Any] = {}
        for name, values in vars(self).items():
            if name not in WHOLE_BATCH_FIELDS:
                selected[name] = None if values is None else values[rows]
        share = float(self.feature_lens[rows].sum() / self.feature_lens.sum().clamp(min=1))
        return replace(self, **selected, seconds=self.seconds * share)
