"""The samples of a cut: read only from files that are what the manifest says, and only numbers that can be audio."""

import io
import math
import os
import stat
from collections.abc import Callable, Iterator

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

LENGTH_TOLERANCE = 0.025  # seconds between a file and its manifest: what lhotse pads or cuts off in silence
LOUDEST = 1000.0  # 60 dB above full scale: no gain or noise of training comes near, 16-bit integers as floats go beyond

LEAST_SPEED, MOST_SPEED = 0.1, 10.0  # beyond that, nobody understands a word
LARGEST_FILTER = 1 << 23  # numbers of a resampling filter: lhotse takes 33 bytes for each while it makes one


def load_samples(cut: Cut, longest: float | None = MAX_CUT_SECONDS) -> torch.Tensor:
    """The audio of one cut, of its own channel, (samples,) float32 in -1 .. 1.

    Raises InvalidEntry when the cut has more than `longest` seconds (nothing is read then), when a file cannot be read, is not a
    regular file or differs in rate or length from its manifest, and for samples that are not finite or not audio.
    """
    check_audio(cut, longest)
    try:
        samples = torch.from_numpy(cut.load_audio())
    except Exception as error:  # lhotse wraps whatever its many readers raise
        raise cannot_read(cut.id, _source_name(cut), error) from error
    if len(samples) != 1:
        raise InvalidEntry(f"{cut.id}: {len(samples)} channels, expected one")
    try:
        return require_audible(samples[0], cut, 0)
    except InvalidEntry:
        if not isinstance(cut, MonoCut):  # name the noise that is to blame, not the speech that it is mixed with
            for part in _parts(cut):
                load_samples(part, longest)
        raise


def check_audio(cut: Cut, longest: float | None) -> None:
    """Raise InvalidEntry, before any sample is read, for a cut that is too long or whose files are not as the manifest says."""
    if problem := length_problem(cut.duration, longest):
        raise InvalidEntry(f"{cut.id}: {problem}")
    for part in _parts(cut):
        if not part.has_recording:
            raise InvalidEntry(f"{part.id}: no recording; give a manifest with audio, or use its stored features")
        try:
            seconds = _seconds_of_files(part.recording)
        except Exception as error:  # what lhotse's transforms raise over numbers that are none
            raise InvalidEntry(
                f"{part.id}: its transforms cannot be applied ({str(error) or type(error).__name__})"
            ) from error
        for source in part.recording.sources:
            if source.type in ("file", "memory"):
                _check_file(part, source, seconds)


def _parts(cut: Cut) -> Iterator[MonoCut]:
    """The cut itself, or the speech and the noises that are mixed in it."""
    if isinstance(cut, MonoCut):
        yield cut
    else:
        yield from (track.cut for track in cut.tracks if isinstance(track.cut, MonoCut))


def _seconds_of_files(recording: Recording) -> float:
    """The duration of a recording's files, from which its transforms (speed, rate) make `recording.duration`."""
    seconds = recording.duration
    for transform in reversed(recording.transforms or []):
        made = transform if isinstance(transform, AudioTransform) else AudioTransform.from_dict(transform)
        _require_bounded(made, recording.sampling_rate)
        _, seconds = made.reverse_timestamps(0.0, seconds, recording.sampling_rate)
    return seconds


def _require_bounded(transform: AudioTransform, rate: int) -> None:
    """ValueError for a change of speed or rate that takes memory out of proportion to the audio."""
    if isinstance(transform, Resample):
        for hertz in (transform.source_sampling_rate, transform.target_sampling_rate):
            if not MIN_SAMPLING_RATE <= hertz <= MAX_SAMPLING_RATE:
                raise ValueError(f"a change of rate from or to {hertz} Hz")
    if not isinstance(transform, Speed):
        return
    if not LEAST_SPEED <= transform.factor <= MOST_SPEED:
        raise ValueError(f"a speed of {transform.factor}")
    wanted = round(rate * transform.factor)
    if not _filter_fits(wanted, rate):
        others = (other for off in range(rate) for other in (wanted - off, wanted + off))
        near = next(other for other in others if _filter_fits(other, rate)) / rate
        raise ValueError(f"a speed of {transform.factor:g} takes gigabytes at {rate} Hz; {near:.6g} does not")


