"""One live stream of an engine, as its user sees it."""

import logging
import math
import threading
from collections.abc import Callable

import numpy as np

from asrtool.errors import UserError
from asrtool.inference.stream import StreamResult, mono_samples

logger = logging.getLogger(__name__)

ROUNDING_SECONDS = 1e-6  # far less than a sample

OnResults = Callable[[list[StreamResult]], None]
OnEnd = Callable[[BaseException | None], None]


class LiveStream:
    """One stream of a `StreamEngine`. Any thread may call its methods, and none of them waits.

    rate: of its samples, in Hz. audio_seconds: audio that was accepted. compute_seconds: computing time that was spent
    on it; of a step of the model, its share.
    """

    def __init__(
        self,
        rate: int,
        on_results: OnResults,
        on_end: OnEnd,
        on_change: Callable[["LiveStream"], None],
        on_close: Callable[["LiveStream"], None],
    ) -> None:
        """on_change: is called when the engine has something to do, see `take`. on_close: when the stream has ended."""
        self.rate = rate
        self.audio_seconds = 0.0
        self.compute_seconds = 0.0
        self.recognised_seconds = 0.0
        self._on_results = on_results
        self._on_end = on_end
        self._on_change = on_change
        self._on_close = on_close
        self._lock = threading.Lock()
        self._pieces: list[np.ndarray] = []  # (n,) float32 each
        self._num_samples = 0
        self._wanted = 0.0  # the engine is called when there are so many seconds
        self._is_finished = False
        self._is_closed = False

    def accept(self, samples: np.ndarray) -> None:
        """Takes (n,) or (n, channels) samples, of which the channels' mean is recognised; see `mono_samples`.

        Raises UserError for other samples, and after `finish`. A stream that has ended in another way ignores them.
        """
        piece = mono_samples(samples)
        with self._lock:
            if self._is_finished:
                raise UserError("the stream was finished; open another one for further samples")
            if self._is_closed:
                return
            self._pieces.append(piece)
            self._num_samples += len(piece)
            self.audio_seconds = self._num_samples / self.rate
            is_enough = self.audio_seconds >= self._wanted
            if is_enough:
                self._wanted = math.inf
        if is_enough:
            self._on_change(self)

    def finish(self) -> None:
        """Ends the stream: the rest of its results follows, then on_end(None)."""
        with self._lock:
            if self._is_finished or self._is_closed:
                return
            self._is_finished = True
        self._on_change(self)

    def cancel(self) -> None:
        """Forgets the stream and all it holds: nothing further is called, except for a callback that already runs."""
        if self.close():
            self._on_change(self)

    @property
    def backlog_seconds(self) -> float:
        """Audio that was accepted and is not yet recognised; in a stream that keeps up, less than chunk and latency."""
        return 0.0 if self._is_closed else max(0.0, self.audio_seconds - self.recognised_seconds)

    @property
    def is_closed(self) -> bool:
        """Whether the stream has ended in any way: its callbacks are not called any more."""
        return self._is_closed

    def take(self, wanted: float) -> tuple[list[np.ndarray], bool] | None:
        """Returns the samples that have arrived since the last call, and whether the stream was finished.

        Returns None if there are none, or if the stream has less than `wanted` seconds of audio and was not finished;
        on_change is then called when it has. Else only the next call makes it be called for further samples.
        """
        with self._lock:
            is_enough = bool(self._pieces) and self.audio_seconds >= wanted - ROUNDING_SECONDS
            if self._is_closed or not (is_enough or self._is_finished):
                self._wanted = wanted - ROUNDING_SECONDS
                return None
            self._wanted = math.inf
            pieces, self._pieces = self._pieces, []
            return pieces, self._is_finished

    def close(self) -> bool:
        """Ends the stream without a call; returns False if it had ended before."""
        with self._lock:
            was_open = not self._is_closed
            self._is_closed = True
            self._pieces = []
        if was_open:
            self._on_close(self)
        return was_open

    def deliver(self, results: list[StreamResult]) -> None:
        """Calls on_results. Raises what that raises."""
        if not self._is_closed:
            self._on_results(results)

    def end(self, error: BaseException | None) -> None:
        """Ends the stream, and calls on_end if it had not ended before."""
        if not self.close():
            return
        try:
            self._on_end(error)
        except Exception:
            logger.exception("the callback on_end of a stream failed")
