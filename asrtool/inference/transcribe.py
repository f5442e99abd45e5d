"""Many recordings to text, into files or to standard output: what cannot be read is listed, and the others go on."""

import hashlib
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol

import asrtool
from asrtool.data.sources import InvalidEntry
from asrtool.errors import DataError, one_line
from asrtool.files import file_hash, utf8_path
from asrtool.inference.ledger import Ledger, recording_facts
from asrtool.inference.output_plan import OutputOptions, Plan, Task, describe_problem, plan_outputs, write_outputs
from asrtool.inference.outputs import FORMATS
from asrtool.inference.recordings import STDIN, Found, Recording
from asrtool.inference.results import Segment, Transcript
from asrtool.logs import printable
from asrtool.progress import progress_meter

if TYPE_CHECKING:
    from asrtool.inference.model import Model

logger = logging.getLogger(__name__)

# Errors of one recording, after which the next one is read: a full disk is a UserError, and ends the command.
RECORDING_ERRORS = (InvalidEntry, DataError, OSError)

Channel = int | Literal["mix"]
Echo = Callable[[str], object]


class Recogniser(Protocol):
    """What recognises recordings: asrtool.inference.model.Model, or a stand-in of a test."""

    def transcribe(
        self, source: Any, *, channel: Channel = "mix", on_progress: Callable[[float], object] | None = None
    ) -> Transcript:
        """Returns the words of a recording."""

    def segments(self, source: Any, *, channel: Channel = "mix") -> Iterator[Segment]:
        """Yields the segments of a recording as they are recognised."""


def system_settings(model: "Model") -> dict[str, Any]:
    """Returns what determines transcripts besides the recording, as plain types: files stand as parts of their hash."""
    experiment = model.experiment
    files = {
        "weights": experiment.checkpoint,
        "configuration": experiment.folder / "config.yaml",
        "units": experiment.folder / "tokenizer.json",
        "calibration": experiment.files.calibration,
    }
    precision = experiment.computed_precision
    chosen = {**files, "precision": precision, "max_seconds": model.max_seconds, "vad": _vad_name(model.vad)}
    chosen |= model.options
    values = {name: _as_setting(value) for name, value in chosen.items() if value is not None}
    return {"asrtool": asrtool.__version__, "method": model.method, **values}


def _vad_name(name: str) -> str:
    """Returns the speech detector that "auto" stands for."""
    if name != "auto":
        return name
    return "silero" if find_spec("silero_vad") else "energy"


def _as_setting(value: Any) -> Any:
    if isinstance(value, Path):
        # a graph is a folder, whose graph.json has the hashes of its files
        return file_hash(value / "graph.json" if value.is_dir() else value)[:12]
    if isinstance(value, bool | int | float | str):
        return value
    return hashlib.sha256(repr(value).encode()).hexdigest()[:12]


def transcribe_to_files(
    recogniser: Recogniser, found: Found, options: OutputOptions, settings: Mapping[str, Any]
) -> str:
    """Writes the transcripts of all recordings that are not done yet; returns a line that says what was done.

    Each file appears whole or not at all, and what is written stays if the command is interrupted. Raises UserError
    as of `plan_outputs` and for a full disk, and at the end DataError with all recordings that could not be read.
    """
    ledgers: dict[Path, Ledger] = {}
    plan = plan_outputs(found.recordings, options, settings, ledgers)
    problems = [*found.problems, *plan.problems]
    _log_problems(problems, has_more=bool(plan.tasks))
    start_time = time.monotonic()
    written: list[Task] = []
    seconds = 0.0
    with progress_meter("transcribing", _total_seconds(plan.tasks), "s of audio") as add_seconds:
        for number, task in enumerate(plan.tasks, 1):
            meter = _RecordingMeter(add_seconds, task.seconds)
            try:
                transcript = _transcribe_task(recogniser, task, settings, ledgers, meter)
            except RECORDING_ERRORS as error:
                problems.append(describe_problem(task.recording, error))
                _log_problems(problems[-1:], has_more=number < len(plan.tasks))
            else:
                written.append(task)
                seconds += transcript.seconds
            meter.finish()
    num_written = len({task.recording for task in written})
    _raise_problems(problems, num_written + plan.num_done)
    return _summary(plan, num_written, seconds, time.monotonic() - start_time)


