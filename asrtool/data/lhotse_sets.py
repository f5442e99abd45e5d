"""Manifests of lhotse as objects, read line by line through the gate of asrtool/data/sources.py."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from lhotse import CutSet, Recording, RecordingSet, SupervisionSegment, SupervisionSet
from lhotse.cut import Cut

from asrtool.data.sources import InvalidEntry, deserialize_entry
from asrtool.errors import UserError, require_file
from asrtool.readers import parse_json, read_byte_lines

KINDS = {"cuts": Cut, "recordings": Recording, "supervisions": SupervisionSegment}
SUFFIXES = (".jsonl", ".jsonl.gz")
TEXTS = {"recording_id", "speaker", "text", "language", "gender", "storage_type", "storage_path"}
NUMBERS = {"start", "duration", "frame_shift"}  # seconds
COUNTS = {"sampling_rate", "num_samples", "num_frames", "num_features"}
CHANNELS = {"channel", "channels"}
FREE = {"alignment", "custom", "kwargs"}  # fields whose contents are anything
MOST_REPEATED = 100_000  # ids: a small compressed file may repeat a line many million times
MOST = 1e12  # of a number: beyond that it is a mistake, and too large for what is computed from it


def open_cuts(path: Path) -> CutSet:
    """A manifest of cuts, opened lazily; UserError when it is missing, empty or not one, also later, for any line."""
    cuts = CutSet(_Cuts(Path(path)))
    if next(iter(cuts), None) is None:
        raise UserError(f"manifest is empty: {path}; make it again with `asrtool prepare`")
    return cuts


class _Cuts:
    """The cuts of a manifest, as often as they are asked for."""

    def __init__(self, path: Path):
        self.path = path

    def __iter__(self) -> Iterator[Cut]:
        for where, cut in read_items(self.path, "cuts", "make it with `asrtool prepare`"):
            if isinstance(cut, InvalidEntry):
                raise UserError(f"{where}: {cut}")
            yield cut


def read_lhotse(cuts: Path | None, recordings: Path | None, supervisions: Path | None) -> Iterable[Cut | str]:
    """The cuts of lhotse manifests: a CutSet, or recordings and supervisions; and a line for each entry that is wrong.

    Raises UserError for files that are missing, or not manifests of this kind.
    """
    for path in filter(None, (cuts, recordings, supervisions)):
        _require_manifest(path, "give a lhotse *.jsonl.gz file")
    if cuts:
        return _cuts_or_problems(cuts)
    if not (recordings and supervisions):
        raise UserError("give --cuts, or both --recordings and --supervisions")
    return _joined(recordings, supervisions)


def _cuts_or_problems(path: Path) -> Iterator[Cut | str]:
    for where, cut in read_items(path, "cuts"):
        yield f"{where}: {cut}" if isinstance(cut, InvalidEntry) else cut


def _joined(recordings: Path, supervisions: Path) -> Iterator[Cut | str]:
    """A cut for each recording, with its supervisions; a problem for each supervision without a recording."""
    known: dict[str, Recording] = {}
    for where, recording in read_items(recordings, "recordings"):
        if isinstance(recording, InvalidEntry) or recording.id in known:
            yield f"{where}: {recording if isinstance(recording, InvalidEntry) else 'duplicate recording'}"
        else:
            known[recording.id] = recording
    segments: list[SupervisionSegment] = []
    names: set[str] = set()
    for where, segment in read_items(supervisions, "supervisions"):
        if isinstance(segment, InvalidEntry):
            yield f"{where}: {segment}"
        elif segment.recording_id not in known:
            yield f"{where}: {recordings} has no recording '{segment.recording_id}'"
        else:
            segments.append(segment)
            names.add(segment.id)
            if len(segments) - len(names) > MOST_REPEATED:
                raise UserError(
                    f"{where}: more than {MOST_REPEATED:,} supervisions before it repeat an id; remove them"
                )
    yield from CutSet.from_manifests(
        recordings=RecordingSet.from_recordings(known.values()), supervisions=SupervisionSet.from_segments(segments)
    )


def read_items(path: Path, what: str, hint: str = "give a lhotse *.jsonl.gz file") -> Iterator[tuple[str, Any]]:
    """ "FILE:LINE: ID" and the object of each line of a manifest of `what` (of KINDS), or a InvalidEntry that says why not.

    Raises UserError when the file cannot be read, or a line is not JSON or another kind of object.
    """
    _require_manifest(path, hint)
    try:
        for number, line in enumerate(read_byte_lines(path, "a manifest", hint), 1):
            if line.strip():
                yield _item(path, number, parse_json(line.strip(), f"line {number}", hint), what)
    except UserError as error:
        raise UserError(f"{path} is not a manifest of {what} ({error})") from error


def _item(path: Path, number: int, tree: Any, what: str) -> tuple[str, Any]:
    where = f"{path}:{number}"
    if isinstance(tree, dict) and isinstance(tree.get("id"), str):
        where += f": {tree['id'] if tree['id'].isprintable() else ascii(tree['id'])}"
    try:
        for problem in _wrong_fields(tree):
            raise InvalidEntry(problem)
        item = deserialize_entry(tree)
    except InvalidEntry as problem:
        return where, problem
    if not isinstance(item, KINDS[what]):
        raise UserError(f"line {number} is a {type(item).__name__}")
    return where, item


def _require_manifest(path: Path, hint: str) -> None:
    require_file(path, "manifest", hint)
    if not Path(path).name.endswith(SUFFIXES):
        ends = " or ".join(SUFFIXES)
        raise UserError(f"{path} does not end in {ends}; `lhotse copy {path} NAME.jsonl.gz` converts other manifests")


def _wrong_fields(value: Any) -> Iterator[str]:
    """What is of the wrong type among the fields that lhotse takes as they are, at any depth."""
    if isinstance(value, dict):
        for name, item in value.items():
            if problem := _wrong_field(name, item):
                yield f"its {name} is {problem}: {ascii(item)[:50]}"
            elif name not in FREE:
                yield from _wrong_fields(item)
    elif isinstance(value, list):
        for item in value:
            yield from _wrong_fields(item)


def _wrong_field(name: str, value: Any) -> str | None:
    is_right, said = RULES.get(name, (None, ""))
    return said if is_right and not is_right(value) else None


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -MOST < value < MOST


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value < MOST


def _are_channels(value: Any) -> bool:
    return value is None or all(map(_is_channel, value if type(value) is list else [value]))


def _is_channel(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 16


def _is_alignment(value: Any) -> bool:
    """{"word": [[symbol, start, duration, score], ...], ...}"""
    if value is None:
        return True
    return type(value) is dict and all(type(items) is list and all(map(_is_aligned, items)) for items in value.values())


def _is_aligned(item: Any) -> bool:
    return type(item) is list and len(item) >= 3 and type(item[0]) is str and all(map(_is_number, item[1:3]))


RULES: dict[str, tuple[Callable[[Any], bool], str]] = {  # fields that lhotse takes as they are, wherever they stand
    "id": (lambda value: type(value) is str, "not text"),
    **dict.fromkeys(TEXTS, (lambda value: isinstance(value, str | None), "not text")),
    **dict.fromkeys(NUMBERS, (_is_number, "not a number of seconds")),
    **dict.fromkeys(COUNTS, (_is_count, "not a positive integer")),
    **dict.fromkeys(CHANNELS, (_are_channels, "not the number of a channel, counted from 0")),
    "channel_ids": (lambda value: type(value) is list and _are_channels(value), "not a list of channels"),
    "alignment": (_is_alignment, "not an alignment of symbols, starts and durations"),
}
