"""The state of a training beside weights and optimizer: its progress, and what each rank counts for itself."""

import hashlib
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from asrtool.config_data import MAX_LISTED
from asrtool.config_types import Integer, NonNegativeInteger, NonNegativeReal, Real
from asrtool.data.batch import Batch, CorpusPosition, Position
from asrtool.training.checkpoint_folder import rank_by_loss
from asrtool.training.guards import LossGuard

Index = NonNegativeInteger
CorpusPositions = Annotated[tuple[tuple[Index, Index, Index], ...], Field(max_length=MAX_LISTED)]
# Epoch, file, line, batch and, of several corpora, where each is
POSITION: TypeAdapter = TypeAdapter(
    tuple[Index, Index, Index, Index] | tuple[Index, Index, Index, Index, CorpusPositions]
)


@dataclass
class TrainingProgress:
    """How far a training is. It is the same on all ranks, and saved in checkpoints."""

    step: NonNegativeInteger = 0
    position: Position = field(default_factory=Position)  # of the next batch in the data
    seconds: NonNegativeReal = 0.0  # audio consumed by all ranks
    dev_losses: dict[Integer, Real] = field(default_factory=dict)  # by step
    initialised_from: str | None = None  # path of another training's checkpoint
    earlier_trainings: NonNegativeInteger = 0  # that led to the weights it started from, one after another
    manifest: str = ""  # fingerprint of data.train and data.exclude
    other_manifests: dict[str, str] = field(default_factory=dict)  # fingerprints of dev sets and noise, by key and path

    def to_dict(self) -> dict[str, Any]:
        """Returns plain types for a checkpoint."""
        position = self.position
        values: list[Any] = [position.epoch, position.file, position.line, position.batch]
        if position.corpora:
            values.append([list(corpus) for corpus in position.corpora])
        return {**vars(self), "position": values}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainingProgress":
        """Returns the progress that `to_dict` saved. Raises ValueError or others for anything else."""
        epoch, file, line, batch, *more = POSITION.validate_python(values["position"])
        corpora = tuple(CorpusPosition(*corpus) for corpus in more[0]) if more else ()
        position = Position(epoch, file, line, batch, corpora)
        return TypeAdapter(cls).validate_python({**values, "position": position})

    def patience_is_over(self, patience: int | None) -> bool:
        """Returns True if the last `patience` validations had no better dev loss than an earlier one."""
        ranked = rank_by_loss(self.dev_losses)
        if patience is None or not ranked:
            return False
        return sum(step > ranked[0] for step in self.dev_losses) >= patience


@dataclass
class RankState:
    """What each rank counts for itself. A checkpoint has the state of every rank."""

    guard: LossGuard = field(default_factory=LossGuard)
    # Values of the steps since the last report (see Meter); NaN is possible in bad steps
    unreported: list[dict[str, Annotated[float, Field(strict=True)]]] = field(default_factory=list)
    unsynced_seconds: NonNegativeReal = 0.0  # audio that is not yet in `TrainingProgress.seconds`
    digest: str = ""  # of the ids of all cuts so far, in their order

    def count_batch(self, batch: Batch) -> None:
        """Counts the audio and the cuts of a batch."""
        self.unsynced_seconds += batch.seconds
        self.digest = hashlib.blake2b(repr((self.digest, batch.ids)).encode(), digest_size=16).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Returns plain types for a checkpoint."""
        return {**vars(self), "guard": vars(self.guard)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RankState":
        """Returns the state that `to_dict` saved. Raises ValueError or others for anything else."""
        return TypeAdapter(cls).validate_python(values)


@dataclass(frozen=True)
class StepActions:
    """What all ranks do after a step."""

    stop: bool = False
    roll_back: bool = False
    validate: bool = False
    save: bool = False