class _RecordingMeter:
    """Turns positions in a recording into amounts of progress."""

    def __init__(self, add_seconds: Callable[[float], object], seconds: float | None):
        self.add_seconds = add_seconds
        self.seconds = seconds
        self.position = 0.0

    def move_to(self, position: float) -> None:
        if position > self.position:
            self.add_seconds(position - self.position)
            self.position = position

    def finish(self) -> None:
        """Adds the silence at the end, or what could not be read."""
        self.move_to(self.seconds or 0.0)


def _total_seconds(tasks: Sequence[Task]) -> float | None:
    known = [task.seconds for task in tasks if task.seconds is not None]
    return sum(known) if len(known) == len(tasks) else None


def _transcribe_task(
    recogniser: Recogniser,
    task: Task,
    settings: Mapping[str, Any],
    ledgers: dict[Path, Ledger],
    meter: _RecordingMeter,
) -> Transcript:
    """Recognises one channel of a recording and writes its outputs."""
    facts = recording_facts(task.recording, task.folder)  # before it is read: it may change meanwhile
    source = _source(task.recording)
    transcript = recogniser.transcribe(source, channel=task.channel, on_progress=meter.move_to)
    texts = {name: FORMATS[name](transcript, task.name) for name in task.outputs}
    write_outputs(task, facts, texts, settings, ledgers)
    names = utf8_path(", ".join(path.name for path in task.outputs.values()))
    channel = "" if task.channel == "mix" else f" channel {task.channel}"
    what = f"{transcript.seconds:.1f} s, {len(transcript.words)} words, written to {names}"
    logger.info(f"{utf8_path(str(task.recording))}{channel}: {what}")
    return transcript


def _source(recording: Recording) -> Path | BinaryIO:
    return sys.stdin.buffer if recording.path == STDIN else recording.path


def _summary(plan: Plan, num_written: int, seconds: float, wall_seconds: float) -> str:
    before = f", {plan.num_done} done before" if plan.num_done else ""
    if not num_written:
        return f"nothing to transcribe{before}"
    speed = seconds / max(wall_seconds, 1e-3)
    recordings = f"{num_written} recording{'s' * (num_written > 1)}"
    return f"{recordings}{before}: {seconds:.0f} s of audio in {wall_seconds:.1f} s, {speed:.1f} times real time"


def transcribe_to_stdout(recogniser: Recogniser, found: Found, options: OutputOptions, echo: Echo) -> None:
    """Passes the text of each recording to `echo`, in format txt segment by segment as soon as it is recognised.

    With several recordings, txt has a heading for each, as `head` and `tail` print it. Raises DataError at the end,
    with all recordings that could not be read.
    """
    recordings = found.recordings
    (format,) = options.formats
    problems = list(found.problems)
    _log_problems(problems, has_more=True)
    for number, recording in enumerate(recordings, 1):
        if format == "txt" and len(recordings) > 1:
            title = printable(one_line(utf8_path(str(recording))))
            echo(f"==> {title} <==\n" if number == 1 else f"\n==> {title} <==\n")
        num_problems = len(problems)
        for text in _recognised_texts(recogniser, recording, format, options.channel, problems):
            echo(text)
        _log_problems(problems[num_problems:], has_more=number < len(recordings))
    _raise_problems(problems, len(recordings) + len(found.problems) - len(problems))


def _recognised_texts(
    recogniser: Recogniser, recording: Recording, format: str, channel: Any, problems: list[str]
) -> Iterator[str]:
    """Yields the text of a recording in parts; adds to `problems` what ends it. Errors of the caller are not caught."""
    source = _source(recording)
    try:
        if format == "txt":
            for segment in recogniser.segments(source, channel=channel):
                if segment.words:
                    yield f"{segment.text}\n"
        else:
            yield FORMATS[format](recogniser.transcribe(source, channel=channel), recording.name)
    except RECORDING_ERRORS as error:
        problems.append(describe_problem(recording, error))


def _log_problems(problems: Sequence[str], has_more: bool) -> None:
    """Logs problems at once if there are more recordings to come; the error at the end lists all of them."""
    if has_more:
        for problem in problems:
            logger.warning(utf8_path(one_line(problem)))


def _raise_problems(problems: Sequence[str], num_good: int) -> None:
    """Raises DataError if there are problems."""
    if not problems:
        return
    total = len(problems) + num_good
    rest = "; the others are done" if num_good else ""
    raise DataError(f"{len(problems)} of {total} recordings could not be transcribed{rest}", list(problems))
