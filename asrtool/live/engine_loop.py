"""The thread of a streaming engine: gathers what streams have for a step, runs it, and passes log-probs to searches."""

import itertools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from asrtool.data.resampling import StreamResampler
from asrtool.data.sources import InvalidEntry
from asrtool.experiment import Experiment
from asrtool.live.engine_events import EventQueue, StepPace
from asrtool.live.engine_lane import Lane, next_batch
from asrtool.live.live_stream import LiveStream
from asrtool.live.search_processes import SearchProcess, process_ended
from asrtool.live.stream_searches import SearchContext, SearchOptions, SearchReply, SearchTask, StreamSearches
from asrtool.streaming.latency import algorithmic_latency, default_chunk_seconds
from asrtool.streaming.model_steps import ModelSteps, StepOutput
from asrtool.streaming.recogniser import frame_extractor
from asrtool.streaming.utterance_input import UtteranceInput

logger = logging.getLogger(__name__)


@dataclass
class LoopCounts:
    """What the loop has done: steps, their streams and their computing times, summed."""

    steps: int = 0
    step_streams: int = 0
    step_seconds: float = 0.0


class EngineLoop:
    """Runs in one thread; other threads post events. A stream has one step at a time on its way, and takes turns.

    A stream whose chunk is ready joins the next step. A step waits a little for further streams, see `StepPace`, unless
    there are `max_batch`, or one of them is behind. While a step is computed, others become ready, so that the batch
    grows with the load. After its step a stream waits for its search, which may end the utterance in the middle of the
    chunk.

    usual_backlog: the audio that may wait for recognition in a stream that keeps up, in seconds: of two chunks and the
    latency of the model. With less, a step may lack audio.
    """

    def __init__(
        self,
        experiment: Experiment,
        context: SearchContext,
        max_batch: int,
        gather_chunks: float,
        search_workers: int,
    ):
        self.counts = LoopCounts()
        self._experiment = experiment
        self._max_batch = max_batch
        self._extractor = frame_extractor(experiment)
        self._rate = experiment.config.features.sampling_rate
        self._steps = ModelSteps(experiment, self._extractor)
        self._searches = StreamSearches(context)
        self._frame_seconds = context.settings.frame_seconds
        self._numbers = itertools.count()
        self._lanes: dict[LiveStream, Lane] = {}
        self._numbered: dict[int, Lane] = {}
        self._queue: dict[Lane, None] = {}  # have a step, in the order of their turns
        self._events = EventQueue()
        chunk = default_chunk_seconds(experiment)
        self._pace = StepPace(gather_chunks * chunk)
        self.usual_backlog = 2 * chunk + algorithmic_latency(experiment)["max"] / 1000
        self._is_stopped = False
        self._search_workers = search_workers
        self._processes = [SearchProcess(self._searches, self._receive) for _ in range(search_workers)]

    @property
    def search_pids(self) -> list[int]:
        """The numbers of the search processes."""
        return [process.pid for process in self._processes]

    # Called by any thread

    def open(self, stream: LiveStream, options: SearchOptions) -> None:
        """Adds a stream."""
        self._events.post(partial(self._open, stream, options))

    def update(self, stream: LiveStream) -> None:
        """Looks for what a stream has accepted, or for its end."""
        self._events.post(partial(self._update, stream))

    def stop(self, error: BaseException) -> None:
        """Ends the streams with an error, and the loop."""
        self._events.post(partial(self._stop, error), is_urgent=True)

    def _receive(self, process: SearchProcess, reply: SearchReply | None) -> None:
        event = partial(self._replace, process) if reply is None else partial(self._handle, reply)
        self._events.post(event, is_urgent=True)

    # Called by the loop's thread

    def run(self) -> None:
        """Handles events and runs steps until `stop`.

        What fails outside of a stream, for lack of memory perhaps, ends all streams that are open: nobody would tell
        their clients otherwise. Streams that are opened later are tried again.
        """
        while not self._is_stopped:
            for event in self._events.take(*self._awaited()):
                self._guard(event)
            if self._queue and not self._seconds_to_step():
                self._guard(self._run_step)
        for process in self._processes:
            process.close()

    def _guard(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            logger.exception("the engine failed; all its streams end")
            for lane in list(self._lanes.values()):
                self._fail(lane, error)

    def _awaited(self) -> tuple[int, float | None]:
        """Returns how many events the loop waits for, and for how long."""
        if not self._queue:
            return 1, None
        return max(0, self._max_batch - len(self._queue)), self._seconds_to_step()

    def _seconds_to_step(self) -> float:
        """Returns how long the next step waits for further streams."""
        if len(self._queue) >= self._max_batch or any(
            lane.stream.backlog_seconds > self.usual_backlog for lane in self._queue
        ):
            return 0.0
        return self._pace.seconds_left()

    def _open(self, stream: LiveStream, options: SearchOptions) -> None:
        try:
            resampler = StreamResampler(stream.rate, self._rate)  # libsoxr does not take all rates
            slot = self._steps.open()  # needs memory for its state
        except Exception as error:
            stream.end(error)
            return
        self._start_processes()
        lane = Lane(
            number=next(self._numbers),
            stream=stream,
            input=UtteranceInput(self._experiment, self._extractor),
            resampler=resampler,
            rate=self._rate,
            slot=slot,
            process=None,
            options=options,
        )
        self._lanes[stream] = self._numbered[lane.number] = lane
        self._choose_process(lane)

    def _choose_process(self, lane: Lane) -> None:
        """Gives a stream the search process that has the fewest."""
        lane.process = min(self._processes, key=lambda process: len(process.streams), default=None)
        if lane.process:
            lane.process.streams.add(lane.number)

    def _update(self, stream: LiveStream) -> None:
        lane = self._lanes.get(stream)
        if lane is None:
            return
        if stream.is_closed:
            self._forget(lane)
            return
        if not lane.is_waiting:
            self._advance(lane)

    def _advance(self, lane: Lane) -> None:
        """Puts a stream into the queue if it has a step; else it is looked at again once it has the audio for one."""
        try:
            lane.take_samples()
        except Exception as error:
            self._fail(lane, error)
            return
        if lane.input.ready_size():
            self._queue[lane] = None
        elif lane.input.is_done:
            self._submit(lane, self._no_log_probs(), np.zeros((0, self._extractor.num_bins), np.float32))

    def _run_step(self) -> None:
        """Runs a step of the streams that have the same number of frames as the first one in turn, or more."""
        batch, size = next_batch(self._queue, self._experiment, self._max_batch)
        begin = time.perf_counter()
        slots, inputs = [lane.slot for lane in batch], [lane.input.take(size) for lane in batch]
        outputs = self._steps.run_each(slots, inputs)
        end = time.perf_counter()
        self._pace.note(begin, end)
        seconds = end - begin
        self.counts = LoopCounts(
            self.counts.steps + 1, self.counts.step_streams + len(batch), self.counts.step_seconds + seconds
        )
        for lane, output in zip(batch, outputs, strict=True):
            lane.stream.compute_seconds += seconds / len(batch)
            if isinstance(output, BaseException):
                self._fail(lane, output)
            else:
                self._search(lane, size, output)

    def _no_log_probs(self) -> np.ndarray:
        return np.zeros((0, self._experiment.num_outputs), np.float32)

    def _search(self, lane: Lane, size: int, output: StepOutput) -> None:
        try:
            log_probs = output.finite_log_probs(lane.input.outputs(size))
        except InvalidEntry as error:
            self._fail(lane, error)
            return
        self._submit(lane, log_probs, output.features.numpy())

    def _submit(self, lane: Lane, log_probs: np.ndarray, features: np.ndarray) -> None:
        """Gives log-probs of a stream to its search. The reply is handled before its next step."""
        self._send(lane, lane.task(log_probs, features))

    def _send(self, lane: Lane, task: SearchTask) -> None:
        if lane.process:
            lane.process.submit(task)
        else:
            self._handle(self._searches.run(task))

    def _handle(self, reply: SearchReply) -> None:
        """Calls back with the results of a search; the stream then goes on."""
        lane = self._numbered.get(reply.number)
        if lane is None:
            return
        lane.is_waiting = False
        lane.first_task = None
        lane.stream.compute_seconds += reply.seconds
        lane.stream.recognised_seconds = reply.total_frames * self._frame_seconds
        try:
            if reply.error:
                raise reply.error
            lane.stream.deliver(reply.results)
        except Exception as error:
            self._fail(lane, error)
            return
        if lane.is_last:
            self._forget(lane)
            lane.stream.end(None)
            return
        if reply.has_ended:
            lane.input.restart(reply.num_frames)
        else:
            lane.input.release(reply.num_frames)
        self._advance(lane)

    def _fail(self, lane: Lane, error: BaseException) -> None:
        self._forget(lane)
        lane.stream.end(error)

    def _forget(self, lane: Lane) -> None:
        """Frees everything that the loop and the searches keep of a stream."""
        if self._lanes.pop(lane.stream, None) is None:
            return
        del self._numbered[lane.number]
        self._queue.pop(lane, None)
        self._steps.close(lane.slot)
        self._searches.forget(lane.number)
        if lane.process:
            lane.process.streams.discard(lane.number)
            lane.process.submit(lane.number)

    def _replace(self, process: SearchProcess) -> None:
        """Starts another search process for one that was killed, and ends its streams.

        A stream of which it has searched nothing goes on with another one, once: the process may have been killed
        before the stream was opened, since its end is seen when the system has freed its memory.

        The process is forked by this thread: no other one computes, and could be in the middle of something.
        """
        if self._is_stopped:
            return
        self._processes.remove(process)
        lanes = [self._numbered[number] for number in process.streams]
        moved = [lane for lane in lanes if lane.options or lane.first_task]
        for lane in lanes:
            if lane not in moved:
                self._fail(lane, process_ended())
        self._start_processes()
        for lane in moved:
            self._choose_process(lane)
            task, lane.first_task = lane.first_task, None
            if task:
                self._send(lane, task)

    def _start_processes(self) -> None:
        """Starts the search processes that are missing. Where it cannot, this thread searches until it can."""
        try:
            while len(self._processes) < self._search_workers:
                self._processes.append(SearchProcess(self._searches, self._receive))
        except OSError as error:
            logger.error(f"no search process can be started: {error}")

    def _stop(self, error: BaseException) -> None:
        self._is_stopped = True
        for lane in list(self._lanes.values()):
            self._fail(lane, error)
