"""The samples of a cut: read only from files that agree with the manifest, and only numbers that can be audio."""

import io
import math
import os
import stat
from collections.abc import Callable, Iterator
from itertools import chain

import numpy as np
import soundfile
import torch
from lhotse import MonoCut, Recording
from lhotse.audio import AudioSource
from lhotse.augmentation import AudioTransform, Resample, Speed
from lhotse.cut import Cut
from lhotse.utils import compute_num_samples

from asrtool.data.entry_checks import MAX_CUT_SECONDS, MAX_SAMPLING_RATE, MIN_SAMPLING_RATE, length_problem
from asrtool.data.sources import InvalidEntry

LENGTH_TOLERANCE = 0.025  # seconds between a file and its manifest: what lhotse pads or cuts off silently
MAX_AMPLITUDE = 1000.0  # 60 dB above full scale: no gain or noise comes near, 16-bit integers as floats go beyond

MIN_SPEED, MAX_SPEED = 0.1, 10.0  # beyond that, nobody understands a word
MAX_FILTER = 1 << 23  # numbers of a resampling filter: lhotse takes 33 bytes for each while it makes one


def load_samples(cut: Cut, max_seconds: float | None = MAX_CUT_SECONDS) -> torch.Tensor:
    """Returns the audio of one cut, of its own channel, (samples,) float32 in -1 .. 1.

    Raises InvalidEntry if the cut has more than `max_seconds` (nothing is read then), if a file cannot be read, is not
    a regular file or differs in rate or length from its manifest, and for samples that are not finite or not audio.
    """
    check_audio(cut, max_seconds)
    try:
        samples = torch.from_numpy(cut.load_audio())  # (channels, samples)
    except Exception as error:  # lhotse wraps whatever its many readers raise
        raise unreadable(cut.id, _source_names(cut), error) from error
    if len(samples) != 1:
        raise InvalidEntry(f"{cut.id}: {len(samples)} channels, expected one")
    try:
        return require_audible(samples[0], cut, 0)
    except InvalidEntry:
        if not isinstance(cut, MonoCut):  # name the noise that is to blame, not the speech that it is mixed with
            for part in _parts(cut):
                load_samples(part, max_seconds)
        raise


def check_audio(cut: Cut, max_seconds: float | None) -> None:
    """Raises InvalidEntry, before any sample is read, for a cut that is too long or whose files differ from the
    manifest."""
    if problem := length_problem(cut.duration, max_seconds):
        raise InvalidEntry(f"{cut.id}: {problem}")
    for part in _parts(cut):
        if not part.has_recording:
            raise InvalidEntry(f"{part.id}: no recording; give a manifest with audio, or use its stored features")
        try:
            seconds = _seconds_of_files(part.recording)
        except Exception as error:  # what lhotse's transforms raise over impossible numbers
            reason = str(error) or type(error).__name__
            raise InvalidEntry(f"{part.id}: its transforms cannot be applied ({reason})") from error
        for source in part.recording.sources:
            if source.type in ("file", "memory"):
                _check_file(part, source, seconds)


def _parts(cut: Cut) -> Iterator[MonoCut]:
    """Yields the cut itself, or the speech and the noises that are mixed in it."""
    if isinstance(cut, MonoCut):
        yield cut
    else:
        yield from (track.cut for track in cut.tracks if isinstance(track.cut, MonoCut))


def _seconds_of_files(recording: Recording) -> float:
    """Returns the duration of a recording's files, before its transforms (speed, rate)."""
    seconds = recording.duration
    for entry in reversed(recording.transforms or []):
        transform = entry if isinstance(entry, AudioTransform) else AudioTransform.from_dict(entry)
        _require_bounded(transform, recording.sampling_rate)
        _, seconds = transform.reverse_timestamps(0.0, seconds, recording.sampling_rate)
    return seconds


def _require_bounded(transform: AudioTransform, rate: int) -> None:
    """Raises ValueError for a change of speed or rate that takes memory out of proportion to the audio."""
    if isinstance(transform, Resample):
        for hertz in (transform.source_sampling_rate, transform.target_sampling_rate):
            if not MIN_SAMPLING_RATE <= hertz <= MAX_SAMPLING_RATE:
                raise ValueError(f"a change of rate from or to {hertz} Hz")
    if not isinstance(transform, Speed):
        return
    if not MIN_SPEED <= transform.factor <= MAX_SPEED:
        raise ValueError(f"a speed of {transform.factor}")
    target_rate = round(rate * transform.factor)
    if not _filter_fits(target_rate, rate):
        candidates = chain.from_iterable((target_rate - offset, target_rate + offset) for offset in range(rate))
        speed = next(candidate for candidate in candidates if _filter_fits(candidate, rate)) / rate
        raise ValueError(f"a speed of {transform.factor:g} takes gigabytes at {rate} Hz; {speed:.6g} does not")


