"""What the outputs in a folder were made from, so that a rerun skips what is done and never hides that it is stale.

The file FOLDER/.asrtool-transcribe.jsonl has two kinds of rows:

    {"settings": DIGEST, "values": {NAME: VALUE}}                    system, method and options of a run
    {"recording": {"path", "bytes", "mtime_ns", "sha256"}, "settings": DIGEST, "outputs": {NAME: SHA-256}}

A row is appended before its outputs get their final names, so that an output without a row is another program's, or
was edited. Rows are only ever appended, each by one write: several processes may work in one folder. What a killed
process has left half-written is not a row, and is skipped.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from asrtool.errors import UserError
from asrtool.files import file_hash, json_line, report_full_disk, utf8_path
from asrtool.inference.recordings import STDIN, Recording
from asrtool.readers import parse_json, read_byte_lines

LEDGER = ".asrtool-transcribe.jsonl"
MAX_CHANGES_SHOWN = 3  # of the settings that differ from the last run's

EDITED = "was edited"  # a reason
State = Literal["new", "done", "stale", "conflict"]


@dataclass(frozen=True)
class RecordingFacts:
    """The size, time and content of a recording; `path` is relative to the folder of the ledger."""

    path: str
    bytes: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True)
class OutputState:
    """Whether an output has to be written, and why it is stale or in the way; of one that is done, EDITED or ""."""

    state: State
    reason: str = ""


@dataclass(frozen=True)
class Row:
    """What some outputs were made from; `outputs` has the SHA-256 of each by its name."""

    recording: RecordingFacts
    settings: str
    outputs: Mapping[str, str]


@dataclass
class Ledger:
    """The rows of a folder, by the name of the output, the oldest first, and the settings that they refer to."""

    folder: Path
    rows: dict[str, list[Row]] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The file of the ledger."""
        return self.folder / LEDGER

    def state(self, name: str, recording: Recording, settings: Mapping[str, Any]) -> OutputState:
        """Returns the state of the output `name` of a recording under `settings`.

        It is "new" where the output is missing, "done" where it was made from the same, also if it was edited since,
        "stale" where the recording or the settings have changed, and a "conflict" where writing it would lose another
        file, an edit, or the output of another recording.
        """
        output = self.folder / name
        name = utf8_path(name)
        if not output.is_file():
            return OutputState("conflict", "is not a file") if output.exists() else OutputState("new")
        rows = self.rows.get(name)
        if not rows:
            return OutputState("conflict", "was not written by asrtool")
        content = file_hash(output)
        row = next((row for row in reversed(rows) if row.outputs[name] == content), None)
        is_edited = row is None
        row = row or rows[-1]
        relation = self._relation(row.recording, recording)
        if relation == "other":
            return OutputState("conflict", f"is the output of {os.path.normpath(self.folder / row.recording.path)}")
        if relation == "same" and row.settings == digest(settings):
            return OutputState("done", EDITED if is_edited else "")
        reason = "the recording has changed" if relation == "changed" else self._changes(row.settings, settings)
        return OutputState("conflict", f"{EDITED}, and {reason}") if is_edited else OutputState("stale", reason)

    def _relation(self, before: RecordingFacts, recording: Recording) -> Literal["same", "changed", "other"]:
        """Returns whether a recording is the one of a row, a changed version of it, or another one.

        The content is read only if the path or the time differs. A stream is never the same.
        """
        is_same_path = before.path == _relative(recording, self.folder)
        if not recording.is_stream:
            stat = recording.path.stat()
            if is_same_path and (before.bytes, before.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
                return "same"
            if before.bytes == stat.st_size and before.sha256 == file_hash(recording.path):
                return "same"
        return "changed" if is_same_path else "other"

    def _changes(self, before: str, settings: Mapping[str, Any]) -> str:
        """Returns e.g. "beam was 8, method was greedy"."""
        old = self.settings.get(before)
        if old is None:
            return "the settings were others"
        names = [name for name in {**old, **settings} if old.get(name) != settings.get(name)]
        shown = [f"{name} was {'not given' if old.get(name) is None else old[name]}" for name in names]
        return ", ".join(shown[:MAX_CHANGES_SHOWN]) + (" ..." if len(shown) > MAX_CHANGES_SHOWN else "")

    def add(self, recording: RecordingFacts, settings: Mapping[str, Any], outputs: Mapping[str, str]) -> None:
        """Appends a row for `outputs` (SHA-256 by name), with new settings. UserError if the disk is full."""
        key = digest(settings)
        outputs = {utf8_path(name): content for name, content in outputs.items()}
        rows: list[dict] = []
        if key not in self.settings:
            rows.append({"settings": key, "values": dict(settings)})
        rows.append({"recording": asdict(recording), "settings": key, "outputs": outputs})
        with report_full_disk(self.path):
            _append(self.path, "".join(map(json_line, rows)))
        self.settings[key] = dict(settings)
        for name in outputs:
            self.rows.setdefault(name, []).append(Row(recording, key, outputs))


def read_ledger(folder: Path) -> Ledger:
    """Returns the ledger of a folder, empty if there is none. What is not a row is skipped: see above."""
    ledger = Ledger(folder)
    if not ledger.path.is_file():
        return ledger
    for line in read_byte_lines(ledger.path, "ledger of asrtool transcribe"):
        try:
            _read_row(parse_json(line, LEDGER, ""), ledger)
        except (UserError, TypeError, KeyError, AttributeError):
            continue
    return ledger


def _read_row(tree: Any, ledger: Ledger) -> None:
    """Adds a row of the file to a ledger. Raises TypeError, KeyError or AttributeError for another content."""
    key = tree["settings"]
    if "values" in tree:
        ledger.settings[key] = dict(tree["values"].items())
        return
    facts = RecordingFacts(**tree["recording"])
    row = Row(facts, key, dict(tree["outputs"].items()))
    values = (key, facts.path, facts.sha256, *row.outputs.values())
    if not all(isinstance(value, str) for value in values):
        raise TypeError
    for name in row.outputs:
        ledger.rows.setdefault(name, []).append(row)


def recording_facts(recording: Recording, folder: Path) -> RecordingFacts:
    """Returns the facts of a recording for the ledger of `folder`; reads a file once, and a stream not at all."""
    path = _relative(recording, folder)
    if recording.is_stream:
        return RecordingFacts(path, bytes=-1, mtime_ns=0, sha256="")
    stat = recording.path.stat()
    return RecordingFacts(path, stat.st_size, stat.st_mtime_ns, file_hash(recording.path))


def digest(settings: Mapping[str, Any]) -> str:
    """Returns twelve hexadecimal digits that stand for settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def _relative(recording: Recording, folder: Path) -> str:
    """Returns the path seen from the folder, which may be moved with it."""
    return "-" if recording.path == STDIN else utf8_path(os.path.relpath(recording.path, folder))


def _append(path: Path, text: str) -> None:
    """Appends lines to a file by one write. They begin on a line of their own after half a line of a killed process."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            text = "\n" + text
        data = text.encode()
        while data:
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
