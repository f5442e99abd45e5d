"""Streams of samples in, log-mel features out, in pieces of any length."""

import torch
from torch import Tensor

from asrtool.data.features import extractor


class FeatureStream:
    """The features of `asrtool.data.features.compute`, frame by frame as soon as all samples of a frame are there.

    Frame t has the samples of the 25 ms around the middle of [10 t, 10 (t + 1)) ms; where they reach beyond the
    beginning or the end of the recording (Kaldi's snip_edges=false), they are those inside, mirrored:

        samples          0 1 2 3 4 5 6 7 8 9 ...                shift 4, window 8
        frame 0      1 0 0 1 2 3 4 5
        frame 1              2 3 4 5 6 7 8 9

    So a frame is there 7.5 ms after its own 10 ms have ended, and the last two at the end of the stream.
    """

    def __init__(self, sampling_rate: int, num_bins: int):
        self._extractor = extractor(sampling_rate, num_bins).extractor
        framing = self._extractor.wav2win
        self._shift, self._window = (int(time * sampling_rate) for time in (framing.frame_shift, framing.frame_length))
        self._before = (self._window - self._shift) // 2  # samples of frame 0 before the first one
        self._bins, self._came = num_bins, 0
        self._waiting = torch.zeros(0)  # samples of frames that are not whole yet, the mirrored ones included

    @property
    def look_ahead(self) -> float:
        """Seconds that a frame needs beyond its own frame shift."""
        return (self._window - self._shift - self._before) / self._extractor.sampling_rate

    def accept(self, samples: Tensor) -> Tensor:
        """samples (n,) float32 in -1 .. 1, any n; returns those frames (m, bins) that are now sure, m >= 0."""
        enough = self._came >= self._before
        self._came += len(samples)
        self._waiting = torch.cat([self._waiting, samples])
        if not enough and self._came >= self._before:
            self._waiting = torch.cat([self._waiting[: self._before].flip(0), self._waiting])
        return self._frames() if self._came >= self._before else self._none()

    def finish(self) -> Tensor:
        """End the stream; returns the rest of its frames, none if there are too few samples to mirror."""
        total = (self._came + self._shift // 2) // self._shift
        missing = (total - 1) * self._shift + self._window - self._before - self._came
        if total == 0 or self._came < max(self._before, missing):
            return self._none()
        self._waiting = torch.cat([self._waiting, self._waiting[-missing:].flip(0)])
        return self._frames()

    def _frames(self) -> Tensor:
        count = (len(self._waiting) - self._window) // self._shift + 1
        if count < 1:
            return self._none()
        used = (count - 1) * self._shift + self._window
        features, _ = self._extractor.online_inference(self._waiting[None, :used], self._waiting.new_zeros(1, 0))
        self._waiting = self._waiting[count * self._shift :]
        return features[0]

    def _none(self) -> Tensor:
        return torch.zeros(0, self._bins)
