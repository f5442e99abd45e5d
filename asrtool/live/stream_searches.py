"""The searches of many streams, in one process: log-probs in, results with times and confidence out."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from asrtool.decoding.words import WordDescriber
from asrtool.inference.model import Model
from asrtool.inference.stream import StreamResult, stream_result
from asrtool.streaming.endpointing import Endpointing
from asrtool.streaming.partial_hypothesis import StreamingSearch
from asrtool.streaming.recogniser import search_settings
from asrtool.streaming.utterance_search import UtteranceSearch

MAX_HOTWORD_LISTS = 8  # that are kept ready for further streams; each may have a copy of the graph


class SearchContext:
    """What the searches of all streams of a model have in common; the searches with hotwords are kept by their list."""

    def __init__(self, model: Model):
        self.settings = search_settings(model.experiment, keep_frames=True)
        self._setup = model.streaming_search
        self._model = model
        self._describer = model.describer(self._setup)
        self._with_hotwords = lru_cache(maxsize=MAX_HOTWORD_LISTS)(self._open_hotwords)

    @property
    def takes_hotwords(self) -> bool:
        """Whether a stream may have hotwords."""
        return self._setup.takes_hotwords

    def open(self, hotwords: tuple[str, ...]) -> tuple[Callable[[], StreamingSearch], WordDescriber]:
        """Returns the function that creates the search of an utterance, and what describes its words.

        Raises UserError for hotwords that do not fit.
        """
        return self._with_hotwords(hotwords) if hotwords else (self._setup.new_search, self._describer)

    def _open_hotwords(self, hotwords: tuple[str, ...]) -> tuple[Callable[[], StreamingSearch], WordDescriber]:
        setup = self._setup.with_hotwords(hotwords)
        return setup.new_search, self._model.describer(setup)


@dataclass(frozen=True)
class SearchTask:
    """Log-probs (T, V) of further frames of stream `number`, and the features (m, F) that arrived with them.

    check: whether the utterance may end in them. is_last: the stream ends with them. options: of the stream's first
    task, with which it is opened.
    """

    number: int
    log_probs: np.ndarray
    features: np.ndarray
    check: bool
    is_last: bool
    options: "SearchOptions | None" = None


@dataclass(frozen=True)
class SearchOptions:
    """The rules by which the utterances of a stream end, and its hotwords."""

    endpointing: Endpointing
    hotwords: tuple[str, ...] = ()


@dataclass(frozen=True)
class SearchReply:
    """What a task has led to.

    results: the utterance that ended, if one did, and a partial result. num_frames: output frames of the utterance that
    were searched. has_ended: the utterance ended after them. total_frames: the stream's frames that were searched.
    error: why the stream cannot go on. seconds: computing time.
    """

    number: int
    results: list[StreamResult] = field(default_factory=list)
    num_frames: int = 0
    has_ended: bool = False
    total_frames: int = 0
    error: BaseException | None = None
    seconds: float = 0.0


class StreamSearches:
    """Keeps the search of each stream, by its number."""

    def __init__(self, context: SearchContext):
        self._context = context
        self._searches: dict[int, tuple[UtteranceSearch, WordDescriber]] = {}

    def __len__(self) -> int:
        return len(self._searches)

    def run(self, task: SearchTask) -> SearchReply:
        """Searches further frames of a stream. Errors are part of the reply, and end the stream."""
        begin = time.perf_counter()
        try:
            reply = self._run(task)
        except Exception as error:  # whatever a search raises concerns its stream only
            self.forget(task.number)
            return SearchReply(task.number, error=error, seconds=time.perf_counter() - begin)
        return SearchReply(*reply, seconds=time.perf_counter() - begin)

    def _run(self, task: SearchTask) -> tuple[int, list[StreamResult], int, bool, int]:
        search, describer = self._search(task)
        has_ended = search.advance(task.log_probs, task.features, task.check)
        num_frames = search.num_frames
        total_frames = search.total_frames
        results: Sequence = [search.partial()]
        if task.is_last:
            results = [search.end_utterance()]
            self.forget(task.number)
        elif has_ended:
            results = [search.end_utterance(), search.partial()]
        described = [stream_result(result, describer) for result in results]
        return task.number, described, num_frames, has_ended, total_frames

    def _search(self, task: SearchTask) -> tuple[UtteranceSearch, WordDescriber]:
        if task.options:
            new_search, describer = self._context.open(task.options.hotwords)
            search = UtteranceSearch(self._context.settings, new_search, task.options.endpointing)
            self._searches[task.number] = search, describer
        return self._searches[task.number]

    def forget(self, number: int) -> None:
        """Deletes the search of a stream, if there is one."""
        self._searches.pop(number, None)
