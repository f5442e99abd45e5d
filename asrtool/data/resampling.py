"""Resampling of audio that arrives in blocks, by libsoxr."""

import numpy as np
import soxr


def rate_warning(rate: int, model_rate: int) -> str | None:
    """Returns a line about audio of a lower sampling rate than the model's, both in Hz; None for other audio."""
    if rate >= model_rate:
        return None
    return (
        f"audio of {rate} Hz has nothing above {rate // 2} Hz; the model is of {model_rate} Hz: expect many errors "
        "unless such audio was in its training"
    )


class StreamResampler:
    """Converts mono blocks from one sampling rate to another; sample n of the output is at n / to_rate seconds.

    libsoxr compensates the delay of its linear-phase filter: blocks of the output come later, but their samples
    keep the times of the input. After `finish`, the output has input * to_rate / from_rate samples, rounded.
    """

    def __init__(self, from_rate: int, to_rate: int):
        self._soxr = None if from_rate == to_rate else soxr.ResampleStream(from_rate, to_rate, 1, dtype="float32")

    def accept(self, samples: np.ndarray) -> np.ndarray:
        """Returns the output (m,) float32 that the further samples (n,) float32 complete."""
        if self._soxr is None:
            return samples
        return self._soxr.resample_chunk(np.ascontiguousarray(samples, dtype=np.float32))

    def finish(self) -> np.ndarray:
        """Returns the rest of the output (m,) float32. No samples may follow."""
        empty = np.zeros(0, np.float32)
        return empty if self._soxr is None else self._soxr.resample_chunk(empty, last=True)