def _filter_fits(rate: int, other: int) -> bool:
    """Whether the filter between two rates is small: it has a row for each phase, so they need a large divisor."""
    divisor = math.gcd(rate, other)
    return (rate // divisor) * (other // divisor) <= LARGEST_FILTER


def _check_file(cut: MonoCut, source: AudioSource, seconds: float) -> None:
    """Compare the header with the manifest. A file that is longer than it says would be read whole all the same."""
    name = str(source.source)[:200] if source.type == "file" else "audio in memory"
    try:
        if source.type == "file" and not stat.S_ISREG(os.stat(source.source).st_mode):
            raise OSError("not a regular file")
        with soundfile.SoundFile(io.BytesIO(source.source) if source.type == "memory" else source.source) as file:
            rate, found = file.samplerate, file.frames / file.samplerate
    except Exception as error:
        raise cannot_read(cut.id, name, error) from error
    wanted = None if cut.recording.transforms else cut.recording.sampling_rate
    if abs(found - seconds) > LENGTH_TOLERANCE or wanted not in (None, rate):
        said = f"{seconds:.3f} s" + (f" at {wanted} Hz" if wanted else "")
        raise InvalidEntry(f"{cut.id}: the manifest says {said}, the file has {found:.3f} s at {rate} Hz: {name}")


def cannot_read(name: str, source: str, error: Exception) -> InvalidEntry:
    """The problem of audio that cannot be read."""
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0][:200] or type(error).__name__
    return InvalidEntry(f"{name}: cannot read {source} ({reason})")


def _source_name(cut: Cut) -> str:
    names = [str(part.recording.sources[0].source)[:200] for part in _parts(cut)]
    return " mixed with ".join(names[:2])


def require_audible(samples: torch.Tensor, cut: Cut, first: int) -> torch.Tensor:
    """`samples`, of which the first one is number `first` of the cut. Raises InvalidEntry for one that cannot be audio."""
    if not len(samples):
        return samples
    low, high = samples.aminmax()
    if not (low > -LOUDEST and high < LOUDEST):  # NaN is neither
        at = int((samples.abs() < LOUDEST).logical_not().nonzero()[0])
        when = f"{(first + at) / cut.sampling_rate:.3f} s"
        raise InvalidEntry(
            f"{cut.id}: the sample at {when} is {float(samples[at]):g}; samples must lie between -1 and 1"
        )
    return samples


def block_reader(cut: Cut, longest: float | None = MAX_CUT_SECONDS) -> Callable[[int, int], torch.Tensor]:
    """read(begin, end): the samples `begin` to `end` of the cut as `load_samples` gives them.

    A cut of a plain file is read from there each time, so that a long one is never held whole; others are read once.
    """
    if not (isinstance(cut, MonoCut) and cut.has_recording and _is_plain(cut.recording)):
        whole = load_samples(cut, longest)
        return lambda begin, end: whole[begin:end]
    check_audio(cut, longest)
    (source,) = cut.recording.sources
    first, channel = compute_num_samples(cut.start, cut.sampling_rate), source.channels.index(cut.channel)

    def read(begin: int, end: int) -> torch.Tensor:
        try:
            with soundfile.SoundFile(source.source) as file:
                file.seek(first + begin)
                samples = file.read(end - begin, dtype="float32", always_2d=True)[:, channel]
                missing = end - begin - len(samples)
                if missing > LENGTH_TOLERANCE * cut.sampling_rate:
                    raise EOFError(f"it ends {missing / cut.sampling_rate:.3f} s early")
        except Exception as error:
            raise cannot_read(cut.id, source.source, error) from error
        return require_audible(torch.from_numpy(np.pad(samples, (0, missing), "reflect")), cut, begin)

    return read


def _is_plain(recording: Recording) -> bool:
    return len(recording.sources) == 1 and recording.sources[0].type == "file" and not recording.transforms
