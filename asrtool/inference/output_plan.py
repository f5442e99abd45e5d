"""Where transcripts and alignments of recordings go, and which are to be written: nothing is replaced by mistake."""

import hashlib
import logging
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from asrtool.data.audio_blocks import open_recording
from asrtool.data.sources import InvalidEntry
from asrtool.errors import DataError, UserError
from asrtool.files import atomic_path, report_full_disk, utf8_path
from asrtool.inference.ledger import Ledger, RecordingFacts, read_ledger
from asrtool.inference.outputs import SUFFIXES
from asrtool.inference.recordings import STDIN, Recording

logger = logging.getLogger(__name__)

MAX_CONFLICTS_SHOWN = 3
MAX_EDITED_SHOWN = 10  # in one line; a user knows which files were edited
STREAMED_FORMATS = ("txt", "ctm")  # several recordings can follow each other in these on standard output

Channel = int | Literal["mix", "each"]


@dataclass(frozen=True)
class OutputOptions:
    """Which files are written, and where.

    folder: the output folder, None for files beside each recording. channel: a number, "mix", or "each" for the files
    of each channel. keep_suffix: `talk.mp3.txt` instead of `talk.txt`. overwrite: replace whatever is there. to_stdout:
    the text goes to standard output, and no file is written. suffixes: of the files of each format.
    """

    formats: tuple[str, ...] = ("txt",)
    folder: Path | None = None
    channel: Channel = "mix"
    keep_suffix: bool = False
    overwrite: bool = False
    to_stdout: bool = False
    suffixes: Mapping[str, str] = field(default_factory=lambda: SUFFIXES)


def output_options(
    recordings: Sequence[Recording],
    formats: tuple[str, ...],
    folder: Path | None,
    channel: Channel = "mix",
    keep_suffix: bool = False,
    overwrite: bool = False,
) -> OutputOptions:
    """Returns the options of a command; `folder` "-" is standard output.

    Without a folder and formats, and for streams without a folder, the output is standard output. Raises UserError
    where that cannot hold what is asked for.
    """
    are_streams = bool(recordings) and all(recording.is_stream for recording in recordings)
    to_stdout = folder == STDIN or (folder is None and (not formats or are_streams))
    formats = formats or ("txt",)
    if to_stdout:
        _require_one_text(recordings, formats, channel)
        folder = None
    return OutputOptions(formats, folder, channel, keep_suffix, overwrite, to_stdout)


def _require_one_text(recordings: Sequence[Recording], formats: Sequence[str], channel: Channel) -> None:
    """Raises UserError unless standard output can hold the texts of the recordings."""
    hint = "write files with --output-dir FOLDER"
    if channel == "each":
        raise UserError(f"--channel each has several texts for a recording; {hint}, or with --format")
    if len(formats) > 1:
        raise UserError(f"standard output holds one format, not {' and '.join(formats)}; {hint}")
    if len(recordings) > 1 and formats[0] not in STREAMED_FORMATS:
        raise UserError(f"--format {formats[0]} has one recording in a file; {hint}")


@dataclass(frozen=True)
class Task:
    """A recording, one of its channels or the mean of all, and the files to write, by their format.

    name: what the recording is called within its outputs. seconds: its length, None if it is not known.
    """

    recording: Recording
    channel: int | Literal["mix"]
    name: str
    outputs: Mapping[str, Path]
    seconds: float | None

    @property
    def folder(self) -> Path:
        """The folder of the outputs."""
        return next(iter(self.outputs.values())).parent


@dataclass(frozen=True)
class Plan:
    """The tasks of a command, what cannot be read ("NAME: reason"), and how many recordings were done before."""

    tasks: list[Task]
    problems: list[str]
    num_done: int


@dataclass
class _Kept:
    """Files that are not replaced: why an output would be in conflict with each, and outputs that were edited."""

    conflicts: list[str] = field(default_factory=list)
    edited: list[str] = field(default_factory=list)


def describe_problem(recording: Recording, error: Exception) -> str:
    """Returns "NAME: reason"; the reason does not repeat the name."""
    reason = "; ".join(error.problems) if isinstance(error, DataError) else str(error)
    if isinstance(error, OSError) and error.strerror:
        reason = error.strerror
    reason = re.sub(rf": {re.escape(str(recording.path))}(?= \(|$)", "", reason)
    return f"{recording}: {reason}"


def plan_outputs(
    recordings: Sequence[Recording], options: OutputOptions, settings: Mapping[str, Any], ledgers: dict[Path, Ledger]
) -> Plan:
    """Returns what is to be done. Fills `ledgers`, by their folders.

    Raises UserError where two recordings have one output, and where a file would be replaced that is not an earlier
    output of the same recording, unless `options.overwrite` is set.
    """
    bases = _output_bases(recordings, options)
    _require_writable(options.folder)
    plan = Plan([], [], 0)
    kept = _Kept()
    num_done = 0
    for recording, base in bases.items():
        try:
            tasks = [
                task
                for channel in _channels(recording, options.channel)
                if (task := _task(recording, channel, base, options, settings, ledgers, kept))
            ]
        except (InvalidEntry, OSError) as error:
            plan.problems.append(describe_problem(recording, error))
            continue
        plan.tasks.extend(tasks)
        num_done += not tasks
    if kept.conflicts:
        raise UserError(_describe_conflicts(kept.conflicts))
    if kept.edited:
        edited = utf8_path(_some_of(kept.edited, MAX_EDITED_SHOWN))
        logger.info(f"left as they are, since they were edited: {edited}")
    return Plan(plan.tasks, plan.problems, num_done)


