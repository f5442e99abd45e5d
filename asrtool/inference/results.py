"""What recognition of a recording returns: words with times and confidence, in segments."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol


@dataclass(frozen=True)
class Word:
    """A recognised word; `start` and `end` in seconds of the recording.

    confidence: the probability that the word is correct, calibrated where the system has a calibration; None where the
    method gives none.
    """

    text: str
    start: float
    end: float
    confidence: float | None = None


class _TimedWord(Protocol):
    """A word with times, as asrtool.decoding.words.TimedWord."""

    @property
    def text(self) -> str: ...
    @property
    def start(self) -> float: ...
    @property
    def end(self) -> float: ...
    @property
    def confidence(self) -> float | None: ...


def words_at(start: float, end: float, words: Iterable[_TimedWord]) -> list[Word]:
    """Returns words whose times count from `start` with times in the recording, none after `end`, all in seconds.

    Times are rounded to milliseconds. The last frame of a model may go beyond the end of the audio.
    """
    return [
        Word(
            text=word.text,
            start=round(min(start + word.start, end), 3),
            end=round(min(start + word.end, end), 3),
            confidence=rounded_confidence(word.confidence),
        )
        for word in words
    ]


def rounded_confidence(confidence: float | None) -> float | None:
    """Returns a confidence with four decimals: further ones depend on the order of additions in a batch."""
    return None if confidence is None else round(confidence, 4)


@dataclass(frozen=True)
class Alternative:
    """A further hypothesis of a segment, and its natural log-probability."""

    text: str
    score: float


@dataclass(frozen=True)
class Segment:
    """A stretch of speech between pauses; `start` and `end` in seconds of the recording.

    alternatives: the n-best list, the recognised text first; empty unless it was asked for.
    """

    start: float
    end: float
    words: Sequence[Word]
    confidence: float | None = None
    alternatives: Sequence[Alternative] = ()

    @cached_property
    def text(self) -> str:
        """The words, joined by single spaces."""
        return " ".join(word.text for word in self.words)


@dataclass(frozen=True)
class Transcript:
    """The result of a recording, or of one of its channels.

    source: the path or name of the recording. seconds: its duration. channel: the recognised channel, from 0 on, or
    None for the mean of all. method: how it was recognised, e.g. "greedy" or "graph".
    """

    source: str
    seconds: float
    segments: Sequence[Segment]
    method: str
    channel: int | None = None

    @cached_property
    def words(self) -> list[Word]:
        """All words in order."""
        return [word for segment in self.segments for word in segment.words]

    @cached_property
    def text(self) -> str:
        """All words, joined by single spaces."""
        return " ".join(segment.text for segment in self.segments if segment.text)

    def _repr_html_(self) -> str:
        """Returns the words as HTML, shaded by confidence: notebooks display it."""
        from asrtool.inference.display import transcript_html

        return transcript_html(self)
