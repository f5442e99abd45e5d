"""Manifests as lines, read without making lhotse objects: one file, a folder of files, or lhotse's Shar.

A folder holds `*.jsonl.gz` (or `*.jsonl`): parts of one manifest, as `lhotse split` writes them. In Shar's the files
are `cuts.000000.jsonl.gz`, ..., and item i of `recording.000000.tar` (or `features.000000.tar`) belongs to line i.
Making an object of a line takes lhotse about 120 us, reading it here a tenth of that.
"""

import hashlib
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from asrtool.data.entry_checks import field_problem
from asrtool.data.sources import normalise_text_fields
from asrtool.errors import UserError
from asrtool.files import file_hash
from asrtool.readers import BYTE_ORDER_MARK, GZIP_ERRORS, MAX_LINE_BYTES, STRICT_JSON, open_bytes

CHUNK = 1 << 20  # bytes
# Whatever the readers of lines, JSON, gzip and tar raise over a file that is not what it should be.
UNREADABLE = (OSError, *GZIP_ERRORS, ValueError, TypeError, LookupError, RecursionError, tarfile.TarError)


class SharItem(NamedTuple):
    """Where Shar stores one field of a cut: a range of bytes in a tar file, and the name of the item there."""

    field: str
    tar: str
    name: str
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A cut as a line of its manifest. `shar_items` is empty unless the manifest is Shar's.

    Where several corpora are mixed, `corpus` is the number of the cut's corpus, and `epoch` that of the pass over it.
    """

    id: str
    duration: float  # seconds
    line: bytes
    shar_items: tuple[SharItem, ...] = field(default=(), repr=False)
    corpus: int = 0
    epoch: int | None = None  # None is the epoch of the batch

    def to_dict(self) -> dict:
        """Returns the line's JSON object."""
        return json.loads(self.line)


def manifest_name(path: Path) -> str:
    """Returns the name of a manifest: its file's name without .jsonl.gz or .jsonl, or its folder's name."""
    name = Path(path).absolute().name
    return name.removesuffix(".gz").removesuffix(".jsonl") or name


def manifest_files(path: Path) -> list[Path]:
    """Returns the files of a manifest, in their order. Raises UserError if there are none."""
    path = Path(path)
    if path.is_file():
        return [path]
    files = _files_named(path, "cuts.*") or _files_named(path, "[!.]*")  # names with a dot first are not finished
    if files:
        return files
    problem = f"no *.jsonl.gz in {path}" if path.is_dir() else f"manifest not found: {path}"
    raise UserError(f"{problem}; make it with `asrtool prepare`")


def _files_named(folder: Path, stem: str) -> list[Path]:
    return sorted(path for suffix in (".jsonl", ".jsonl.gz") for path in folder.glob(stem + suffix))


def fingerprint(path: Path) -> str:
    """Returns a digest of the names and contents of a manifest's files, to detect a change.

    Reads every byte, about 1 GB a second: 3 seconds for a manifest of 2.3 GB in 2,000 files.
    """
    files = [(file.name, file_hash(file)) for file in manifest_files(path)]
    return hashlib.blake2b(repr(files).encode(), digest_size=16).hexdigest()


def entries(path: Path) -> Iterator[Entry]:
    """Yields all entries of a manifest, file by file."""
    return (entry for entry, _ in entries_with_dicts(path))


def entries_with_dicts(path: Path) -> Iterator[tuple[Entry, dict]]:
    """Yields all entries of a manifest with the JSON object of each line, file by file."""
    for file in manifest_files(path):
        yield from _read(file, 0)


def read_entries(file: Path, first: int = 0) -> Iterator[Entry]:
    """Yields the entries of one file from number `first` (from 0) on. UserError for a line that is not a cut."""
    return (entry for entry, _ in _read(file, first))


def _read(file: Path, first: int) -> Iterator[tuple[Entry, dict]]:
    members = cache(partial(_tar_members, file))
    line_number = 0
    try:
        for number, numbered_line in enumerate(_numbered_lines(file, first), first):
            line_number = numbered_line[0]
            line = numbered_line[1].removeprefix(BYTE_ORDER_MARK)
            cut_dict = STRICT_JSON.decode(line.decode("utf-8"))
            if problem := field_problem(cut_dict):
                raise ValueError(f"number {number + 1} {problem}")
            normalise_text_fields(cut_dict)
            shar_items = tuple(members(name)[number] for name in _fields_in_shar(cut_dict))
            yield Entry(cut_dict["id"], cut_dict["duration"], line, shar_items), cut_dict
    except UNREADABLE as error:
        where = f"{file}:{line_number}" if line_number else f"{file}"
        reason = (str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}")[:300]
        raise UserError(f"{where} is not a manifest of cuts ({reason}); make it with `asrtool prepare`") from error


def _numbered_lines(file: Path, first: int) -> Iterator[tuple[int, bytes]]:
    """Yields number (from 1) and content of the lines that are not blank, without the first `first` of them.

    Reads large chunks: several times faster, above all for the lines that are skipped. ValueError for a line of more
    than MAX_LINE_BYTES, of which no more than that is ever held.
    """
    lines_before = 0
    with open_bytes(file) as source:
        while chunk := source.read(CHUNK):
            rest = source.readline(MAX_LINE_BYTES + 1)
            if len(rest) > MAX_LINE_BYTES:
                raise ValueError(f"a line of more than {MAX_LINE_BYTES >> 20} MB")
            lines = (chunk + rest).splitlines()
            numbered = [(number, line) for number, line in enumerate(lines, lines_before + 1) if line.strip()]
            yield from numbered[first:]
            lines_before += len(lines)
            first = max(0, first - len(numbered))


def _fields_in_shar(cut_dict: dict) -> Iterator[str]:
    """Yields the fields whose data are in Shar's tar files."""
    recording = cut_dict.get("recording")
    if recording and recording["sources"][0]["type"] == "shar":
        yield "recording"
    features = cut_dict.get("features")
    if features and features["storage_type"] == "shar":
        yield "features"


def _tar_members(file: Path, name: str) -> list[SharItem]:
    """Returns where the field `name` of each cut in `file` is. A description, which the line also has, follows each."""
    tar = file.with_name(file.name.split(".jsonl")[0].replace("cuts", name, 1) + ".tar")
    with tarfile.open(tar, "r:") as archive:
        members = archive.getmembers()[::2]
    return [SharItem(name, str(tar), member.name, member.offset_data, member.size) for member in members]
