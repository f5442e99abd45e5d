"""A batch of utterances: padded features, and what the objectives need to know of each."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch

NO_LABEL = -100  # the index that torch leaves out of a cross entropy


@dataclass(frozen=True)
class Position:
    """A place in the data: batch `batch` of the block that begins at line `line` of the epoch's `file`-th file."""

    epoch: int = 0
    file: int = 0
    line: int = 0
    batch: int = 0


class Skipped(NamedTuple):
    """A cut that cannot be in a batch, since it has not even one frame, and why."""

    id: str
    text: str
    speaker: str | None
    reason: str


@dataclass
class Batch:
    """Padded features and targets. Padding is zero and must have no influence on anything.

    Without training, cuts shorter than a frame are in `skipped` alone; N may then be 0.
    """

    position: Position
    after: Position
    ids: list[str]
    texts: list[str]
    features: torch.Tensor  # (N, T, F) float32
    feature_lens: torch.Tensor  # (N,) int64, frames
    targets: torch.Tensor  # (N, U) int64 unit numbers; empty in decoding
    target_lens: torch.Tensor  # (N,) int64
    seconds: float  # audio, padding not counted
    labels: torch.Tensor | None = None  # (N, T) int64 aligned unit of each frame, for objective ce; else NO_LABEL
    speakers: list[str | None] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
