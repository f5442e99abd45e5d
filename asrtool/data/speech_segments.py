"""Cuts a recording into segments that a model recognises one by one: at pauses, and without losing what may be speech.

    speech     ====  =======      ==== ===========================================    ===
    segments  |-------------------|
                             |---------------------------|                         |-----|
                             ^                 |------------------------------|     long pause: its middle is skipped
                       both have the pause     ^ no pause: the segments overlap

Segments are as long as the model has been trained on, so that they are few and have context. Both sides of a cut keep
the pause, since models have learned from utterances between pauses. A pause of at least `long_pause` seconds, or of
digital silence, always ends a segment, and only there audio is left out.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from asrtool.data.resampling import StreamResampler
from asrtool.data.segment_planning import WINDOW_SECONDS, SegmentationPolicy, SegmentPlanner, Span
from asrtool.data.speech_detection import RATE, WINDOW, SpeechDetector

BATCH_WINDOWS = 64  # that the detector gets at a time, 2 s: its network is slow on few


@dataclass(frozen=True)
class AudioSegment:
    """Samples (n,) float32 of a recording from `start` on, in seconds at which the first sample stands.

    overlap: how many seconds of speech at the beginning are in the previous segment as well; 0 where a pause parts the
    two, of which both may have the same part.
    """

    start: float
    samples: np.ndarray
    overlap: float = 0.0


def segment_recording(
    blocks: Iterable[np.ndarray],
    rate: int,
    max_seconds: float,
    detector: SpeechDetector,
    policy: SegmentationPolicy | None = None,
) -> Iterator[AudioSegment]:
    """Yields the segments of a recording that contain speech, in order, as soon as they are complete.

    blocks: mono samples (n,) float32 at `rate`, in Hz. max_seconds: the longest segment. It keeps the
    samples of one segment and of what the detector looks ahead.
    """
    planner = SegmentPlanner(max_seconds, policy or SegmentationPolicy())
    frontend = _DetectorFrontend(rate, detector)
    history = _SampleHistory(rate)
    for block in blocks:
        history.append(block)
        for span in planner.accept(*frontend.accept(block)):
            yield history.cut(span)
        history.forget_before(planner.first_needed)
    for span in [*planner.accept(*frontend.finish()), *planner.finish()]:
        yield history.cut(span)


class _DetectorFrontend:
    """From blocks at any rate to the speech probability and the level of each window."""

    def __init__(self, rate: int, detector: SpeechDetector):
        self._resampler = StreamResampler(rate, RATE)
        self._stream = detector.stream()
        self._samples = np.zeros(0, np.float32)  # at RATE, not yet in a window that the detector has
        self._levels = np.zeros(0, np.float32)  # of windows whose probability the stream has not returned

    def accept(self, block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the probabilities (n,) and the levels (n,) in dB of further windows."""
        self._samples = np.concatenate([self._samples, self._resampler.accept(block)])
        if len(self._samples) < BATCH_WINDOWS * WINDOW:
            return self._with_levels(np.zeros(0, np.float32))
        return self._with_levels(self._stream.accept(self._next_windows()))

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the same of the remaining windows; the last window is filled up with silence."""
        samples = np.concatenate([self._samples, self._resampler.finish()])
        self._samples = np.pad(samples, (0, -len(samples) % WINDOW))
        return self._with_levels(np.concatenate([self._stream.accept(self._next_windows()), self._stream.finish()]))

    def _next_windows(self) -> np.ndarray:
        """Returns all complete windows (n, WINDOW), and notes their levels."""
        count = len(self._samples) // WINDOW
        windows = self._samples[: count * WINDOW].reshape(count, WINDOW)
        self._samples = self._samples[count * WINDOW :]
        power = np.mean(windows**2, axis=1)  # (n,)
        self._levels = np.concatenate([self._levels, 10 * np.log10(power + 1e-10)])
        return windows

    def _with_levels(self, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        levels = self._levels[: len(probabilities)]
        self._levels = self._levels[len(probabilities) :]
        return probabilities, levels


class _SampleHistory:
    """The samples of a recording that may still be needed."""

    def __init__(self, rate: int):
        self._rate = rate
        self._blocks: list[np.ndarray] = []
        self._first = 0  # number of the first sample of the first block, in the recording

    def append(self, block: np.ndarray) -> None:
        self._blocks.append(block)

    def cut(self, span: Span) -> AudioSegment:
        """Returns the samples of a span of windows. The last window of a recording may be incomplete."""
        first = self._sample(span.first)
        samples = np.concatenate(self._blocks)[first - self._first : self._sample(span.end) - self._first]
        return AudioSegment(first / self._rate, samples, span.overlap * WINDOW_SECONDS)

    def forget_before(self, window: int) -> None:
        """Forgets whole blocks before a window."""
        first = self._sample(window)
        while self._blocks and self._first + len(self._blocks[0]) <= first:
            self._first += len(self._blocks.pop(0))

    def _sample(self, window: int) -> int:
        return round(window * WINDOW_SECONDS * self._rate)
