"""Reading, cutting and times without parts that are not in this checkout yet; to be deleted with their first use."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import soundfile
import soxr


@dataclass(frozen=True)
class AudioSegment:
    """Samples (n,) float32 from `start`, in seconds; the first `overlap` seconds are in the previous segment, too."""

    start: float
    samples: np.ndarray
    overlap: float = 0.0


def read_segments(source, rate_of_array, rate: int, channel, max_seconds: float) -> Iterator[AudioSegment]:
    if isinstance(source, np.ndarray):
        samples, source_rate = source, rate_of_array
    else:
        samples, source_rate = soundfile.read(source, dtype="float32")
    if samples.ndim == 2:
        samples = samples.mean(1) if channel == "mix" else samples[:, channel]
    samples = soxr.resample(samples, source_rate, rate).astype(np.float32)
    size = round(max_seconds * rate)
    for begin in range(0, len(samples), size):
        yield AudioSegment(begin / rate, samples[begin : begin + size])
