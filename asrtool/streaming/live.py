"""What is understood of one recording, shown while it comes."""

import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import soundfile

from asrtool.data.audio import inspect_mono_audio
from asrtool.data.sources import InvalidEntry
from asrtool.errors import UserError
from asrtool.experiment import Experiment
from asrtool.streaming.endpointing import Endpointing
from asrtool.streaming.recogniser import Recogniser, Result, StreamingSetup
from asrtool.streaming.stream import default_chunk


def show(
    experiment: Experiment,
    setup: StreamingSetup,
    wav: Path,
    chunk: float | None = None,
    endpointing: Endpointing | None = None,
) -> None:
    """Print the utterances of the recording `wav`: start, end, words. PartialHypothesis results have "..." at their end.

    On a terminal a partial result is overwritten by the next one; elsewhere each that is new gets a line. `chunk`:
    seconds of audio at a time. UserError for what is no mono recording at the model's sampling rate.
    """
    recogniser = Recogniser(experiment, setup.new_search, endpointing)
    path = _recording(wav)
    rate = probed(path)
    if rate != recogniser.rate:
        raise UserError(f"{path}: {rate} Hz, the model hears {recogniser.rate}; convert it, e.g. with sox")
    screen, size = _Screen(), max(1, round((chunk or default_chunk(experiment)) * rate))
    try:
        for piece in _pieces(path, size):
            screen.show_all(recogniser.accept(piece))
        screen.show_all(recogniser.finish())
    except (InvalidEntry, OSError, soundfile.LibsndfileError) as error:
        raise UserError(f"{path}: cannot be read to its end ({error})") from error


def _recording(path: Path) -> Path:
    if not path.exists() and str(path) != "-":
        raise UserError(f"recording not found: {path}; give a file of audio")
    if not path.is_file():
        raise UserError(f"--wav {path} is not a file of audio; from a pipe or a microphone, record into a file first")
    return path


def probed(path: Path) -> int:
    """The sampling rate of a mono file. UserError with what is wrong with it."""
    try:
        return inspect_mono_audio(str(path))[0]
    except InvalidEntry as problem:
        raise UserError(str(problem)) from None


def _pieces(path: Path, size: int) -> Iterator[np.ndarray]:
    """The samples of a file, `size` at a time. Raises InvalidEntry for samples that are not finite."""
    with soundfile.SoundFile(path) as file:
        while len(piece := file.read(size, dtype="float32")):
            if not np.isfinite(piece).all():
                raise InvalidEntry(f"samples that are not finite after {file.tell() / file.samplerate:.2f} s")
            yield piece


class _Screen:
    """Lines on stdout, the last of them open if it is a terminal."""

    def __init__(self) -> None:
        self.live, self.last = sys.stdout.isatty(), ""

    def show(self, result: Result) -> None:
        """An utterance that ended, or a partial result if there is anything new in it."""
        text = " ".join(result.words)
        if result.hypothesis:
            if text:
                self._print(f"{result.start:8.2f} {result.end:8.2f}  {text}", "\n")
            self.last = ""
        elif text != self.last:
            self.last = text
            self._print(f"{result.start:8.2f} {result.end:8.2f}  {text} ...", "" if self.live else "\n")

    def show_all(self, results: Iterable[Result]) -> None:
        """Several, in their order."""
        for result in results:
            self.show(result)

    def _print(self, line: str, end: str) -> None:
        if not self.live:
            print(line, end=end, flush=True)
            return
        width = shutil.get_terminal_size().columns - 1
        shown = line if end or len(line) <= width else line[:20] + "..." + line[23 - width :]  # its end, where news are
        print(f"\r\x1b[K{shown}", end=end, flush=True)
