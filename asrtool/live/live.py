"""Recognition of audio that arrives now, or of one audio file as if it arrived now; results are printed at once."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Protocol

import numpy as np

from asrtool.data.sources import InvalidEntry
from asrtool.errors import UserError
from asrtool.inference.model import Model
from asrtool.inference.stream import Stream, StreamResult
from asrtool.interrupts import Interrupts, Terminated
from asrtool.live.live_output import ResultPrinter

# Audio that is recognised at a time: short compared with what a listener notices, and long enough that the costs of a
# call do not count. A piece of the model's chunk could be late by nearly a chunk, since its last frame needs audio that
# comes with the next piece.
PIECE_SECONDS = 0.1


class LiveSource(Protocol):
    """Audio as it arrives.

    rate: Hz. ends_by_itself: True for a file, whose recognition Ctrl-C interrupts; other sources go on until Ctrl-C
    ends them. problem: why the audio ended too early, if it did; known after `pieces` has ended.
    """

    rate: int
    ends_by_itself: bool
    problem: UserError | None

    def pieces(self, is_stopped: Callable[[], bool], warn: Callable[[str], None]) -> Iterator[np.ndarray]:
        """Yields samples (n,) or (n, channels), until the audio ends or soon after `is_stopped` returns True."""
        ...


def print_live(
    model: Model,
    source: LiveSource,
    printer: ResultPrinter,
    endpoint: Sequence[str] = ("default",),
    piece_seconds: float = PIECE_SECONDS,
) -> None:
    """Recognises `source` with `printer` showing the results; endpoint: the rules that end an utterance.

    Ctrl-C ends a microphone or a pipe as its end does: what was recorded is recognised to its last word. A second one
    interrupts. Raises UserError, after the results of what came before, if the audio ended too early or is wrong, and
    Terminated in the same way after SIGTERM.
    """
    live = _LiveStream(model.stream(source.rate, endpoint), printer)
    size = max(1, round(piece_seconds * source.rate))
    if source.ends_by_itself:
        live.recognise(cut_pieces(source.pieces(lambda: False, printer.warn), size))
    else:
        with Interrupts(message=None) as interrupts:
            live.recognise(cut_pieces(source.pieces(lambda: interrupts.requested, printer.warn), size))
        if interrupts.requested and interrupts.kind is Terminated:
            raise Terminated
    if source.problem:
        raise source.problem


def cut_pieces(pieces: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Yields the samples of `pieces`, (n,) or (n, channels), `size` at a time; the last piece may be shorter."""
    kept: list[np.ndarray] = []
    count = 0
    for piece in pieces:
        kept.append(piece)
        count += len(piece)
        if count < size:
            continue
        samples = np.concatenate(kept)
        whole = count - count % size
        for first in range(0, whole, size):
            yield samples[first : first + size]
        kept = [samples[whole:]]
        count -= whole
    if count:
        yield np.concatenate(kept)


class _LiveStream:
    """A stream with its clocks: seconds of audio that has arrived, and seconds of computation."""

    def __init__(self, stream: Stream, printer: ResultPrinter):
        self.stream = stream
        self.printer = printer
        self.num_samples = 0  # that have arrived, at the rate of the stream
        self.compute_seconds = 0.0

    def recognise(self, pieces: Iterable[np.ndarray]) -> None:
        """Prints the results of the whole stream. Raises UserError for audio that the model cannot recognise."""
        try:
            for piece in pieces:
                self.num_samples += len(piece)
                self._show(partial(self.stream.accept, piece))
            self._show(self.stream.finish)
        except InvalidEntry as problem:
            seconds = self.num_samples / self.stream.rate
            raise UserError(f"recognition stopped at {seconds:.2f} s of the audio: {problem}") from problem
        self.printer.end(self.num_samples / self.stream.rate, self.compute_seconds)

    def _show(self, compute: Callable[[], list[StreamResult]]) -> None:
        start_time = time.perf_counter()
        results = compute()
        self.compute_seconds += time.perf_counter() - start_time
        self.printer.show_all(results, self.num_samples / self.stream.rate, self.compute_seconds)
