"""The audio of one stream on its way into the steps of the model, utterance by utterance."""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from asrtool.experiment import Experiment
from asrtool.streaming.feature_stream import FeatureStream, FrameExtractor
from asrtool.streaming.step_frames import StepFrames, StepSchedule


class StepInput(NamedTuple):
    """What a stream gives to a step: the samples (n,) of its frames, and where these are in the step.

    is_first: whether an utterance begins with this step, so that the state of the model is reset.
    """

    samples: Tensor
    frames: StepFrames
    is_first: bool


class UtteranceInput:
    """Takes samples, and gives the steps of an utterance. The next one begins at any output frame of it.

    Samples that arrive wait here until the steps before them are done, since they may belong to the next utterance.
    """

    def __init__(self, experiment: Experiment, frames: FrameExtractor):
        self._model = experiment.model
        self._frames = frames
        self._factor = experiment.model.subsampling.factor
        self._waiting: deque[Tensor] = deque()
        self._is_ending = False  # the last samples have arrived
        self._begin(torch.zeros(0))

    def _begin(self, samples: Tensor) -> None:
        self._features = FeatureStream(self._frames, samples)
        self._schedule = StepSchedule(self._model)
        self._is_first = True
        self._has_ended = False

    def add(self, samples: Tensor) -> None:
        """Takes further samples (n,) float32 in -1 .. 1 of the stream."""
        self._waiting.append(samples)

    def end(self) -> None:
        """Ends the stream, and with it the utterance."""
        self._is_ending = True

    def restart(self, frame: int) -> None:
        """Begins the next utterance at output frame `frame` of this one."""
        self._begin(self._features.samples_from(frame * self._factor).clone())

    def release(self, frame: int) -> None:
        """Deletes the samples before output frame `frame`: the utterance goes on at least as far."""
        self._features.release(frame * self._factor)

    @property
    def has_ended(self) -> bool:
        """Whether the utterance ends with the stream, and its last frames are in steps, or about to be."""
        return self._has_ended

    @property
    def is_done(self) -> bool:
        """Whether the stream has ended, and all steps of its last utterance were taken."""
        return self._has_ended and self.ready_size() == 0

    def ready_size(self) -> int:
        """Returns the frames that are ready for steps, in whole chunks; 0 if there are none."""
        size = self._ready()
        while not size and self._waiting:
            self._features.add(self._waiting.popleft())
            size = self._ready()
        if not size and self._is_ending and not self._has_ended:
            self._features.end()
            self._has_ended = True
            size = self._ready()
        return size

    def missing_samples(self) -> int:
        """Returns how many further samples the next step needs. The stream goes on, and `ready_size` returned 0."""
        return self._features.missing_samples(self._schedule.needed_frames)

    def _ready(self) -> int:
        return self._schedule.ready_size(self._features.num_frames, self._has_ended)

    def take(self, size: int) -> StepInput:
        """Returns the next step, of `size` frames: whole chunks, at most `ready_size()`."""
        frames = self._schedule.take(size, self._features.num_frames, self._has_ended)
        is_first, self._is_first = self._is_first, False
        return StepInput(self._features.take(frames.num_frames), frames, is_first)

    def outputs(self, size: int) -> slice:
        """Returns which of the output frames of the step of `size` frames that was taken last are the utterance's."""
        return self._schedule.outputs(size, self._features.num_frames, self._has_ended)


def stack_features(extractor: FrameExtractor, inputs: Sequence[StepInput]) -> tuple[Tensor, Tensor]:
    """Returns features (N, n, F) and lengths (N,), the arguments of `AcousticModel.step`, of steps of the same size.

    The features of all streams are computed at once; padding is zero.
    """
    size = inputs[0].frames.size
    lens = torch.tensor([one.frames.length for one in inputs])
    num_samples = extractor.num_samples(size)
    if all(one.frames.num_frames == size for one in inputs):
        return extractor.features(torch.stack([one.samples for one in inputs])), lens
    samples = torch.zeros(len(inputs), num_samples)
    for row, one in zip(samples, inputs, strict=True):
        row[: len(one.samples)] = one.samples
    features = extractor.features(samples)
    x = torch.zeros_like(features)
    for row, from_row, one in zip(x, features, inputs, strict=True):
        row[one.frames.lead : one.frames.lead + one.frames.num_frames] = from_row[: one.frames.num_frames]
    return x, lens
