"""Checks of the lines of a manifest before anything relies on them, without making lhotse objects.

`field_problem` checks the types and ranges of the fields that asrtool reads; it costs about 2 us a line. `cut_problem`
and `EntryChecks` detect cuts that are well formed but would be misread: as the wrong transcript or the wrong cut.
"""

from collections.abc import Callable
from typing import Any

MAX_CUT_SECONDS = 3600.0  # of a cut that is read at once unless a command allows more: 230 MB of samples at 16 kHz
SUPERVISION_TOLERANCE = 0.1  # seconds at either end that a transcript need not cover: a breath, or a rounded time
MAX_DURATION = 1e9  # seconds, 30 years; beyond it a duration is a mistake, and its number of samples too large
MIN_SAMPLING_RATE, MAX_SAMPLING_RATE = 1000, 384_000  # Hz, as of `asrtool prepare`


def _is_number(value: Any) -> bool:
    """Returns True for a finite number of seconds. It only compares: an integer may be too large for a float."""
    return type(value) in (int, float) and -MAX_DURATION < value < MAX_DURATION


def _is_length(value: Any) -> bool:
    return _is_number(value) and value > 0


def _is_offset(value: Any) -> bool:
    return _is_number(value) and value >= 0  # lhotse reads from the end of the file before its beginning


def _is_rate(value: Any) -> bool:
    return type(value) in (int, float) and MIN_SAMPLING_RATE <= value <= MAX_SAMPLING_RATE and value == int(value)


def _is_channel(value: Any) -> bool:
    return value is None or type(value) is int and 0 <= value < 1 << 16


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_name(value: Any) -> bool:
    return type(value) is str and value != ""


def _is_dict(value: Any) -> bool:
    return type(value) is dict


def _are_dicts(value: Any) -> bool:
    return type(value) is list and all(type(item) is dict for item in value)


def _are_sources(value: Any) -> bool:
    return _are_dicts(value) and len(value) > 0


def _or_none(is_valid: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or is_valid(value)


FieldChecks = dict[str, Callable[[Any], bool]]

CUT: FieldChecks = {
    "id": _is_name,
    "duration": _is_length,
    "start": _or_none(_is_offset),
    "channel": _is_channel,
    "supervisions": _or_none(_are_dicts),
    "recording": _or_none(_is_dict),
    "features": _or_none(_is_dict),
}
SUPERVISION: FieldChecks = {
    "start": _or_none(_is_number),
    "duration": _or_none(_is_number),
    "text": _or_none(_is_text),
    "speaker": _or_none(_is_text),
    "alignment": _or_none(_is_dict),
}
RECORDING: FieldChecks = {"sampling_rate": _is_rate, "sources": _are_sources, "duration": _is_length}
FEATURES: FieldChecks = {"sampling_rate": _is_rate, "storage_type": _is_text}


def field_problem(cut_dict: Any) -> str | None:
    """Returns why a line is not a cut, in words that follow its number; None if asrtool can read its fields."""
    if type(cut_dict) is not dict:
        return f"is a {type(cut_dict).__name__}"
    if (kind := cut_dict.get("type")) != "MonoCut":
        return f"is a {kind[:30]}" if type(kind) is str else "has no type"
    if problem := _invalid_field(cut_dict, CUT, ""):
        return problem
    for supervision in cut_dict.get("supervisions") or ():
        if problem := _invalid_field(supervision, SUPERVISION, "supervision's "):
            return problem
    for name, checks in (("recording", RECORDING), ("features", FEATURES)):
        if cut_dict.get(name) and (problem := _invalid_field(cut_dict[name], checks, f"{name}'s ")):
            return problem
    return None


def _invalid_field(cut_dict: dict, checks: FieldChecks, owner: str) -> str | None:
    for name, is_valid in checks.items():
        if not is_valid(cut_dict.get(name)):
            value = repr(cut_dict.get(name))[:50]
            return f"has {value} as its {owner}{name}" if name in cut_dict else f"has no {owner}{name}"
    return None


def cut_problem(cut_dict: dict) -> str | None:
    """Returns why a line's cut would be misread: its transcript does not fit its audio. The text follows the id."""
    if not (cut_dict.get("recording") or cut_dict.get("features")):
        return "no recording and no features"
    supervisions = cut_dict.get("supervisions") or ()
    if len(supervisions) > 1:
        return f"{len(supervisions)} supervisions; run `asrtool prepare lhotse`, which makes a cut of each"
    for supervision in supervisions:
        start = supervision.get("start") or 0.0
        end = start + (supervision.get("duration") or 0.0)
        if start > SUPERVISION_TOLERANCE or end < cut_dict["duration"] - SUPERVISION_TOLERANCE:
            span = f"{start:.2f} to {end:.2f} s of the cut's {cut_dict['duration']:.2f} s"
            return f"its supervision covers {span}; run `asrtool prepare lhotse`, which makes a cut of it"
    return None


def overhang_problem(cut_dict: dict) -> str | None:
    """Returns why a cut is not trained on: its transcript extends beyond it, as in windows of a longer cut."""
    for supervision in cut_dict.get("supervisions") or ():
        start = supervision.get("start") or 0.0
        end = start + (supervision.get("duration") or 0.0)
        if start < -SUPERVISION_TOLERANCE or end > cut_dict["duration"] + SUPERVISION_TOLERANCE:
            return "its supervision goes beyond the cut, which has a part of the transcript's audio"
    return None


def length_problem(seconds: float, max_seconds: float | None) -> str | None:
    """Returns why a cut of so many seconds is not read; None if it is short enough, or there is no limit."""
    if max_seconds is None or seconds <= max_seconds:
        return None
    minutes = f"{seconds / 60:.1f}" if seconds >= 60 else f"{seconds / 60:.3g}"  # 0.0 would hide why
    return f"{minutes} minutes long, more than --max-minutes {max_seconds / 60:g}; cut it into shorter ones"


class EntryChecks:
    """Checks the lines of one manifest, one after the other; remembers their ids (about 60 bytes each)."""

    def __init__(self, max_seconds: float | None = None):
        self._max_seconds = max_seconds
        self._hashes_of_ids: set[int] = set()

    def problem(self, cut_dict: dict) -> str | None:
        """Returns what is wrong with the cut of this line, in words that follow its id."""
        hash_of_id = hash(cut_dict["id"])  # 64 bits: a million ids share one by accident once in 40 million manifests
        if hash_of_id in self._hashes_of_ids:
            return "duplicate id"
        self._hashes_of_ids.add(hash_of_id)
        return cut_problem(cut_dict) or length_problem(cut_dict["duration"], self._max_seconds)
