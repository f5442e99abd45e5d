"""Manifests as lines, read without making objects of them: one file, a folder of files, or lhotse's Shar.

A folder holds `*.jsonl.gz` (or `*.jsonl`): parts of one manifest, as `lhotse split` writes them. In Shar's the files
are `cuts.000000.jsonl.gz`, ..., and item i of `recording.000000.tar` (or `features.000000.tar`) belongs to line i.
Making an object of a line takes lhotse about 120 us, reading it as here a tenth of that.
"""

import hashlib
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from lhotse import MonoCut
from lhotse.shar.utils import fill_shar_placeholder

from asrtool.data.entry_checks import cut_problem, field_problem
from asrtool.data.sources import InvalidEntry, deserialize_entry, normalise_transcripts
from asrtool.errors import UserError
from asrtool.files import file_hash
from asrtool.readers import BYTE_ORDER_MARK, GZIP_ERRORS, MAX_LINE_BYTES, STRICT_JSON, open_bytes

CHUNK = 1 << 20  # bytes
# Whatever the readers of lines, JSON, gzip and tar raise over a file that is not what it should be.
UNREADABLE = (OSError, *GZIP_ERRORS, ValueError, TypeError, LookupError, RecursionError, tarfile.TarError)


class SharItem(NamedTuple):
    """Where Shar keeps one field of a cut: a stretch of a tar file, and the name it has there."""

    field: str
    tar: str
    name: str
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A cut as its manifest has it. `parts` is empty but for Shar."""

    id: str
    duration: float  # seconds
    line: bytes
    parts: tuple[SharItem, ...] = field(default=(), repr=False)

    def tree(self) -> dict:
        """What the line says."""
        return json.loads(self.line)

    def cut(self) -> MonoCut:
        """The lhotse cut, with what Shar holds read into memory. Raises InvalidEntry, also where `cut_problem` says why."""
        tree = self.tree()
        if problem := cut_problem(tree):
            raise InvalidEntry(f"{self.id}: {problem}")
        cut = deserialize_cut(self.id, tree)
        for part in self.parts:
            try:
                with open(part.tar, "rb") as tar:
                    tar.seek(part.start)
                    fill_shar_placeholder(cut, tar.read(part.size), part.name, part.field)
            except Exception as error:  # also what lhotse raises over an item that is not audio or features
                reason = getattr(error, "strerror", None) or str(error)[:200]
                raise InvalidEntry(f"{self.id}: cannot read {part.tar} ({reason})") from error
        return cut


def deserialize_cut(name: str, tree: dict) -> MonoCut:
    """The cut of a manifest's entry. Raises InvalidEntry, which begins with `name`, for what `deserialize_entry` refuses."""
    try:
        return deserialize_entry(tree)
    except InvalidEntry as problem:
        raise InvalidEntry(f"{name}: {problem}") from problem


def manifest_name(path: Path) -> str:
    """The name of a manifest: that of its file without .jsonl.gz or .jsonl, or that of its folder."""
    name = Path(path).absolute().name
    return name.removesuffix(".gz").removesuffix(".jsonl") or name


def manifest_files(path: Path) -> list[Path]:
    """The files of a manifest, in their order. Raises UserError where there are none."""
    path = Path(path)
    if path.is_file():
        return [path]
    found = _files(path, "cuts.*") or _files(path, "[!.]*")  # those with a dot are not finished
    if found:
        return found
    problem = f"no *.jsonl.gz in {path}" if path.is_dir() else f"manifest not found: {path}"
    raise UserError(f"{problem}; make it with `asrtool prepare`")


def fingerprint(path: Path) -> str:
    """Of the names and the contents of a manifest's files: another one means that it was changed.

    Reads every byte, about 1 GB a second: 3 seconds for a manifest of 2.3 GB in 2,000 files.
    """
    files = [(file.name, file_hash(file)) for file in manifest_files(path)]
    return hashlib.blake2b(repr(files).encode(), digest_size=16).hexdigest()


def _files(folder: Path, name: str) -> list[Path]:
    return sorted(path for suffix in (".jsonl", ".jsonl.gz") for path in folder.glob(name + suffix))


def entries(path: Path) -> Iterator[Entry]:
    """All of a manifest, file by file."""
    return (entry for entry, _ in entries_with_trees(path))


def entries_with_trees(path: Path) -> Iterator[tuple[Entry, dict]]:
    """Likewise, with what each line says."""
    for file in manifest_files(path):
        yield from _read(file, 0)


def read_entries(file: Path, first: int = 0) -> Iterator[Entry]:
    """The entries of one file from number `first` (counted from 0) on; UserError for what is no manifest of cuts."""
    return (entry for entry, _ in _read(file, first))


def _read(file: Path, first: int) -> Iterator[tuple[Entry, dict]]:
    members, number, line_number = cache(partial(_members, file)), first - 1, 0
    try:
        for at, line in _lines(file, first):
            number, line_number, line = number + 1, at, line.removeprefix(BYTE_ORDER_MARK)
            tree = STRICT_JSON.decode(line.decode("utf-8"))
            if problem := field_problem(tree):
                raise ValueError(f"number {number + 1} {problem}")
            normalise_transcripts(tree)
            parts = tuple(members(name)[number] for name in _in_shar(tree))
            yield Entry(tree["id"], tree["duration"], line, parts), tree
    except UNREADABLE as error:
        where = f"{file}:{line_number}" if line_number else f"{file}"
        reason = (str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}")[:300]
        raise UserError(f"{where} is not a manifest of cuts ({reason}); make it with `asrtool prepare`") from error


def _lines(file: Path, first: int) -> Iterator[tuple[int, bytes]]:
    """Number (from 1) and content of the lines that are not blank, without the first `first` of them.

    Reads whole chunks: several times faster, above all for the lines that are skipped. ValueError for a line of more
    than MAX_LINE_BYTES, of which no more than that is ever held.
    """
    number = 0
    with open_bytes(file) as source:
        while chunk := source.read(CHUNK):
            rest = source.readline(MAX_LINE_BYTES + 1)
            if len(rest) > MAX_LINE_BYTES:
                raise ValueError(f"a line of more than {MAX_LINE_BYTES >> 20} MB")
            lines = (chunk + rest).splitlines()
            found = [(at, line) for at, line in enumerate(lines, number + 1) if line.strip()]
            yield from found[first:]
            number, first = number + len(lines), max(0, first - len(found))


def _in_shar(tree: dict) -> Iterator[str]:
    """The fields whose data are in Shar's tar files."""
    recording, features = tree.get("recording"), tree.get("features")
    if recording and recording["sources"][0]["type"] == "shar":
        yield "recording"
    if features and features["storage_type"] == "shar":
        yield "features"


def _members(file: Path, name: str) -> list[SharItem]:
    """Where the field `name` of the cuts in `file` is. A description follows each item; the line has it too."""
    tar = file.with_name(file.name.split(".jsonl")[0].replace("cuts", name, 1) + ".tar")
    with tarfile.open(tar, "r:") as archive:
        return [SharItem(name, str(tar), m.name, m.offset_data, m.size) for m in archive.getmembers()[::2]]
