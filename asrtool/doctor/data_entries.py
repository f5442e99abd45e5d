"""The utterances of a manifest as `asrtool doctor data` sees them: every line, with the faults of its fields.

Transcripts are taken as they stand in the file. asrtool/data/shards.py, which training uses, brings them into the
composed form and stops at the first line that is not a cut.
"""

import json
import unicodedata
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asrtool.data.entry_checks import cut_problem, field_problem, overhang_problem
from asrtool.data.shards import SharItem, entries, manifest_files
from asrtool.data.speeds import speed_copy
from asrtool.doctor.data_faults import Faults
from asrtool.errors import AsrtoolError
from asrtool.readers import BYTE_ORDER_MARK, STRICT_JSON, read_byte_lines

HINT = "make it with `asrtool prepare`"


@dataclass(frozen=True, slots=True)
class Source:
    """Where the audio of a recording is, and what the manifest says about it.

    `audio` is a path, a command, or an item of Shar's tar files. `samples` and `rate` describe the file
    where `is_plain`; otherwise a transform, such as resampling, gives the recording this rate and duration.
    """

    kind: str  # lhotse's type of source: "file", "command", "url", "memory", "shar"
    audio: str | SharItem
    rate: int  # Hz, of the recording
    samples: int
    seconds: float
    channels: tuple[int, ...]
    is_plain: bool


@dataclass(slots=True)
class Utterance:
    """One line of a manifest."""

    id: str
    seconds: float
    start: float  # seconds in the recording
    channel: int
    text: str | None  # as it stands in the file; None without a supervision
    speaker: str | None
    source: Source | None  # None for stored features only
    speed: float = 1.0  # of a copy at another speed

    @property
    def words(self) -> list[str]:
        """The words of the transcript."""
        return (self.text or "").split()


def read_utterances(path: Path, faults: Faults, left_out: Container[str] = ()) -> tuple[list[Utterance], int]:
    """Returns the utterances of a manifest, and how many ids of `left_out` it has, whose lines are not checked.

    Adds the faults of lines and fields to `faults`. Raises UserError if the manifest does not exist or is not
    readable at all.
    """
    utterances: list[Utterance] = []
    ids: set[str] = set()
    num_left_out = 0
    for where, cut_dict, items in _cut_dicts(path, faults):
        if problem := field_problem(cut_dict):
            faults.add("unreadable-line", where, problem)
            continue
        if cut_dict["id"] in left_out:
            num_left_out += 1
            continue
        utterance = _utterance(cut_dict, items)
        if utterance.id in ids:
            faults.add("duplicate-id", utterance.id, f"again in {where}")
        ids.add(utterance.id)
        _check_fields(cut_dict, faults)
        utterances.append(utterance)
    return utterances, num_left_out


def _cut_dicts(path: Path, faults: Faults) -> Iterator[tuple[str, Any, tuple[SharItem, ...]]]:
    """Yields "FILE:LINE", the JSON object and Shar's items of each line. Lines without an object are faults."""
    for file in manifest_files(path):
        if _is_shar(file):
            for number, entry in enumerate(entries(file), 1):
                yield f"{file.name}:{number}", json.loads(entry.line), entry.shar_items
            continue
        for number, line in enumerate(_lines(file, faults), 1):
            where = f"{file.name}:{number}"
            try:
                if text := line.removeprefix(BYTE_ORDER_MARK).strip():
                    yield where, STRICT_JSON.decode(text.decode("utf-8")), ()
            except (ValueError, RecursionError, AsrtoolError) as error:
                faults.add("unreadable-line", where, str(error))


def _lines(file: Path, faults: Faults) -> Iterator[bytes]:
    """Yields the lines of a file; a damaged end of a compressed file is a fault."""
    number = 0
    try:
        for line in read_byte_lines(file, "manifest", HINT):
            number += 1
            yield line
    except AsrtoolError as error:
        if not number:
            raise
        faults.add("unreadable-line", f"{file.name}:{number + 1}", str(error))


def _is_shar(file: Path) -> bool:
    """Returns True if the audio of a manifest's first line is in a tar file."""
    try:
        first = next(iter(read_byte_lines(file, "manifest", HINT)), b"")
    except AsrtoolError:
        return False
    return b'"type": "shar"' in first or b'"storage_type": "shar"' in first


def _utterance(cut_dict: dict, items: tuple[SharItem, ...]) -> Utterance:
    supervision = next(iter(cut_dict.get("supervisions") or ()), None)
    speaker = supervision.get("speaker") if supervision else None
    return Utterance(
        id=cut_dict["id"],
        seconds=float(cut_dict["duration"]),
        start=float(cut_dict.get("start") or 0.0),
        channel=cut_dict.get("channel") or 0,
        text=(supervision.get("text") or "") if supervision else None,
        speaker=unicodedata.normalize("NFC", speaker) if speaker else None,
        source=_source(cut_dict.get("recording"), cut_dict.get("channel") or 0, items),
        speed=speed_copy(cut_dict).speed,
    )


def _source(recording: dict | None, channel: int, items: tuple[SharItem, ...]) -> Source | None:
    """Returns the file of a recording that has the channel, or its first one."""
    if not recording:
        return None
    sources = recording["sources"]
    own = next((source for source in sources if channel in _channels(source)), sources[0])
    in_tar = next((item for item in items if item.field == "recording"), None)
    samples = recording.get("num_samples")
    return Source(
        kind=str(own.get("type")),
        audio=in_tar or str(own.get("source")),
        rate=int(recording["sampling_rate"]),
        samples=samples if type(samples) is int else round(recording["duration"] * recording["sampling_rate"]),
        seconds=float(recording["duration"]),
        channels=_channels(own),
        is_plain=not recording.get("transforms"),
    )


def _channels(source: dict) -> tuple[int, ...]:
    channels = source.get("channels")
    return tuple(c for c in channels if type(c) is int) if isinstance(channels, list) else (0,)


def _check_fields(cut_dict: dict, faults: Faults) -> None:
    """Adds the faults of a well-formed line: of its supervisions and its features."""
    name = cut_dict["id"]
    if problem := cut_problem(cut_dict):
        faults.add("several-supervisions", name, problem)
    elif problem := overhang_problem(cut_dict):
        faults.add("transcript-beyond-cut", name, problem)
    _check_features(cut_dict, faults)


def _check_features(cut_dict: dict, faults: Faults) -> None:
    features = cut_dict.get("features")
    if not features:
        return
    if not cut_dict.get("recording"):
        faults.add("no-audio", cut_dict["id"])
    path = features.get("storage_path")
    if features["storage_type"].startswith(("memory", "shar")) or not isinstance(path, str):
        return
    if not Path(path).exists():
        faults.add("missing-features", cut_dict["id"], path)