def _output_bases(recordings: Sequence[Recording], options: OutputOptions) -> dict[Recording, Path]:
    """Returns the path of each recording's outputs without their suffix. Raises UserError for two of one path."""
    bases = {recording: _output_base(recording, options) for recording in recordings}
    inputs = {os.path.abspath(recording.path): recording for recording in recordings}
    owners: dict[str, Recording] = {}
    for recording, base in bases.items():
        other = owners.setdefault(os.path.abspath(base), recording)
        if other is not recording:
            hint = "give --keep-suffix, or recordings of different names"
            path = _output_paths(base, options)[options.formats[0]]
            raise UserError(f"{other} and {recording} would both be written to {path}; {hint}")
        for path in _output_paths(base, options).values():
            if os.path.abspath(path) in inputs:
                raise UserError(f"{path} is a recording and the output of {recording}; name another --output-dir")
    return bases


def _output_base(recording: Recording, options: OutputOptions) -> Path:
    name = recording.path.name if options.keep_suffix and recording.path != STDIN else recording.name
    if options.folder is not None:
        return options.folder / recording.folder / name
    if recording.is_stream:
        raise UserError(f"{recording} has no folder for its outputs; name one with --output-dir")
    return recording.path.parent / name


def _output_paths(base: Path | str, options: OutputOptions) -> dict[str, Path]:
    return {name: Path(f"{base}.{options.suffixes[name]}") for name in options.formats}


def _require_writable(folder: Path | None) -> None:
    """Raises UserError if an output folder cannot be written, before hours of recognition."""
    if folder is None:
        return
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise UserError(f"--output-dir {folder}: {existing} is not a folder")
    try:
        with report_full_disk(folder), tempfile.TemporaryDirectory(dir=existing, prefix=".asrtool-"):
            pass  # a trial: permissions alone do not tell of file systems that take no files
    except OSError as error:
        reason = f"nothing can be written in {existing} ({error.strerror})"
        raise UserError(f"--output-dir {folder}: {reason}; name another folder") from error


def _channels(recording: Recording, channel: Channel) -> Sequence[int | Literal["mix"]]:
    """Returns the channels to recognise. Raises InvalidEntry."""
    if channel != "each":
        return [channel]
    if recording.is_stream:
        raise UserError(f"--channel each cannot read {recording}, which can be read once only; save it as a file")
    return range(open_recording(recording.path).channels)


def _task(
    recording: Recording,
    channel: int | Literal["mix"],
    base: Path,
    options: OutputOptions,
    settings: Mapping[str, Any],
    ledgers: dict[Path, Ledger],
    kept: _Kept,
) -> Task | None:
    """Returns the task of a channel; None if it was done before. Adds to `kept`; raises InvalidEntry, OSError."""
    suffix = f".channel{channel}" if options.channel == "each" else ""
    paths = _output_paths(f"{base}{suffix}", options)
    folder = base.parent
    if options.folder is None and not os.access(folder, os.W_OK | os.X_OK):
        raise InvalidEntry(f"its folder {folder} is read-only; name another one with --output-dir")
    if not options.overwrite:
        if folder not in ledgers:
            ledgers[folder] = read_ledger(folder)
        paths = _pending(paths, recording, {**settings, "channel": channel}, ledgers[folder], kept)
    if not paths:
        return None
    seconds = None if recording.is_stream else open_recording(recording.path).seconds
    name = os.path.relpath(base, options.folder) if options.folder is not None else base.name
    return Task(recording, channel, name, paths, seconds)


def _pending(
    paths: Mapping[str, Path],
    recording: Recording,
    settings: Mapping[str, Any],
    ledger: Ledger,
    kept: _Kept,
) -> dict[str, Path]:
    """Returns the outputs that are not done; adds those that are not replaced to `kept`."""
    pending = {}
    stale: dict[str, list[str]] = {}  # the names of outputs by the reason why they are written again
    for name, path in paths.items():
        state = ledger.state(path.name, recording, settings)
        if state.state == "conflict":
            kept.conflicts.append(f"{path} {state.reason}")
        if state.state == "stale":
            stale.setdefault(state.reason, []).append(path.name)
        if state.state != "done":
            pending[name] = path
        elif state.reason:
            kept.edited.append(str(path))
    for reason, names in stale.items():
        logger.info(utf8_path(f"{recording}: again, since {reason}: {', '.join(names)}"))
    return pending


def write_outputs(
    task: Task,
    facts: RecordingFacts,
    texts: Mapping[str, str],
    settings: Mapping[str, Any],
    ledgers: dict[Path, Ledger],
) -> None:
    """Writes the `texts` of a task, by their formats, each whole or not at all, and a row of the ledger before them.

    `facts` are what was known of the recording before it was read. Raises UserError for a full disk.
    """
    contents = {task.outputs[name]: text.encode() for name, text in texts.items()}
    folder = task.folder
    hashes = {path.name: hashlib.sha256(content).hexdigest() for path, content in contents.items()}
    with report_full_disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
    ledgers.setdefault(folder, Ledger(folder)).add(facts, {**settings, "channel": task.channel}, hashes)
    for path, content in contents.items():
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)


def _describe_conflicts(conflicts: Sequence[str]) -> str:
    shown = _some_of(conflicts, MAX_CONFLICTS_SHOWN)
    return f"{shown}: nothing was replaced; name another --output-dir, or replace with --overwrite"


def _some_of(items: Sequence[str], shown: int) -> str:
    """Returns the first items, and how many there are beside them."""
    rest = f" (and {len(items) - shown} more)" if len(items) > shown else ""
    return "; ".join(items[:shown]) + rest
