"""Streams of samples in, log-mel features out, in pieces of any length."""

import torch
from torch import Tensor

from asrtool.data.features import extractor


class FeatureStream:
    """The features of `asrtool.data.features`, frame by frame as soon as all samples of a frame have arrived.

    Frame t covers the 25 ms around the middle of [10 t, 10 (t + 1)) ms. Beyond the beginning and the end of the
    recording, samples are mirrored (Kaldi's snip_edges=false):

        samples          0 1 2 3 4 5 6 7 8 9 ...                shift 4, window 8
        frame 0      1 0 0 1 2 3 4 5
        frame 1              2 3 4 5 6 7 8 9

    So a frame is ready 7.5 ms after its own 10 ms have ended, and the last two at the end of the stream.
    """

    def __init__(self, sampling_rate: int, num_bins: int):
        self._extractor = extractor(sampling_rate, num_bins).extractor
        framing = self._extractor.wav2win
        self._shift, self._window = (int(time * sampling_rate) for time in (framing.frame_shift, framing.frame_length))
        self._before = (self._window - self._shift) // 2  # samples of frame 0 before the first one
        self._num_bins = num_bins
        self._received = 0  # samples
        self._pending = torch.zeros(0)  # samples of incomplete frames, the mirrored ones included

    @property
    def look_ahead(self) -> float:
        """The audio that a frame needs beyond its own frame shift, in seconds."""
        return (self._window - self._shift - self._before) / self._extractor.sampling_rate

    def accept(self, samples: Tensor) -> Tensor:
        """samples (n,) float32 in -1 .. 1, any n; returns the frames (m, F) that are now complete, m >= 0."""
        was_mirrored = self._received >= self._before
        self._received += len(samples)
        self._pending = torch.cat([self._pending, samples])
        if self._received < self._before:
            return self._no_frames()
        if not was_mirrored:
            self._pending = torch.cat([self._pending[: self._before].flip(0), self._pending])
        return self._complete_frames()

    def finish(self) -> Tensor:
        """Ends the stream; returns the rest of its frames, none if there are too few samples to mirror."""
        num_frames = (self._received + self._shift // 2) // self._shift
        missing = (num_frames - 1) * self._shift + self._window - self._before - self._received
        if num_frames == 0 or self._received < max(self._before, missing):
            return self._no_frames()
        self._pending = torch.cat([self._pending, self._pending[-missing:].flip(0)])
        return self._complete_frames()

    def _complete_frames(self) -> Tensor:
        """Returns the features (m, F) of the complete frames, and removes the samples that no later frame needs."""
        count = (len(self._pending) - self._window) // self._shift + 1
        if count < 1:
            return self._no_frames()
        used = (count - 1) * self._shift + self._window
        features, _ = self._extractor.online_inference(self._pending[None, :used], self._pending.new_zeros(1, 0))
        self._pending = self._pending[count * self._shift :]
        return features[0]

    def _no_frames(self) -> Tensor:
        return torch.zeros(0, self._num_bins)
