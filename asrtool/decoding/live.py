"""What is understood of one recording, shown while it comes."""

import shutil
import sys
from pathlib import Path

import soundfile

from asrtool.data.audio import Bad, probe
from asrtool.decoding.decode import Experiment
from asrtool.decoding.endpointing import Endpointing
from asrtool.decoding.recogniser import Recogniser, Result, StreamSetup
from asrtool.decoding.stream import default_chunk
from asrtool.errors import UserError, require_file


def show(
    experiment: Experiment,
    setup: StreamSetup,
    wav: Path,
    chunk: float | None = None,
    endpointing: Endpointing | None = None,
) -> None:
    """Print the utterances of the recording `wav`: start, end, words. Partial results have "..." at their end.

    On a terminal a partial result is overwritten by the next one; elsewhere each that is new gets a line. `chunk`:
    seconds of audio at a time. UserError for what is no mono recording at the model's sampling rate.
    """
    recogniser = Recogniser(experiment, setup.new_search, endpointing)
    path = require_file(wav, "recording", "give a file of audio")
    try:
        rate, _ = probe(str(path))
    except Bad as problem:
        raise UserError(str(problem)) from None
    if rate != recogniser.rate:
        raise UserError(f"{path}: {rate} Hz, the model hears {recogniser.rate}; convert it, e.g. with sox")
    screen, size = _Screen(), max(1, round((chunk or default_chunk(experiment)) * rate))
    with soundfile.SoundFile(path) as file:
        while len(piece := file.read(size, dtype="float32")):
            for result in recogniser.accept(piece):
                screen.show(result)
    for result in recogniser.finish():
        screen.show(result)


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

    def _print(self, line: str, end: str) -> None:
        if not self.live:
            print(line, end=end, flush=True)
            return
        width = shutil.get_terminal_size().columns - 1
        shown = line if end or len(line) <= width else line[:20] + "..." + line[23 - width :]  # its end, where news are
        print(f"\r\x1b[K{shown}", end=end, flush=True)
