"""One pass over the audio of one recording: its header, its samples, and the measures of its utterances."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import soundfile

from asrtool.data.audio import (
    AudioInfo,
    check_header,
    describe_unreadable,
    is_command,
    missing_bytes,
    open_audio,
    regular_file,
)
from asrtool.data.audio_decoders import ForwardFile
from asrtool.data.shards import SharItem
from asrtool.data.sources import InvalidEntry, commands_allowed, require_plain_path
from asrtool.doctor.data_entries import Source
from asrtool.doctor.data_signal import Signal, measure_signal
from asrtool.doctor.findings import shortened

BLOCK = 1 << 20  # samples of all channels that are read at a time
MAX_WHOLE = 1 << 26  # samples of all channels that are held at once, 256 MB: longer recordings are read by utterance
COPY_TOLERANCE = 1e-4  # of full scale: channels that differ by less are equal
MIN_PEAK = 1e-3  # of full scale, -60 dB: a channel below it is silent


@dataclass(frozen=True, slots=True)
class Segment:
    """Where an utterance is in its recording, by the times of the manifest."""

    number: int  # of the utterance, in the caller's order
    start: float  # seconds
    seconds: float
    channel: int  # index among the channels of the file


@dataclass(frozen=True, slots=True)
class RecordingJob:
    """One recording to be measured, with its utterances."""

    source: Source
    segments: tuple[Segment, ...]
    model_rate: int | None = None  # Hz


@dataclass(slots=True)
class Measured:
    """The measures of a recording; `problems` are kinds of fault with details."""

    problems: list[tuple[str, str]] = field(default_factory=list)
    info: AudioInfo | None = None  # by the header
    format: str = ""
    samples: int = 0  # decoded, of each channel
    peaks: tuple[float, ...] = ()  # of each channel, for recordings with several
    relation: str = ""  # "identical" or "opposite" channels
    signals: dict[int, Signal] = field(default_factory=dict)  # number of the utterance -> its measures
    missing: dict[int, float] = field(default_factory=dict)  # number -> seconds that the file does not have


def measure_recording(job: RecordingJob) -> Measured:
    """Decodes a recording once and measures its utterances. Never raises over what the file contains."""
    measured = Measured()
    try:
        audio = _open(job.source)
        _measure(audio, job, measured)
    except _Problem as problem:
        measured.problems.append((problem.kind, str(problem)))
    except Exception as error:  # what decoders raise over damaged headers
        measured.problems.append(("unreadable-audio", f"{type(error).__name__}: {shortened(str(error), 150)}"))
    return measured


class _Problem(Exception):
    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


def _open(source: Source) -> str | io.BytesIO:
    """Returns a path, or the bytes of a command's output or of an item of a tar file."""
    if isinstance(source.audio, SharItem):
        with open(source.audio.tar, "rb") as tar:
            tar.seek(source.audio.start)
            return io.BytesIO(tar.read(source.audio.size))
    if source.kind not in ("file", "command") or (source.kind == "command" and not commands_allowed()):
        raise _Problem("command-or-address", f"of type {source.kind[:30]!r}: {shortened(str(source.audio), 150)}")
    try:
        if source.kind == "command":
            return open_audio(f"{source.audio} |")
        return regular_file(require_plain_path(source.audio))
    except InvalidEntry as problem:
        kind = "missing-file" if "no such audio file" in str(problem) else "unreadable-audio"
        kind = "command-or-address" if is_command(source.audio) or "--allow-commands" in str(problem) else kind
        raise _Problem(kind, str(problem)) from problem


@contextmanager
def _sound_file(audio: str | io.BytesIO, name: str) -> Iterator[soundfile.SoundFile]:
    try:
        file = ForwardFile(audio)
    except Exception as error:
        reason = getattr(error, "error_string", None) or str(error) or type(error).__name__
        raise _Problem("unreadable-audio", describe_unreadable(audio, name, reason)) from error
    with file:
        yield file


