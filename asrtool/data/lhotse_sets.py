"""Manifests of lhotse as objects, read line by line through the checks of asrtool/data/sources.py."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from lhotse import CutSet, MonoCut, Recording, RecordingSet, SupervisionSegment, SupervisionSet
from lhotse.cut import Cut

from asrtool.data.lhotse_objects import deserialize_entry
from asrtool.data.shards import manifest_files
from asrtool.data.sources import InvalidEntry
from asrtool.errors import UserError, require_file
from asrtool.readers import parse_json, read_byte_lines

KINDS = {"cuts": Cut, "recordings": Recording, "supervisions": SupervisionSegment}
SUFFIXES = (".jsonl", ".jsonl.gz")
MAX_REPEATED_IDS = 100_000  # a small compressed file may repeat a line many million times
MAX_NUMBER = 1e12  # beyond it a number is a mistake, and too large for what is computed from it

TEXT_FIELDS = {"recording_id", "speaker", "text", "language", "gender", "storage_type", "storage_path"}
SECONDS_FIELDS = {"start", "duration", "frame_shift"}
COUNT_FIELDS = {"sampling_rate", "num_samples", "num_frames", "num_features"}
CHANNEL_FIELDS = {"channel", "channels"}
FREE_FIELDS = {"alignment", "custom", "kwargs"}  # their contents are not checked


def open_cuts(path: Path) -> CutSet:
    """Returns a manifest of cuts, a file or a folder of files, opened lazily.

    Raises UserError if it is missing, empty, not a manifest, or Shar, whose cuts have no audio without its tar files;
    later for any line.
    """
    cuts = CutSet(_LazyCuts(Path(path)))
    if next(iter(cuts), None) is None:
        raise UserError(f"manifest is empty: {path}; make it again with `asrtool prepare`")
    return cuts


class _LazyCuts:
    """The cuts of a manifest, which is read again for each iteration."""

    def __init__(self, path: Path):
        self.path = path

    def __iter__(self) -> Iterator[Cut]:
        for file in manifest_files(self.path):
            for where, cut in read_items(file, "cuts", "make it with `asrtool prepare`"):
                if isinstance(cut, InvalidEntry):
                    raise UserError(f"{where}: {cut}")
                if _is_in_shar(cut):
                    hint = "give the manifest that it was made from, or export it with `lhotse shar export`"
                    raise UserError(f"{self.path} is lhotse's Shar, which this command does not read; {hint}")
                yield cut


def _is_in_shar(cut: Cut) -> bool:
    if not isinstance(cut, MonoCut):
        return False
    has_audio = cut.has_recording and any(source.type == "shar" for source in cut.recording.sources)
    return has_audio or (cut.has_features and cut.features.storage_type == "shar")


def read_lhotse(cuts: Path | None, recordings: Path | None, supervisions: Path | None) -> Iterable[Cut | str]:
    """Returns the cuts of lhotse manifests (a CutSet, or recordings and supervisions), and a line for each problem.

    Raises UserError for files that are missing, or not manifests of this kind, and for both kinds at once.
    """
    for path in filter(None, (cuts, recordings, supervisions)):
        _require_manifest(path, "give a lhotse *.jsonl.gz file")
    if cuts and (recordings or supervisions):
        raise UserError("--cuts is given, too; give either --cuts, or both --recordings and --supervisions")
    if cuts:
        return _cuts_or_problems(cuts)
    if not (recordings and supervisions):
        raise UserError("give --cuts, or both --recordings and --supervisions")
    return _joined(recordings, supervisions)


def _cuts_or_problems(path: Path) -> Iterator[Cut | str]:
    for where, cut in read_items(path, "cuts"):
        yield f"{where}: {cut}" if isinstance(cut, InvalidEntry) else cut


def _joined(recordings: Path, supervisions: Path) -> Iterator[Cut | str]:
    """Yields a cut for each recording, with its supervisions; a problem for each supervision without a recording."""
    known_recordings: dict[str, Recording] = {}
    for where, recording in read_items(recordings, "recordings"):
        if isinstance(recording, InvalidEntry):
            yield f"{where}: {recording}"
        elif recording.id in known_recordings:
            yield f"{where}: duplicate recording"
        else:
            known_recordings[recording.id] = recording
    segments: list[SupervisionSegment] = []
    ids: set[str] = set()
    for where, segment in read_items(supervisions, "supervisions"):
        if isinstance(segment, InvalidEntry):
            yield f"{where}: {segment}"
        elif segment.recording_id not in known_recordings:
            yield f"{where}: {recordings} has no recording '{segment.recording_id}'"
        else:
            segments.append(segment)
            ids.add(segment.id)
            if len(segments) - len(ids) > MAX_REPEATED_IDS:
                repeated = f"more than {MAX_REPEATED_IDS:,} supervisions before it repeat an id"
                raise UserError(f"{where}: {repeated}; remove them")
    yield from CutSet.from_manifests(
        recordings=RecordingSet.from_recordings(known_recordings.values()),
        supervisions=SupervisionSet.from_segments(segments),
    )


def read_items(path: Path, what: str, hint: str = "give a lhotse *.jsonl.gz file") -> Iterator[tuple[str, Any]]:
    """Yields "FILE:LINE: ID" and the object of each line of a manifest of `what` (of KINDS), or its InvalidEntry.

    Raises UserError if the file cannot be read, if a line has another kind of object, or the first one is not JSON.
    """
    _require_manifest(path, hint)
    is_json = False
    try:
        for number, line in enumerate(read_byte_lines(path, "a manifest", hint), 1):
            if not line.strip():
                continue
            where = f"line {number}"
            try:
                data = parse_json(line.strip(), where, hint)
            except UserError as error:
                if not is_json:
                    raise
                yield f"{path}:{number}", InvalidEntry(str(error).removeprefix(f"{where}: "))
                continue
            is_json = True
            yield _item(path, number, data, what)
    except UserError as error:
        raise UserError(f"{path} is not a manifest of {what} ({error})") from error


def _item(path: Path, number: int, data: Any, what: str) -> tuple[str, Any]:
    where = f"{path}:{number}"
    if isinstance(data, dict) and isinstance(data.get("id"), str):
        where += f": {data['id'] if data['id'].isprintable() else ascii(data['id'])}"
    try:
        for problem in _field_problems(data):
            raise InvalidEntry(problem)
        item = deserialize_entry(data)
    except InvalidEntry as problem:
        return where, problem
    if not isinstance(item, KINDS[what]):
        raise UserError(f"line {number} is a {type(item).__name__}")
    return where, item


def _require_manifest(path: Path, hint: str) -> None:
    require_file(path, "manifest", hint)
    if not Path(path).name.endswith(SUFFIXES):
        ends = " or ".join(SUFFIXES)
        raise UserError(
            f"{path} does not end in {ends}; {hint}, or convert a lhotse manifest: `lhotse copy {path} NAME.jsonl.gz`"
        )


def _field_problems(value: Any) -> Iterator[str]:
    """Yields the fields of wrong types, at any depth, among those that lhotse takes without a check."""
    if isinstance(value, dict):
        for name, item in value.items():
            if problem := _field_problem(name, item):
                yield f"its {name} is {problem}: {ascii(item)[:50]}"
            elif name not in FREE_FIELDS:
                yield from _field_problems(item)
    elif isinstance(value, list):
        for item in value:
            yield from _field_problems(item)


def _field_problem(name: str, value: Any) -> str | None:
    if name not in RULES:
        return None
    is_valid, problem = RULES[name]
    return None if is_valid(value) else problem


def _is_text(value: Any) -> bool:
    return isinstance(value, str | None)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -MAX_NUMBER < value < MAX_NUMBER


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value < MAX_NUMBER


def _are_channels(value: Any) -> bool:
    return value is None or all(map(_is_channel, value if type(value) is list else [value]))


def _is_channel(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 16


def _is_alignment(value: Any) -> bool:
    """Returns True for {"word": [[symbol, start, duration, score], ...], ...} and None."""
    if value is None:
        return True
    return type(value) is dict and all(type(items) is list and all(map(_is_aligned, items)) for items in value.values())


def _is_aligned(item: Any) -> bool:
    return type(item) is list and len(item) >= 3 and type(item[0]) is str and all(map(_is_number, item[1:3]))


# Fields that lhotse takes without a check, wherever they stand: a check, and the problem where it fails
RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "id": (lambda value: type(value) is str, "not text"),
    **dict.fromkeys(TEXT_FIELDS, (_is_text, "not text")),
    **dict.fromkeys(SECONDS_FIELDS, (_is_number, "not a number of seconds")),
    **dict.fromkeys(COUNT_FIELDS, (_is_count, "not a positive integer")),
    **dict.fromkeys(CHANNEL_FIELDS, (_are_channels, "not the number of a channel, counted from 0")),
    "channel_ids": (lambda value: type(value) is list and _are_channels(value), "not a list of channels"),
    "alignment": (_is_alignment, "not an alignment of symbols, starts and durations"),
}
