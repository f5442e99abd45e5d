"""The types of values in a configuration, with their limits, and the base class of its sections.

Types are strict: text and bools are not numbers, and numbers are finite. Sizes have bounds far beyond any sensible
model, so that a wrong configuration, or one from a stranger, is refused instead of filling the memory.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter

MAX_COUNT = 10**9  # steps, masks, ...: more than any training has


def _plain_path(path: Path) -> Path:
    if any(ord(character) < 32 for character in str(path)):
        raise ValueError("a path with control characters")
    return path


def path_or(other: Any, optional: bool = False) -> Callable[[Any, Callable[[Any], Any]], Any]:
    """Returns the validator of a value that is a path or of the type `other`, and None if it is `optional`.

    The error is about the type which the value looks like; pydantic would list the errors of both.
    """

    def validate(value: Any, _usual: Callable[[Any], Any]) -> Any:
        if optional and value is None:
            return None
        is_path = not isinstance(value, list | tuple | dict)
        if not is_path and not value:
            raise ValueError("it is empty; leave it out, or name a file")
        return TypeAdapter(FilePath if is_path else other).validate_python(value)

    return validate


Integer = Annotated[int, Field(strict=True)]
Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Flag = Annotated[bool, Field(strict=True)]
FilePath = Annotated[Path, AfterValidator(_plain_path)]
PositiveInteger = Annotated[Integer, Field(gt=0, le=MAX_COUNT)]
NonNegativeInteger = Annotated[Integer, Field(ge=0, le=MAX_COUNT)]
Seed = Annotated[Integer, Field(ge=0, lt=2**63)]  # torch takes seeds below 2**64, so that seed + rank is one, too
PositiveReal = Annotated[Real, Field(gt=0)]
NonNegativeReal = Annotated[Real, Field(ge=0)]
Probability = Annotated[Real, Field(ge=0, le=1)]
FractionBelowOne = Annotated[Real, Field(ge=0, lt=1)]
Duration = Annotated[Real, Field(gt=0, le=1e7)]  # in seconds, up to four months
Decibel = Annotated[Real, Field(ge=-200, le=200)]  # audio of 24 bits has a range of 144 dB
Gain = Annotated[Real, Field(gt=0, le=1000)]
Speed = Annotated[Real, Field(gt=0.3, lt=3)]
Masks = Annotated[Integer, Field(ge=0, le=1000)]  # drawn for every utterance; published recipes have up to 20
Dropout = Annotated[Real, Field(ge=0, le=0.95)]  # a probability p; the values that remain are divided by 1 - p
Context = Annotated[Integer, Field(ge=0, le=100_000)]  # frames; an hour has 90,000 of 40 ms
# Frames of a chunk, or of its look-ahead; 2000 of 40 ms are 80 s, where 1 s is usual
Chunk = Annotated[Integer, Field(ge=0, le=2000)]
ContextPerLayer = Context | Annotated[tuple[Context, ...], Field(max_length=1000)] | None


class Section(BaseModel):
    """A part of the configuration: it is frozen, and refuses keys that are not declared."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def require_ranges(section: Section, *names: str) -> None:
    """Raises ValueError if one of these values is a range whose upper end comes first."""
    for name in names:
        limits = getattr(section, name)
        if limits and limits[0] > limits[1]:
            raise ValueError(f"{name} is a range, its lower end first, not {list(limits)}")