def _measure(audio: str | io.BytesIO, job: RecordingJob, measured: Measured) -> None:
    name = str(job.source.audio)
    with _sound_file(audio, name) as file:
        info = AudioInfo(file.samplerate, file.frames, file.channels)
        try:
            check_header(info, name, audio)
        except InvalidEntry as problem:
            raise _Problem("unreadable-audio", str(problem)) from problem
        measured.info = info
        measured.format = f"{file.format} {file.subtype}"
        if info.samples * info.channels <= MAX_WHOLE:
            samples = _read(file, info.samples, measured)  # (n, channels)
            measured.samples = len(samples)
            _compare_channels(samples, measured)
            _measure_segments(samples, job, measured)
        else:
            _measure_by_seeking(file, job, measured)
    if not measured.problems and (missing := missing_bytes(audio)):
        measured.problems.append(("truncated", f"{missing} bytes fewer than its header says: {name}"))
    elif not measured.problems and measured.samples < info.samples:
        seconds, expected = measured.samples / info.rate, info.samples / info.rate
        measured.problems.append(("truncated", f"{seconds:.2f} s of {expected:.2f} s: {name}"))


def _read(file: soundfile.SoundFile, count: int, measured: Measured) -> np.ndarray:
    """Returns up to `count` samples (n, channels) float32. An error of the decoder ends them, and is a problem."""
    blocks: list[np.ndarray] = []
    missing = count
    try:
        while missing > 0:
            block = file.read(min(missing, max(1, BLOCK // file.channels)), dtype="float32", always_2d=True)
            if not len(block):
                break
            blocks.append(block)
            missing -= len(block)
    except Exception as error:  # libsndfile's, for a damaged block
        seconds = (count - missing) / file.samplerate
        measured.problems.append(("damaged-audio", f"from {seconds:.1f} s on ({shortened(str(error), 100)})"))
    if len(blocks) == 1:
        return blocks[0]
    return np.concatenate([np.zeros((0, file.channels), np.float32), *blocks])


def _compare_channels(samples: np.ndarray, measured: Measured) -> None:
    """Records the peak of each channel, and whether two are copies or inversions of each other; samples (n, c)."""
    channels = samples.shape[1]
    if channels < 2 or not len(samples):
        return
    measured.peaks = tuple(float(peak) for peak in np.abs(samples).max(axis=0))
    first, second = samples[:, 0], samples[:, 1]
    if not min(measured.peaks[:2]) >= MIN_PEAK:
        return
    if np.abs(samples - samples[:, :1]).max() <= COPY_TOLERANCE:
        measured.relation = "identical"
    elif channels == 2 and float(np.mean((first + second) ** 2)) < 0.01 * float(np.mean((first - second) ** 2)):
        measured.relation = "opposite"


def _measure_segments(samples: np.ndarray, job: RecordingJob, measured: Measured) -> None:
    for segment in job.segments:
        first, last = _span(segment, job.source, measured)
        _measure_segment(samples[first:last], segment, last - first, job, measured)


def _measure_by_seeking(file: soundfile.SoundFile, job: RecordingJob, measured: Measured) -> None:
    """Measures the utterances of a long recording one by one, at most MAX_WHOLE samples of each."""
    assert measured.info is not None
    measured.samples = measured.info.samples
    for segment in job.segments:
        first, last = _span(segment, job.source, measured)
        last = min(last, first + MAX_WHOLE // file.channels)
        try:
            file.seek(min(first, measured.info.samples))
        except Exception as error:
            measured.problems.append(("damaged-audio", shortened(str(error), 100)))
            return
        _measure_segment(_read(file, last - first, measured), segment, last - first, job, measured)


def _span(segment: Segment, source: Source, measured: Measured) -> tuple[int, int]:
    """Returns the first sample of an utterance in the file, and the one after its last.

    Transforms such as a change of speed may give the recording another duration than the file has.
    """
    assert measured.info is not None
    stretch = 1.0
    if not source.is_plain and source.seconds > 0:
        stretch = measured.info.samples / measured.info.rate / source.seconds
    first = round(segment.start * stretch * measured.info.rate)
    return first, first + round(segment.seconds * stretch * measured.info.rate)


def _measure_segment(samples: np.ndarray, segment: Segment, count: int, job: RecordingJob, measured: Measured) -> None:
    """Measures the samples (n, channels) of an utterance that should have `count` samples."""
    assert measured.info is not None
    if missing := count - len(samples):
        measured.missing[segment.number] = missing / measured.info.rate
    if len(samples) and segment.channel < samples.shape[1]:
        own = np.ascontiguousarray(samples[:, segment.channel])
        measured.signals[segment.number] = measure_signal(own, measured.info.rate, job.model_rate)
