"""What an engine keeps of one open stream: its audio on the way to the model, and how far it is."""

from dataclasses import dataclass, field

import numpy as np
import torch

from asrtool.data.resampling import StreamResampler
from asrtool.experiment import Experiment
from asrtool.live.live_stream import LiveStream
from asrtool.live.search_processes import SearchProcess
from asrtool.live.stream_searches import SearchOptions, SearchTask
from asrtool.streaming.model_steps import step_size
from asrtool.streaming.utterance_input import UtteranceInput


@dataclass(eq=False)
class Lane:
    """A stream in the engine's thread.

    slot: of its state in `ModelSteps`. process: that runs its searches, None for the engine's own. options: until they
    are sent with its first task. first_task: while it is sent for the first time and has no reply. is_waiting: for the
    reply to its last task; it goes on after it. has_all: all of its samples have arrived. is_last: its last task was
    sent. num_samples: that the input has, or had.
    """

    number: int
    stream: LiveStream
    input: UtteranceInput
    resampler: StreamResampler
    rate: int  # of the model, in Hz
    slot: int
    process: SearchProcess | None
    options: SearchOptions | None
    first_task: SearchTask | None = field(default=None, init=False)
    is_waiting: bool = field(default=False, init=False)
    has_all: bool = field(default=False, init=False)
    is_last: bool = field(default=False, init=False)
    num_samples: int = field(default=0, init=False)

    def take_samples(self) -> None:
        """Moves what the stream has accepted to the input of the model, at the model's rate.

        If that is too little for a step, the stream calls when it has accepted enough for one, or was finished.
        """
        while not self.has_all and not self.input.ready_size():
            # the resampler may return samples later, and never earlier
            wanted = (self.num_samples + self.input.missing_samples()) / self.rate
            accepted = self.stream.take(wanted)
            if accepted is None:
                return
            self._take(*accepted)

    def _take(self, pieces: list[np.ndarray], is_finished: bool) -> None:
        if pieces:
            self._add(self.resampler.accept(np.concatenate(pieces)))
        if is_finished:
            self._add(self.resampler.finish())
            self.input.end()
            self.has_all = True

    def _add(self, samples: np.ndarray) -> None:
        self.num_samples += len(samples)
        # At most a second at a time: audio after an endpoint is copied again for the next utterance.
        for piece in torch.from_numpy(samples).split(self.rate):
            self.input.add(piece)

    def task(self, log_probs: np.ndarray, features: np.ndarray) -> SearchTask:
        """Returns the task to search log-probs (T, V), which came with features (m, F); the lane then waits."""
        self.is_waiting = True
        self.is_last = self.input.is_done
        options, self.options = self.options, None
        task = SearchTask(self.number, log_probs, features, not self.input.has_ended, self.is_last, options)
        self.first_task = task if options else None
        return task


def next_batch(queue: dict[Lane, None], experiment: Experiment, most: int) -> tuple[list[Lane], int]:
    """Removes the streams of the next step, at most `most`, from the queue; returns them, and the frames of the step.

    They are those of the first stream in the queue, and the streams that have as many frames or more.
    """
    batch: list[Lane] = []
    size = 0
    for lane in list(queue):
        ready = step_size(experiment, lane.input.ready_size())
        size = size or ready
        if ready >= size:
            del queue[lane]
            batch.append(lane)
            if len(batch) == most:
                break
    return batch, size
