"""The model's steps for many streams together."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from asrtool.data.sources import InvalidEntry
from asrtool.experiment import Experiment
from asrtool.models.stream_states import StreamStates
from asrtool.precision import autocast
from asrtool.streaming.feature_stream import FrameExtractor
from asrtool.streaming.utterance_input import StepInput, stack_features

MAX_STEP_FRAMES = 100  # feature frames: more at a time would be computed in vain where an utterance ends in them


class StepOutput:
    """What a step returns for one stream: features (m, F) and log-probs (n / factor, V), float32 on the CPU."""

    __slots__ = ("features", "log_probs", "is_finite")

    def __init__(self, features: Tensor, log_probs: Tensor, is_finite: bool):
        self.features = features
        self.log_probs = log_probs
        self.is_finite = is_finite

    def finite_log_probs(self, frames: slice) -> np.ndarray:
        """Returns the log-probs of some frames. Raises InvalidEntry for values that are not finite."""
        log_probs = self.log_probs[frames]
        if not self.is_finite and not log_probs.isfinite().all():
            raise InvalidEntry("the model's log-probs are not finite; look at the audio")
        return log_probs.numpy()


class ModelSteps:
    """Keeps the model's state of up to `capacity` streams, a slot for each, and advances any of them by a step.

    Streams may be anywhere in their utterances, since each slot has its own position.
    """

    def __init__(self, experiment: Experiment, extractor: FrameExtractor, capacity: int = 1):
        self._device = experiment.device
        self._precision = experiment.precision
        self._extractor = extractor
        largest = max(MAX_STEP_FRAMES, experiment.model.latency().chunk)
        self._state = StreamStates(experiment.model, capacity, step_size(experiment, largest))
        self._free = list(range(capacity))[::-1]

    @property
    def capacity(self) -> int:
        """The number of slots."""
        return self._state.capacity

    def open(self) -> int:
        """Returns a free slot; their number doubles where there is none."""
        if not self._free:
            capacity = self.capacity
            self._state.grow(2 * capacity)
            self._free = list(range(capacity, 2 * capacity))[::-1]
        return self._free.pop()

    def close(self, slot: int) -> None:
        """Frees a slot."""
        self._free.append(slot)

    def run_each(self, slots: Sequence[int], inputs: Sequence[StepInput]) -> list[StepOutput | BaseException]:
        """As `run`, with an exception instead of the output of a stream for which the step fails, even alone."""
        try:
            return [*self.run(slots, inputs)]
        except Exception as error:
            if len(slots) == 1:
                return [error]
        return [self.run_each([slot], [one])[0] for slot, one in zip(slots, inputs, strict=True)]

    @torch.inference_mode()
    def run(self, slots: Sequence[int], inputs: Sequence[StepInput]) -> list[StepOutput]:
        """Advances the streams of these slots by steps of the same size."""
        x, lens = stack_features(self._extractor, inputs)
        first = [slot for slot, one in zip(slots, inputs, strict=True) if one.is_first]
        if first:
            self._state.reset(torch.tensor(first, device=self._device))
        rows = torch.tensor(slots, device=self._device)
        with autocast(self._precision, self._device):
            log_probs = self._state.step(x.to(self._device), lens.to(self._device), rows)
        is_finite = log_probs.isfinite().flatten(1).all(1).tolist()
        return [
            StepOutput(own[one.frames.lead : one.frames.lead + one.frames.num_frames], row, finite)
            for own, one, row, finite in zip(x.unbind(), inputs, log_probs.float().cpu(), is_finite, strict=True)
        ]


def step_size(experiment: Experiment, ready: int) -> int:
    """Returns the feature frames of the next step for `ready` frames in whole chunks, at most MAX_STEP_FRAMES.

    It is a chunk times a power of two, so that streams with about as much audio share their steps.
    """
    chunk = experiment.model.latency().chunk
    if ready <= chunk:
        return ready
    most = min(ready, max(chunk, MAX_STEP_FRAMES)) // chunk
    return chunk * (1 << (most.bit_length() - 1))