def _filter_fits(rate: int, other: int) -> bool:
    """Returns True if the resampling filter between two rates is small: a large common divisor gives few phases."""
    divisor = math.gcd(rate, other)
    return (rate // divisor) * (other // divisor) <= MAX_FILTER


def _check_file(cut: MonoCut, source: AudioSource, seconds: float) -> None:
    """Compares a file's header with the manifest. A longer file than the manifest says would be read whole."""
    name = str(source.source)[:200] if source.type == "file" else "audio in memory"
    try:
        if source.type == "file" and not stat.S_ISREG(os.stat(source.source).st_mode):
            raise OSError("not a regular file")
        with soundfile.SoundFile(io.BytesIO(source.source) if source.type == "memory" else source.source) as file:
            file_rate = file.samplerate
            file_seconds = file.frames / file.samplerate
    except Exception as error:
        raise unreadable(cut.id, name, error) from error
    rate = None if cut.recording.transforms else cut.recording.sampling_rate
    if abs(file_seconds - seconds) > LENGTH_TOLERANCE or rate not in (None, file_rate):
        manifest = f"{seconds:.3f} s" + (f" at {rate} Hz" if rate else "")
        differs = f"the manifest says {manifest}, the file has {file_seconds:.3f} s at {file_rate} Hz"
        raise InvalidEntry(f"{cut.id}: {differs}: {name}")


def unreadable(cut_id: str, source: str, error: Exception) -> InvalidEntry:
    """Returns the problem of audio that cannot be read."""
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0][:200] or type(error).__name__
    return InvalidEntry(f"{cut_id}: cannot read {source} ({reason})")


def _source_names(cut: Cut) -> str:
    names = [str(part.recording.sources[0].source)[:200] for part in _parts(cut)]
    return " mixed with ".join(names[:2])


def require_audible(samples: torch.Tensor, cut: Cut, first: int) -> torch.Tensor:
    """Returns `samples`, which begin at sample `first` of the cut. Raises InvalidEntry if one cannot be audio."""
    if not len(samples):
        return samples
    low, high = samples.aminmax()
    if not (low > -MAX_AMPLITUDE and high < MAX_AMPLITUDE):  # NaN is neither
        index = int((samples.abs() < MAX_AMPLITUDE).logical_not().nonzero()[0])
        seconds = (first + index) / cut.sampling_rate
        value = float(samples[index])
        raise InvalidEntry(f"{cut.id}: the sample at {seconds:.3f} s is {value:g}; samples must lie between -1 and 1")
    return samples


def block_reader(cut: Cut, max_seconds: float | None = MAX_CUT_SECONDS) -> Callable[[int, int], torch.Tensor]:
    """Returns read(begin, end), which returns the samples `begin` to `end` of the cut as of `load_samples`.

    A cut of a plain file is read from there each time, so that a long one is never held whole; others are read once.
    """
    if not (isinstance(cut, MonoCut) and cut.has_recording and _is_plain(cut.recording)):
        whole = load_samples(cut, max_seconds)
        return lambda begin, end: whole[begin:end]
    check_audio(cut, max_seconds)
    (source,) = cut.recording.sources
    first = compute_num_samples(cut.start, cut.sampling_rate)
    channel = source.channels.index(cut.channel)

    def read(begin: int, end: int) -> torch.Tensor:
        try:
            with soundfile.SoundFile(source.source) as file:
                file.seek(first + begin)
                samples = file.read(end - begin, dtype="float32", always_2d=True)[:, channel]
                missing = end - begin - len(samples)
                if missing > LENGTH_TOLERANCE * cut.sampling_rate:
                    raise EOFError(f"it ends {missing / cut.sampling_rate:.3f} s early")
        except Exception as error:
            raise unreadable(cut.id, source.source, error) from error
        return require_audible(torch.from_numpy(np.pad(samples, (0, missing), "reflect")), cut, begin)

    return read


def _is_plain(recording: Recording) -> bool:
    return len(recording.sources) == 1 and recording.sources[0].type == "file" and not recording.transforms
