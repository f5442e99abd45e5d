"""The speed of a cut and the utterance that it is a copy of: `asrtool features --speeds` stores copies at other speeds.

lhotse's `perturb_speed` adds a transform Speed to the recording, and "_sp" and the factor to the ids of the cut and
the recording. The transforms say which speed a cut has; an id may end like that by chance.
"""

import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from lhotse import MonoCut

# Without a recording, only the id shows the speed. lhotse's factors have a decimal point; numbers of a corpus do not.
SPEED_SUFFIX = re.compile(r"_sp(\d+\.\d+)$")


class SpeedCopy(NamedTuple):
    """What a cut is a copy of: the ids of the utterance and of its recording at the original speed, and the speed."""

    utterance: str
    recording: str
    speed: float  # 1.0 is the original speed


def speed_copy(cut_dict: dict) -> SpeedCopy:
    """Returns what a line of a manifest is a copy of; the utterance itself at the original speed."""
    name = cut_dict["id"]
    recording = cut_dict.get("recording")
    factors = _factors(name, recording.get("transforms") if recording else None, has_recording=bool(recording))
    recording_name = str((recording or {}).get("id", name))
    return SpeedCopy(_original(name, factors), _original(recording_name, factors), _product(factors))


def speed_of(cut: "MonoCut") -> float:
    """Returns the factor by which the speed of a cut was changed, 1.0 if it was not."""
    transforms = cut.recording.transforms if cut.recording else None
    return _product(_factors(cut.id, transforms, has_recording=cut.has_recording))


def _factors(name: str, transforms: Any, has_recording: bool) -> list[float]:
    """Returns the factors of a cut's changes of speed, in their order; `transforms` as lhotse or JSON has them.

    What is not a transform is passed over: it is reported when the audio is read.
    """
    if not has_recording:
        match = SPEED_SUFFIX.search(name)
        return [float(match[1])] if match else []
    factors = [_factor(transform) for transform in transforms] if isinstance(transforms, list) else []
    return [factor for factor in factors if factor is not None]


def _factor(transform: Any) -> float | None:
    fields = transform.to_dict() if hasattr(transform, "to_dict") else transform
    if not isinstance(fields, dict) or fields.get("name") != "Speed" or not isinstance(fields.get("kwargs"), dict):
        return None
    factor = fields["kwargs"].get("factor")
    return factor if type(factor) in (int, float) else None


def _original(name: str, factors: list[float]) -> str:
    for factor in reversed(factors):
        name = name.removesuffix(f"_sp{factor}")
    return name


def _product(factors: list[float]) -> float:
    speed = 1.0
    for factor in factors:
        speed *= factor
    return round(speed, 6)
