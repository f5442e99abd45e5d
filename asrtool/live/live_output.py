"""Results of live recognition on standard output: lines of text, overwritten on a terminal, or JSON objects."""

import json
import logging
import shutil
import sys
from collections.abc import Iterable

from asrtool.inference.stream import StreamResult
from asrtool.live.stream_messages import end_message, result_message
from asrtool.logs import printable
from asrtool.text.display_width import display_width, last_columns

logger = logging.getLogger(__name__)


class ResultPrinter:
    """Prints final results, and partial results that differ from what was printed last."""

    def __init__(self) -> None:
        self._last: object = None  # what was printed of the current utterance

    def show_all(self, results: Iterable[StreamResult], audio_seconds: float, compute_seconds: float) -> None:
        """Prints those results that are new. Seconds: of audio that has arrived, and of computation until now."""
        for result in results:
            if self._is_new(result):
                self._print(result, audio_seconds, compute_seconds)

    def end(self, audio_seconds: float, compute_seconds: float) -> None:
        """Ends the output of a stream."""

    def warn(self, message: str) -> None:
        """Logs a warning."""
        logger.warning(message)

    def _is_new(self, result: StreamResult) -> bool:
        """Returns False for a repeated partial result, and for an utterance of which there was nothing to show."""
        last, self._last = self._last, None if result.is_final else self._shown_part(result)
        if result.is_final:
            return bool(result.words) or last is not None
        return self._last != last

    def _shown_part(self, result: StreamResult) -> object:
        """Returns the part of a partial result whose changes are printed; None as long as there are no words."""
        raise NotImplementedError

    def _print(self, result: StreamResult, audio_seconds: float, compute_seconds: float) -> None:
        raise NotImplementedError


class JsonPrinter(ResultPrinter):
    """One JSON object a line: see asrtool/live/stream_messages.py."""

    def end(self, audio_seconds: float, compute_seconds: float) -> None:
        """Prints the object of type "end"."""
        print(json.dumps(end_message(audio_seconds, compute_seconds)), flush=True)

    def _shown_part(self, result: StreamResult) -> object:
        return (result.text, result.num_final) if result.words else None

    def _print(self, result: StreamResult, audio_seconds: float, compute_seconds: float) -> None:
        print(json.dumps(result_message(result, audio_seconds, compute_seconds), ensure_ascii=False), flush=True)


class TextPrinter(ResultPrinter):
    """Lines with start, end and words of an utterance. Partial results end in "..."; a terminal overwrites them."""

    def __init__(self) -> None:
        super().__init__()
        self._is_terminal = sys.stdout.isatty()
        self._has_partial = False  # on the last line of the terminal

    def end(self, audio_seconds: float, compute_seconds: float) -> None:
        """Removes a partial result from the terminal."""
        self._clear()

    def warn(self, message: str) -> None:
        """Logs a warning on a line of its own."""
        self._clear()
        super().warn(message)
        self._last = None if self._last is None else ""  # the partial result is printed again

    def _shown_part(self, result: StreamResult) -> object:
        return result.text or None

    def _print(self, result: StreamResult, audio_seconds: float, compute_seconds: float) -> None:
        line = f"{result.start:8.2f} {result.end:8.2f}  {printable(result.text)}"
        self._clear()
        if not result.is_final:
            self._print_partial(f"{line} ...")
        elif result.words:
            print(line, flush=True)

    def _print_partial(self, line: str) -> None:
        if not self._is_terminal:
            print(line, flush=True)
            return
        width = shutil.get_terminal_size().columns - 1
        if display_width(line) > width:  # the end of a partial result, where it changes, stays visible
            times = f"{line[:20]}..."
            is_wide_enough = width > len(times)
            line = times + last_columns(line[20:], width - len(times)) if is_wide_enough else last_columns(line, width)
        print(line, end="", flush=True)
        self._has_partial = True

    def _clear(self) -> None:
        """Deletes the partial result on the last line of the terminal."""
        if self._has_partial:
            print("\r\x1b[K", end="", flush=True)
            self._has_partial = False
