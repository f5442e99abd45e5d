"""Recordings of any length to words: segments, features, model, search, and segments joined again.

    audio -> segments between pauses -> batches of similar length -> log-probs -> search -> words -> joined at seams

Every step is an iterator over a bounded part of the recording, so that memory does not grow with its length, and the
first words appear before the last ones are read.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from asrtool.decoding.calibration import MethodCalibration, read_calibration
from asrtool.decoding.options import Options, check_options
from asrtool.decoding.search_setup import open_search
from asrtool.decoding.words import TimedWord, WordDescriber
from asrtool.deploy.interim import AudioSegment, read_segments
from asrtool.deploy.results import Segment, Transcript, Word
from asrtool.deploy.segment_batches import SegmentFrames, segment_frames, segment_windows
from asrtool.deploy.segment_search import SearchProcesses, SegmentSearch, SegmentWords
from asrtool.experiment import Experiment

logger = logging.getLogger(__name__)

Audio = str | Path | BinaryIO | np.ndarray  # a path, an open file, or samples (n,) or (n, channels)
Channel = int | Literal["mix"]

BATCH_SECONDS = 100.0  # of audio with padding: on CPUs no larger batch is faster, on GPUs it fills one


class Transcriber:
    """Recognises recordings with one system, one method and its options."""

    def __init__(
        self,
        experiment: Experiment,
        method: str,
        options: Options,
        jobs: int = 1,
        batch_seconds: float = BATCH_SECONDS,
        max_seconds: float | None = None,
    ):
        check_options([method], options)
        self.experiment = experiment
        self.method = method
        self.rate = experiment.config.features.sampling_rate
        self.batch_seconds = batch_seconds
        self.max_seconds = max_seconds or experiment.config.data.max_seconds
        setup = open_search(method, experiment.tokenizer, options)
        describer = WordDescriber(experiment, setup.graph, method_calibration(experiment, method))
        self._processes = SearchProcesses(SegmentSearch(setup.search, describer, experiment.tokenizer), jobs)

    def transcribe(
        self,
        source: Audio,
        channel: Channel = "mix",
        rate: int | None = None,
        on_progress: Callable[[float], object] | None = None,
    ) -> Transcript:
        """Returns the words of a recording; see `segments`.

        `on_progress` is called with the seconds of the recording that are done, after each segment.
        """
        segments = []
        end = 0.0
        for segment in self.segments(source, channel, rate):
            segments.append(segment)
            end = segment.end
            if on_progress:
                on_progress(end)
        return Transcript(_name(source), end, segments, self.method, None if channel == "mix" else channel)

    def segments(self, source: Audio, channel: Channel = "mix", rate: int | None = None) -> Iterator[Segment]:
        """Yields the segments of a recording as they are recognised, in order; those without words are left out.

        `rate` is the sampling rate of `source` if it is an array, in Hz.
        """
        audio = read_segments(source, rate, self.rate, channel, self.max_seconds)
        for segment, words in self._processes.map(self._with_frames(audio)):
            if words.described.words:
                yield _as_segment(segment, words)

    def _with_frames(self, segments: Iterable[AudioSegment]) -> Iterator[tuple[AudioSegment, SegmentFrames]]:
        """Yields each segment, without its samples, and its features and log-probs, in order."""
        for window in segment_windows(segments, self.rate):
            frames = segment_frames(self.experiment, window, self.batch_seconds)
            bare = (replace(segment, samples=segment.samples[:0]) for segment in window)
            yield from zip(bare, frames, strict=True)

    def close(self) -> None:
        """Ends the search processes."""
        self._processes.close()


def method_calibration(experiment: Experiment, method: str) -> MethodCalibration | None:
    """Returns the calibration of a method that the system carries, if there is one. UserError for a damaged file."""
    path = experiment.files.calibration
    return read_calibration(path).get(method) if path else None


def _as_segment(audio: AudioSegment, result: SegmentWords) -> Segment:
    words = words_at(audio.start, result.described.words)
    confidence = rounded_confidence(result.described.confidence)
    return Segment(words[0].start, words[-1].end, words, confidence, result.alternatives)


def words_at(start: float, words: Sequence[TimedWord]) -> list[Word]:
    """Returns words whose times count from `start`, in seconds, with times from 0 on."""
    return [
        Word(
            text=word.text,
            start=round(start + word.start, 3),
            end=round(start + word.end, 3),
            confidence=rounded_confidence(word.confidence),
        )
        for word in words
    ]


def rounded_confidence(confidence: float | None) -> float | None:
    """Returns a confidence with four decimals: further ones depend on the order of additions in a batch."""
    return None if confidence is None else round(confidence, 4)


def _name(source: Audio) -> str:
    """Returns the name of a recording for its transcript: its path, or what it is."""
    if isinstance(source, np.ndarray):
        return "array"
    return str(source if isinstance(source, str | Path) else getattr(source, "name", "stream"))
