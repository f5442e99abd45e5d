"""What must be right with the lines of a manifest before anything relies on them, checked without making objects.

`field_problem` looks at the types and ranges of the fields that asrtool reads; it costs about 2 us a line. `cut_problem`
and `EntryChecks` find cuts that are well formed but would be misread: as the wrong transcript or the wrong cut.
"""

from collections.abc import Callable
from typing import Any

MAX_CUT_SECONDS = 3600.0  # of a cut that is read at once unless a command allows more: 230 MB of samples at 16 kHz
SUPERVISION_TOLERANCE = 0.1  # seconds at either end that a transcript need not cover: a breath, or a rounded time
MOST_SECONDS = 1e9  # beyond that, 30 years, a duration is a mistake, and its number of samples not a sane integer
MIN_SAMPLING_RATE, MAX_SAMPLING_RATE = 1000, 384_000  # as of `asrtool prepare`: no filterbank below, no recorder above


def _is_number(value: Any) -> bool:
    """Whether it is a finite number of seconds. Comparisons alone: an integer may be too large for a float."""
    return type(value) in (int, float) and -MOST_SECONDS < value < MOST_SECONDS


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


def _or_none(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or is_right(value)


Fields = dict[str, Callable[[Any], bool]]

CUT: Fields = {"id": _is_name, "duration": _is_length, "start": _or_none(_is_offset), "channel": _is_channel}
CUT |= {"supervisions": _or_none(_are_dicts), "recording": _or_none(_is_dict), "features": _or_none(_is_dict)}
SUPERVISION: Fields = {"start": _or_none(_is_number), "duration": _or_none(_is_number), "text": _or_none(_is_text)}
SUPERVISION |= {"speaker": _or_none(_is_text), "alignment": _or_none(_is_dict)}
RECORDING: Fields = {"sampling_rate": _is_rate, "sources": _are_sources, "duration": _is_length}
FEATURES: Fields = {"sampling_rate": _is_rate, "storage_type": _is_text}


def field_problem(tree: Any) -> str | None:
    """What keeps a line from being a cut, in words that follow its number; None when asrtool can read its fields."""
    if type(tree) is not dict:
        return f"is a {type(tree).__name__}"
    if (kind := tree.get("type")) != "MonoCut":
        return f"is a {kind[:30]}" if type(kind) is str else "has no type"
    if problem := _wrong(tree, CUT, ""):
        return problem
    for supervision in tree.get("supervisions") or ():
        if problem := _wrong(supervision, SUPERVISION, "supervision's "):
            return problem
    for name, fields in (("recording", RECORDING), ("features", FEATURES)):
        if tree.get(name) and (problem := _wrong(tree[name], fields, f"{name}'s ")):
            return problem
    return None


def _wrong(tree: dict, fields: Fields, whose: str) -> str | None:
    for name, is_right in fields.items():
        if not is_right(tree.get(name)):
            return f"has {repr(tree[name])[:50]} as its {whose}{name}" if name in tree else f"has no {whose}{name}"
    return None


def cut_problem(tree: dict) -> str | None:
    """Why the cut of a line would be misread, in words that follow its id: its transcript is not that of its audio."""
    if not (tree.get("recording") or tree.get("features")):
        return "no recording and no features"
    supervisions = tree.get("supervisions") or ()
    if len(supervisions) > 1:
        return f"{len(supervisions)} supervisions; run `asrtool prepare lhotse`, which makes a cut of each"
    for supervision in supervisions:
        start, seconds = supervision.get("start") or 0.0, supervision.get("duration") or 0.0
        if start > SUPERVISION_TOLERANCE or start + seconds < tree["duration"] - SUPERVISION_TOLERANCE:
            span = f"{start:.2f} to {start + seconds:.2f} s of the cut's {tree['duration']:.2f} s"
            return f"its supervision covers {span}; run `asrtool prepare lhotse`, which makes a cut of it"
    return None


def overhang_problem(tree: dict) -> str | None:
    """Why a cut is not trained on: its transcript goes on behind its end, as in windows of a longer cut."""
    for supervision in tree.get("supervisions") or ():
        start, end = supervision.get("start") or 0.0, tree["duration"] + SUPERVISION_TOLERANCE
        if start < -SUPERVISION_TOLERANCE or start + (supervision.get("duration") or 0.0) > end:
            return "its supervision goes beyond the cut, which has a part of the transcript's audio"
    return None


def length_problem(seconds: float, longest: float | None) -> str | None:
    """Why a cut of so many seconds is not read; None when it is short enough, or there is no limit."""
    if longest is None or seconds <= longest:
        return None
    return f"{seconds / 60:.1f} minutes long, more than --max-minutes {longest / 60:g}; cut it into shorter ones"


class EntryChecks:
    """Looks at the lines of one manifest, one after the other; remembers their ids (about 60 bytes each)."""

    def __init__(self, longest: float | None = None):
        self._longest, self._seen = longest, set()

    def problem(self, tree: dict) -> str | None:
        """What is wrong with the cut of this line, in words that follow its id."""
        name = hash(tree["id"])  # 64 bits: a million ids share one by accident once in 40 million manifests
        if name in self._seen:
            return "duplicate id"
        self._seen.add(name)
        return cut_problem(tree) or length_problem(tree["duration"], self._longest)
