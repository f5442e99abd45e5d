"""Audio of one file, and raw PCM on standard input, for asrtool/live/live.py."""

import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from asrtool.data.audio_blocks import open_recording
from asrtool.data.pcm import PcmDecoder, PcmFormat
from asrtool.data.sources import InvalidEntry
from asrtool.errors import UserError
from asrtool.inference.recordings import STDIN

FILE_PROBLEM = "--pcm is for raw samples, and standard input is an audio file; give --wav - instead"
READ_BYTES = 1 << 16  # what a pipe of Linux holds
POLL_SECONDS = 0.2  # between two looks whether Ctrl-C was pressed
# After Ctrl-C, which the programs of the whole pipeline receive: what a recorder still writes before it ends. A program
# that goes on writing is left after that time.
LAST_WORDS_SECONDS = 0.5


class AudioFile:
    """An audio file of any format, sampling rate and number of channels, whose mean is taken; "-" is standard input.

    Standard input is read to its end first, since most formats need to seek. Raises UserError for what is not audio.
    """

    ends_by_itself = True

    def __init__(self, path: Path):
        self.problem: UserError | None = None
        try:
            if path == STDIN:
                _require_standard_input("--wav -", "sox talk.mp3 -t wav - | asrtool stream EXP --wav -")
                self._recording = open_recording(sys.stdin.buffer, name="standard input")
            else:
                self._recording = open_recording(path)
        except InvalidEntry as problem:
            raise UserError(str(problem)) from problem
        self.rate = self._recording.sampling_rate

    def pieces(self, is_stopped: Callable[[], bool], warn: Callable[[str], None]) -> Iterator[np.ndarray]:
        """Yields the samples (n,) float32 of the file; sets `problem` where they are not audio."""
        try:
            yield from self._recording.blocks(self.rate)
        except InvalidEntry as problem:
            self.problem = UserError(str(problem))


class PcmPipe:
    """Raw PCM on standard input, as it arrives.

    It is read no faster than it is recognised: the program that writes it waits in the meantime. Raises UserError for a
    terminal.
    """

    ends_by_itself = False

    def __init__(self, format: PcmFormat):
        example = "arecord -t raw -f S16_LE -r 16000 | asrtool stream EXP --pcm 16000"
        self._descriptor = _require_standard_input("--pcm", example)
        self.format = format
        self.rate = format.rate
        self.problem: UserError | None = None

    def pieces(self, is_stopped: Callable[[], bool], warn: Callable[[str], None]) -> Iterator[np.ndarray]:
        """Yields the samples (n, channels); sets `problem` where they are not audio, or none come."""
        decoder = PcmDecoder(self.format, FILE_PROBLEM)
        has_data = False
        try:
            for data in self._reads(is_stopped):
                has_data = True
                yield decoder.accept(data)
            if not is_stopped():  # Ctrl-C may end the pipe within a sample
                decoder.finish()
                if not has_data:
                    raise UserError("no data: standard input is empty; did the program before the pipe fail?")
        except UserError as problem:
            self.problem = problem

    def _reads(self, is_stopped: Callable[[], bool]) -> Iterator[bytes]:
        """Yields what arrives until the end of the pipe, or until a little after `is_stopped` returns True."""
        stop_time: float | None = None
        while stop_time is None or time.monotonic() < stop_time:
            if stop_time is None and is_stopped():
                stop_time = time.monotonic() + LAST_WORDS_SECONDS
            if not select.select([self._descriptor], [], [], POLL_SECONDS)[0]:
                continue
            data = os.read(self._descriptor, READ_BYTES)
            if not data:
                return
            yield data


def _require_standard_input(option: str, example: str) -> int:
    """Returns the descriptor of standard input. Raises UserError if nothing can come from there."""
    if sys.stdin is None or sys.stdin.closed:
        raise UserError(f"{option} reads standard input, which is closed; for example: {example}")
    if sys.stdin.isatty():
        raise UserError(f"{option} reads standard input, which is a terminal; for example: {example}")
    return sys.stdin.fileno()
