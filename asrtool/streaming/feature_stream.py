"""Streams of samples in, the windows of log-mel features out, in pieces of any length."""

import torch
from torch import Tensor

from asrtool.data.features import extractor


class FrameExtractor:
    """Where the frames of `asrtool.data.features` lie in the samples, and their features.

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
        self.shift, self.window = (int(time * sampling_rate) for time in (framing.frame_shift, framing.frame_length))
        self.before = (self.window - self.shift) // 2  # samples of frame 0 before the first one
        self.num_bins = num_bins

    @property
    def look_ahead(self) -> float:
        """The audio that a frame needs beyond its own frame shift, in seconds."""
        return (self.window - self.shift - self.before) / self._extractor.sampling_rate

    def num_samples(self, frames: int) -> int:
        """Returns the number of samples in the windows of `frames` frames in a row."""
        return (frames - 1) * self.shift + self.window if frames else 0

    def features(self, samples: Tensor) -> Tensor:
        """Returns the features (N, m, F) of samples (N, num_samples(m)) float32 in -1 .. 1, for m >= 1 frames."""
        return self._extractor.online_inference(samples, samples.new_zeros(len(samples), 0))[0]


class FeatureStream:
    """The frames of one utterance, each as soon as all its samples have arrived.

    It keeps the samples from the first frame that was not released, so that another utterance can begin there.
    """

    def __init__(self, frames: FrameExtractor, samples: Tensor | None = None):
        """`samples` (n,) float32: the first ones of the utterance."""
        self._frames = frames
        self._samples = torch.zeros(0) if samples is None else samples
        self._first = 0  # the index of the first kept sample in the utterance
        self._num_taken = 0  # frames
        self._has_ended = False

    def add(self, samples: Tensor) -> None:
        """Takes further samples (n,) float32 in -1 .. 1, any n."""
        self._samples = torch.cat([self._samples, samples])

    def end(self) -> None:
        """Ends the utterance, which completes its last frames; none if there are too few samples to mirror."""
        self._has_ended = True

    @property
    def num_frames(self) -> int:
        """The number of frames that are complete, the taken ones included."""
        frames = self._frames
        received = self._first + len(self._samples)
        if not self._has_ended:
            return max(0, (received + frames.before - frames.window) // frames.shift + 1)
        count = (received + frames.shift // 2) // frames.shift
        missing = (count - 1) * frames.shift + frames.window - frames.before - received  # samples after the last one
        return count if received >= max(frames.before, missing) else 0

    def missing_samples(self, num_frames: int) -> int:
        """Returns how many further samples it takes until `num_frames` frames, at least 1, are complete."""
        return max(0, self._frames.num_samples(num_frames) - self._frames.before - self._first - len(self._samples))

    def take(self, count: int) -> Tensor:
        """Returns the samples of the next `count` frames' windows; no more than are complete."""
        frames = self._frames
        begin = self._num_taken * frames.shift - frames.before - self._first
        end = begin + frames.num_samples(count)
        self._num_taken += count
        pieces = [self._samples[max(0, begin) : end]]
        if begin < 0 and count:
            pieces.insert(0, self._samples[:-begin].flip(0))
        if end > len(self._samples):
            pieces.append(self._samples[len(self._samples) - end :].flip(0))
        return torch.cat(pieces) if len(pieces) > 1 else pieces[0]

    def samples_from(self, frame: int) -> Tensor:
        """Returns the samples (n,) from `frame`, which was not released, to the last one."""
        return self._samples[frame * self._frames.shift - self._first :]

    def release(self, frame: int) -> None:
        """Deletes the samples that `samples_from` this frame and the windows of further frames do not need."""
        shift = self._frames.shift
        first = max(self._first, min(frame * shift, self._num_taken * shift - self._frames.before))
        self._samples = self._samples[first - self._first :].clone()  # a view would keep all of them
        self._first = first
