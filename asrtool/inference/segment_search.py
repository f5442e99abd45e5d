"""From the log-probs of a segment to its words: search, then times and confidence, in worker processes if wanted."""

import contextlib
import logging
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import torch

from asrtool.decoding.hypothesis import Hypothesis, Search
from asrtool.decoding.words import UtteranceWords, WordDescriber
from asrtool.errors import UserError
from asrtool.forking import fork_context
from asrtool.inference.results import Alternative
from asrtool.inference.segment_batches import SegmentFrames
from asrtool.interrupts import init_worker, sigterm_held
from asrtool.text.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Segments whose log-probs wait for a search process: twice as many as processes would keep these busy, the rest lets
# the model finish a batch. 100 segments of 10 s and 500 units are 80 MB, with their features.
MAX_PENDING = 100


PROCESSES_KILLED = "search processes were killed, for memory perhaps; try it again, or with fewer --jobs"


class SearchProcessEnded(UserError):
    """Search processes were killed, twice for the same segment. The next search has new ones."""


@dataclass(frozen=True)
class SegmentWords:
    """The words of a segment, with seconds from its start, and its n-best list if there is one, the best first."""

    described: UtteranceWords
    alternatives: tuple[Alternative, ...] = ()


class SegmentSearch:
    """Search and description of one segment after the other."""

    def __init__(self, search: Search, describer: WordDescriber, tokenizer: Tokenizer):
        self.search = search
        self.describer = describer
        self.tokenizer = tokenizer

    def __call__(self, frames: SegmentFrames) -> SegmentWords:
        """Returns the words of a segment."""
        log_probs = frames.log_probs
        if not len(log_probs):
            return SegmentWords(UtteranceWords([], None))
        batch = torch.from_numpy(log_probs)[None]  # (1, T, V)
        (hypothesis,) = self.search(batch, torch.tensor([len(log_probs)]))
        nbest = (hypothesis, *hypothesis.others) if hypothesis.others else ()
        alternatives = tuple(Alternative(self._text(one), one.score) for one in nbest)
        return SegmentWords(self.describer.describe(hypothesis, log_probs, frames.features), alternatives)

    def _text(self, hypothesis: Hypothesis) -> str:
        return self.tokenizer.decode(hypothesis.tokens) if hypothesis.words is None else " ".join(hypothesis.words)


class _Pending(NamedTuple, Generic[T]):
    """A segment that waits for its search: what it belongs to, its frames, its processes and its future words."""

    item: T
    frames: SegmentFrames
    pool: ProcessPoolExecutor
    words: Future[SegmentWords]


class SearchProcesses:
    """Processes that search while the model computes the next batch; with `jobs` = 1, this process searches itself.

    They are forked at once, when the graph was loaded, so that they share its memory, and before the model ran on a
    GPU, which they never touch.
    """

    def __init__(self, search: SegmentSearch, jobs: int = 1):
        self.search = search
        self.jobs = jobs
        try:
            self.pool = self._start_pool() if jobs > 1 else None
        except BrokenProcessPool as error:
            raise SearchProcessEnded(PROCESSES_KILLED) from error

    def _start_pool(self) -> ProcessPoolExecutor:
        pool = ProcessPoolExecutor(self.jobs, fork_context(), initializer=_start, initargs=(self.search,))
        with sigterm_held():
            pool.submit(int).result()  # the first call starts them all
        return pool

    def map(self, items: Iterable[tuple[T, SegmentFrames]]) -> Iterator[tuple[T, SegmentWords]]:
        """Yields each item with the words of its frames, in order and as soon as they are there.

        At most MAX_PENDING items are read ahead. When a process was killed, also one without work, new processes search
        what is missing. Raises SearchProcessEnded when that happens again before the next item is there.
        """
        if self.pool is None:
            yield from ((item, self.search(frames)) for item, frames in items)
            return
        pending: deque[_Pending[T]] = deque()
        try:
            for item, frames in items:
                pending.append(self._submit(item, frames))
                while pending and (pending[0].words.done() or len(pending) >= MAX_PENDING):
                    yield self._next(pending)
            while pending:
                yield self._next(pending)
        finally:
            for waiting in pending:  # the caller stopped early
                waiting.words.cancel()

    def _submit(self, item: T, frames: SegmentFrames) -> _Pending[T]:
        assert self.pool is not None
        try:
            words = self.pool.submit(_search, frames)
        except BrokenProcessPool as error:
            words = Future()
            words.set_exception(error)
        return _Pending(item, frames, self.pool, words)

    def _next(self, pending: deque[_Pending[T]]) -> tuple[T, SegmentWords]:
        """Removes the first item of `pending`, and returns it with its words."""
        try:
            words = pending[0].words.result()
        except BrokenProcessPool:
            logger.warning("a search process was killed, for memory perhaps; new ones search what is missing")
            self._search_again(pending)
            try:
                words = pending[0].words.result()
            except BrokenProcessPool as error:
                self._replace_pool(pending[0].pool)
                raise SearchProcessEnded(PROCESSES_KILLED) from error
        return pending.popleft().item, words

    def _search_again(self, pending: deque[_Pending[T]]) -> None:
        """Passes everything that has no words to new processes."""
        self._replace_pool(pending[0].pool)
        for _ in range(len(pending)):
            waiting = pending.popleft()
            has_words = waiting.words.done() and waiting.words.exception() is None
            pending.append(waiting if has_words else self._submit(waiting.item, waiting.frames))

    def _replace_pool(self, broken: ProcessPoolExecutor) -> None:
        """Starts new processes; where this fails, the broken pool stays, and the next search tries it again.

        Another `map` may have started them already.
        """
        if broken is not self.pool:
            return
        broken.shutdown(wait=False, cancel_futures=True)
        with contextlib.suppress(OSError, BrokenProcessPool):
            self.pool = self._start_pool()

    def close(self) -> None:
        """Ends the processes."""
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)


_worker_search: SegmentSearch | None = None  # of a forked process


def _start(search: SegmentSearch) -> None:
    global _worker_search
    _worker_search = search
    torch.set_num_threads(1)  # the processes are the parallelism; threads of OpenMP do not survive a fork
    init_worker(ends_on_sigterm=False)


def _search(frames: SegmentFrames) -> SegmentWords:
    assert _worker_search is not None
    return _worker_search(frames)
