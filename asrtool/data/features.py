"""Log-mel features: one extractor for all uses, computed on the fly or read from where they were stored."""

import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from lhotse import Fbank, FbankConfig, MonoCut
from lhotse.features.io import LilcomChunkyWriter

from asrtool.data.entry_checks import MAX_CUT_SECONDS, length_problem
from asrtool.data.samples import block_reader, load_samples, require_audible
from asrtool.data.sources import InvalidEntry

FRAME_SHIFT = 0.01  # seconds, nominally; `frame_seconds` is exact
# The shortest audio that gives one frame. The first window begins 7.5 ms before the audio and ends 17.5 ms after its
# start; lhotse fills what is missing at either end with mirrored samples, so that no more can be missing than is there:
# 17.5 ms - x <= x.
MIN_FRAME_SECONDS = (0.025 - 0.0075) / 2
MAX_WHOLE_SECONDS = 60.0  # longer cuts are computed in blocks: windows and spectra take 20 times the samples' memory
BLOCK_SECONDS = 15.0
FRAME_TOLERANCE = 2  # largest difference of stored frames from the duration's: lhotse rounds both ends of a cut
TOO_SHORT = f"shorter than one frame, which needs {1000 * MIN_FRAME_SECONDS:g} ms of audio"


@lru_cache(maxsize=2)
def extractor(sampling_rate: int, num_bins: int) -> Fbank:
    """Returns the log-mel filterbank: 25 ms Povey windows every 10 ms, 20 Hz up to 400 Hz below half the rate."""
    return Fbank(FbankConfig(sampling_rate=sampling_rate, num_filters=num_bins, frame_shift=FRAME_SHIFT))


SamplesChange = Callable[[torch.Tensor], torch.Tensor]  # (n,) float32 -> (n,) float32


def compute_features(
    cut: MonoCut, num_bins: int, max_seconds: float | None = MAX_CUT_SECONDS, change: SamplesChange | None = None
) -> torch.Tensor:
    """Returns the features of one cut, (T, F) float32, computed from its audio alone: other cuts do not change them.

    `change` augments the samples first. Raises InvalidEntry if the audio cannot be read or has more than `max_seconds`
    (None is no limit), and for features that are not finite.
    """
    if is_too_short(cut):
        raise InvalidEntry(f"{cut.id}: {TOO_SHORT}")
    if cut.duration > MAX_WHOLE_SECONDS and change is None:
        return _compute_in_blocks(cut, num_bins, block_reader(cut, max_seconds))
    samples = load_samples(cut, max_seconds)
    if change:
        samples = require_audible(change(samples), cut, 0)
    if cut.duration > MAX_WHOLE_SECONDS:
        return _compute_in_blocks(cut, num_bins, lambda begin, end: samples[begin:end])
    features = extractor(cut.sampling_rate, num_bins).extract(samples, cut.sampling_rate)
    return _require_finite(features, cut, 0)


def features_of_samples(samples: np.ndarray, sampling_rate: int, num_bins: int) -> torch.Tensor:
    """Returns the features of samples (n,) float32 in -1 .. 1, as `compute_features` of a cut of them: (T, F) float32.

    T is 0 for samples that are shorter than a frame. All samples are computed at once: meant for at most a minute.
    """
    if len(samples) < MIN_FRAME_SECONDS * sampling_rate:
        return torch.zeros(0, num_bins)
    return torch.as_tensor(extractor(sampling_rate, num_bins).extract(samples, sampling_rate))


def is_too_short(cut: MonoCut) -> bool:
    """Returns True if the audio of a cut is shorter than a frame."""
    return cut.has_recording and cut.num_samples < MIN_FRAME_SECONDS * cut.sampling_rate


def _compute_in_blocks(cut: MonoCut, num_bins: int, read_samples: Callable[[int, int], torch.Tensor]) -> torch.Tensor:
    """Computes the same features block by block: a frame depends on samples within two frame shifts of it."""
    extract = extractor(cut.sampling_rate, num_bins).extract
    num_frames = count_frames(cut.num_samples, cut.sampling_rate)
    shift = samples_per_frame(cut.sampling_rate)
    block_frames = round(BLOCK_SECONDS / FRAME_SHIFT)
    features = torch.empty(num_frames, num_bins)  # (T, F)
    for begin in range(0, num_frames, block_frames):
        end = min(begin + block_frames, num_frames)
        first = max(0, begin - 2)
        last = min(num_frames, end + 2)
        samples = read_samples(first * shift, cut.num_samples if last == num_frames else last * shift)
        block = extract(samples, cut.sampling_rate)[begin - first : end - first]
        features[begin:end] = _require_finite(block, cut, begin)
    return features


def _require_finite(features: torch.Tensor, cut: MonoCut, first: int) -> torch.Tensor:
    """Returns `features`, which begin at frame `first` of the cut. Raises InvalidEntry if a frame is not finite."""
    if not features.isfinite().all():
        frame = first + int(features.isfinite().all(1).logical_not().nonzero()[0])
        seconds = frame * frame_seconds(cut.sampling_rate)
        raise InvalidEntry(f"{cut.id}: its features are not finite at {seconds:.2f} s (frame {frame})")
    return features


