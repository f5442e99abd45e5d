"""Many live streams at once: samples in from any thread, words out through callbacks."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from asrtool.errors import UserError
from asrtool.inference.model import Model
from asrtool.inference.model_options import require_count, require_not_negative, require_rate, require_texts
from asrtool.live.engine_loop import EngineLoop
from asrtool.live.live_stream import LiveStream, OnEnd, OnResults
from asrtool.live.stream_searches import SearchContext, SearchOptions
from asrtool.streaming.endpointing import Endpointing, EndpointRule, parse_rules
from asrtool.streaming.recogniser import require_streaming_model

__all__ = ["EngineStatistics", "LiveStream", "StreamEngine"]

# An utterance ends after so many seconds whatever the rules, since its features and log-probs are kept until then for
# the times and confidences of its words: 60 s of 80 bins and 500 units at 25 frames/s are 5 MB.
MAX_UTTERANCE_SECONDS = 60.0


@dataclass(frozen=True)
class EngineStatistics:
    """What an engine has done since its start, and what waits.

    steps: of the model. step_streams: the number of streams in each, summed. step_seconds: the computing times of the
    steps, summed. audio_seconds: that was accepted. backlog_seconds: of all open streams, audio that was accepted and
    is not yet recognised.
    """

    num_streams: int = 0
    steps: int = 0
    step_streams: int = 0
    step_seconds: float = 0.0
    audio_seconds: float = 0.0
    backlog_seconds: float = 0.0


class StreamEngine:
    """Advances many live streams together: one step of the model for all streams that have a chunk, searches beside it.

        with StreamEngine(asrtool.load("exp/mine")) as engine:
            stream = engine.open(48000, on_results=print, on_end=print)
            stream.accept(samples)
            stream.finish()

    The words of a stream are those of `Model.stream` on the same audio, except that an utterance ends after
    MAX_UTTERANCE_SECONDS at the latest. When there are more streams than the machine can hold, all of them fall behind
    alike, and `LiveStream.backlog_seconds` grows.

    Callbacks are called in a thread of the engine and must return soon. A stream that fails, in its audio, its search
    or its callbacks, ends alone, with the exception in on_end.
    """

    def __init__(self, model: Model, *, max_batch: int = 64, gather_chunks: float = 0.2, search_workers: int = 1):
        """max_batch: streams in a step of the model, at most. gather_chunks: how long a step waits for further streams
        after the beginning of the step before, at most, as a share of the model's chunk. Streams cost less together; a
        stream without others never waits, and few wait less, see `StepPace`. search_workers: processes that search, and
        align the words of ended utterances, beside the steps; with 0 the engine's thread does it between them. They are
        forked here: create the engine before there are other threads.

        Raises UserError for a model that cannot stream, and for numbers that are not possible.
        """
        require_count("max_batch", max_batch)
        require_not_negative("gather_chunks", gather_chunks)
        require_count("search_workers", search_workers, smallest=0)
        require_streaming_model(model.experiment)
        self._context = SearchContext(model)
        self._loop = EngineLoop(model.experiment, self._context, max_batch, gather_chunks, search_workers)
        self._rate = model.sampling_rate
        self._changed = threading.Condition()
        self._streams: set[LiveStream] = set()
        self._ended_audio_seconds = 0.0  # of streams that have ended
        self._is_closing = False
        self._thread = threading.Thread(target=self._loop.run, name="asrtool stream engine", daemon=True)
        self._thread.start()

    def open(
        self,
        rate: int | None = None,
        *,
        endpoint: Sequence[str] = ("default",),
        hotwords: Sequence[str] = (),
        on_results: OnResults,
        on_end: OnEnd,
    ) -> LiveStream:
        """Opens a stream of samples at `rate` Hz, by default the model's.

        endpoint: the rules by which an utterance ends, as for `Model.stream`; an utterance also ends after
        MAX_UTTERANCE_SECONDS, with an empty list after these alone. hotwords: phrases that are expected in this stream,
        with a weight after a tab if need be. on_results gets what `Stream.accept` returns: utterances that have ended
        and one partial result. on_end is called once, after all results: with None after `LiveStream.finish`, with the
        exception of a stream that failed.

        Raises UserError for a rate, rules or hotwords that do not fit, and for an engine that was closed.
        """
        require_rate(rate)
        require_texts("endpoint", endpoint)
        require_texts("hotwords", hotwords)
        rules = parse_rules(endpoint) or Endpointing(())
        longest = EndpointRule(length=MAX_UTTERANCE_SECONDS)
        options = SearchOptions(Endpointing((*rules.rules, longest)), tuple(hotwords))
        self._context.open(options.hotwords)  # raises UserError
        stream = LiveStream(rate or self._rate, on_results, on_end, self._loop.update, self._forget)
        with self._changed:
            if self._is_closing:
                raise UserError("the engine was closed; open another one")
            self._streams.add(stream)
            self._loop.open(stream, options)
        return stream

    def _forget(self, stream: LiveStream) -> None:
        """Counts a stream that has ended no more."""
        with self._changed:
            self._streams.discard(stream)
            self._ended_audio_seconds += stream.audio_seconds
            self._changed.notify_all()

    @property
    def num_streams(self) -> int:
        """The number of open streams."""
        return len(self._streams)

    @property
    def usual_backlog(self) -> float:
        """Seconds of audio that may wait for recognition in a stream that keeps up; with less, steps may lack audio."""
        return self._loop.usual_backlog

    @property
    def takes_hotwords(self) -> bool:
        """Whether a stream may have hotwords."""
        return self._context.takes_hotwords

    @property
    def search_pids(self) -> list[int]:
        """The numbers of the search processes."""
        return self._loop.search_pids

    def statistics(self) -> EngineStatistics:
        """Returns what the engine has done so far."""
        with self._changed:
            streams = list(self._streams)
            audio = self._ended_audio_seconds + sum(stream.audio_seconds for stream in streams)
        counts = self._loop.counts
        return EngineStatistics(
            num_streams=len(streams),
            steps=counts.steps,
            step_streams=counts.step_streams,
            step_seconds=counts.step_seconds,
            audio_seconds=audio,
            backlog_seconds=sum(stream.backlog_seconds for stream in streams),
        )

    def close(self, drain_seconds: float = 0) -> None:
        """Accepts no further streams, waits at most `drain_seconds` for the open ones to end, and ends the rest.

        These end with on_end(UserError). Callbacks must not call it.
        """
        with self._changed:
            self._is_closing = True
            self._changed.wait_for(lambda: not self._streams, drain_seconds)
        self._loop.stop(UserError("the engine was closed before the end of the stream"))
        self._thread.join()

    def __enter__(self) -> "StreamEngine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
