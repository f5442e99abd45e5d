"""Recognition of one audio file, printed while it is read."""

import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import soundfile

from asrtool.data.audio import inspect_mono_audio
from asrtool.data.sources import InvalidEntry
from asrtool.errors import UserError
from asrtool.streaming.latency import default_chunk_seconds
from asrtool.streaming.recogniser import Recogniser, RecognitionResult


def print_recording(recogniser: Recogniser, wav: Path, chunk: float | None = None) -> None:
    """Prints the utterances of the recording `wav`: start, end, words. Partial results end in "...".

    On a terminal a partial result is overwritten by the next one; elsewhere each new one gets a line. `chunk` is the
    audio that arrives at a time, in seconds. Raises UserError for a file that is not a mono recording at the model's
    sampling rate.
    """
    path = _require_audio_file(wav)
    rate = _sampling_rate(path)
    if rate != recogniser.rate:
        raise UserError(f"{path}: {rate} Hz, the model needs {recogniser.rate} Hz; convert it, e.g. with sox")
    screen = _Screen()
    size = max(1, round((chunk or default_chunk_seconds(recogniser.experiment)) * rate))
    try:
        for piece in _pieces(path, size):
            screen.show_all(recogniser.accept(piece))
        screen.show_all(recogniser.finish())
    except (InvalidEntry, OSError, soundfile.LibsndfileError) as error:
        raise UserError(f"{path}: cannot be read to its end ({error})") from error


def _require_audio_file(path: Path) -> Path:
    if not path.exists() and str(path) != "-":
        raise UserError(f"recording not found: {path}; give an audio file")
    if not path.is_file():
        raise UserError(f"--wav {path} is not an audio file; from a pipe or a microphone, record into a file first")
    return path


def _sampling_rate(path: Path) -> int:
    """Returns the sampling rate of a mono file. Raises UserError with what is wrong with it."""
    try:
        return inspect_mono_audio(str(path))[0]
    except InvalidEntry as problem:
        raise UserError(str(problem)) from None


def _pieces(path: Path, size: int) -> Iterator[np.ndarray]:
    """Yields the samples of a file, `size` at a time. Raises InvalidEntry for samples that are not finite."""
    with soundfile.SoundFile(path) as file:
        while len(piece := file.read(size, dtype="float32")):
            if not np.isfinite(piece).all():
                raise InvalidEntry(f"samples that are not finite after {file.tell() / file.samplerate:.2f} s")
            yield piece


class _Screen:
    """Lines on stdout; on a terminal the last one is overwritten while it is partial."""

    def __init__(self) -> None:
        self.is_terminal = sys.stdout.isatty()
        self.last = ""  # partial text

    def show(self, result: RecognitionResult) -> None:
        """Prints an utterance that has ended, or a partial result if it is new."""
        text = " ".join(result.words)
        if result.hypothesis:
            if text:
                self._print(f"{result.start:8.2f} {result.end:8.2f}  {text}", "\n")
            self.last = ""
        elif text != self.last:
            self.last = text
            self._print(f"{result.start:8.2f} {result.end:8.2f}  {text} ...", "" if self.is_terminal else "\n")

    def show_all(self, results: Iterable[RecognitionResult]) -> None:
        """Prints several results in order."""
        for result in results:
            self.show(result)

    def _print(self, line: str, end: str) -> None:
        if not self.is_terminal:
            print(line, end=end, flush=True)
            return
        width = shutil.get_terminal_size().columns - 1
        if not end and len(line) > width:  # the end of a partial result, where it changes, stays visible
            line = line[:20] + "..." + line[23 - width :]
        print(f"\r\x1b[K{line}", end=end, flush=True)