def load_features(
    cut: MonoCut,
    source: str,
    num_bins: int,
    max_seconds: float | None = MAX_CUT_SECONDS,
    change: SamplesChange | None = None,
) -> torch.Tensor:
    """Returns the features of one cut, (T, F) float32: `source` is "stored" or "on_the_fly". Raises InvalidEntry.

    `change` augments the samples of features that are computed on the fly.
    """
    if source == "on_the_fly":
        return compute_features(cut, num_bins, max_seconds, change)
    if not cut.has_features:
        raise InvalidEntry(f"{cut.id}: the manifest has no stored features; run `asrtool features`, or use on_the_fly")
    if problem := length_problem(cut.duration, max_seconds) or _kind_problem(cut, num_bins):
        raise InvalidEntry(f"{cut.id}: {problem}")
    try:
        _verify_stored(cut)
        features = torch.from_numpy(cut.load_features())
    except Exception as error:
        reason = f"{error}"[:200] or type(error).__name__
        path = cut.features.storage_path
        raise InvalidEntry(f"{cut.id}: cannot read {path} ({reason}); run `asrtool features` again") from error
    if features.ndim != 2 or features.shape[1] != num_bins or abs(len(features) - cut.num_frames) > FRAME_TOLERANCE:
        expected = f"({cut.num_frames}, {num_bins})"
        raise InvalidEntry(f"{cut.id}: its stored features have the shape {tuple(features.shape)}, not {expected}")
    return _require_finite(features.float(), cut, 0)


def stored_or_computed(cut: MonoCut, num_bins: int, max_seconds: float | None = MAX_CUT_SECONDS) -> torch.Tensor:
    """Returns the features of one cut as it is, (T, F): stored ones where the manifest has them, which are the same.

    Raises InvalidEntry.
    """
    return load_features(cut, "stored" if cut.has_features else "on_the_fly", num_bins, max_seconds)


def _kind_problem(cut: MonoCut, num_bins: int) -> str | None:
    """Returns how the type, rate or bins of stored features differ from `compute_features`; None if they are equal."""
    stored = cut.features
    if stored.num_features != num_bins:
        return f"{stored.num_features} bins are stored, the configuration says features.num_bins={num_bins}"
    rate = cut.recording.sampling_rate if cut.has_recording else stored.sampling_rate
    actual = _describe_kind(stored.type, stored.frame_shift, stored.sampling_rate)
    expected = _describe_kind(extractor(rate, num_bins).name, FRAME_SHIFT, rate)
    if actual == expected:
        return None
    return f"its stored features have {actual}, not {expected}; store them with `asrtool features`"


def _describe_kind(name: str, frame_shift: float, sampling_rate: int) -> str:
    return f"type {name}, frame_shift {frame_shift}, sampling_rate {sampling_rate}"


def _verify_stored(cut: MonoCut) -> None:
    """Compares the checksum that `asrtool features` wrote to the manifest with the stored bytes. Raises ValueError.

    The file must be a regular one: reading a named pipe would wait for ever.
    """
    stored = cut.features
    if stored.storage_type.startswith("memory"):
        return
    path = Path(stored.storage_path)
    if stored.storage_type.endswith("_files"):  # lhotse puts a "/" between them, even before a key that begins with one
        path = Path(f"{stored.storage_path}/{stored.storage_key}")
    if path.exists() and not path.is_file():
        raise ValueError("not a regular file")
    expected = (cut.custom or {}).get("features_crc32") if stored.storage_type == LilcomChunkyWriter.name else None
    if expected is not None and stored_crc32(path, stored.storage_key) != expected:
        raise ValueError("damaged: its checksum differs")


def stored_crc32(archive: Path, key: str) -> int:
    """Returns the CRC-32 of the bytes of one feature matrix.

    `key` is lhotse's storage key, "offset,size,size,...": where the matrix begins, and the sizes of its parts in bytes.
    """
    offset, *sizes = map(int, key.split(","))
    with open(archive, "rb") as file:
        file.seek(offset)
        return zlib.crc32(file.read(sum(sizes)))


def samples_per_frame(sampling_rate: int) -> int:
    """Returns the number of samples between the beginnings of two frames."""
    return int(FRAME_SHIFT * sampling_rate)


def frame_seconds(sampling_rate: int) -> float:
    """Returns the seconds between the beginnings of two frames: 0.01, or less if this is not a whole number of samples.

    At 22050 Hz, frames are 220 samples apart, which is 9.977 ms: 8 s less in an hour than with 10 ms.
    """
    return samples_per_frame(sampling_rate) / sampling_rate


def count_frames(samples: int, sampling_rate: int) -> int:
    """Returns the number of frames of `samples` samples, the same as lhotse computes (its snip_edges=False)."""
    shift = samples_per_frame(sampling_rate)
    return (samples + shift // 2) // shift
