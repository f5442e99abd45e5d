"""Recordings of any length to words: segments, features, model, search, and segments joined again.

    audio -> segments between pauses -> batches of similar length -> log-probs -> search -> words -> joined at seams

Every step is an iterator over a bounded part of the recording, so that memory does not grow with its length, and the
first words appear before the last ones are read.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np

from asrtool.data.audio_blocks import AudioRecording, Channel, open_recording
from asrtool.data.resampling import rate_warning
from asrtool.data.speech_segments import segment_recording
from asrtool.decoding.calibration import open_calibration
from asrtool.decoding.options import Options, check_options
from asrtool.decoding.runs import method_label
from asrtool.decoding.search_setup import open_search
from asrtool.decoding.words import WordDescriber
from asrtool.experiment import Experiment
from asrtool.inference.detectors import open_detector
from asrtool.inference.results import Alternative, Segment, Transcript, Word, rounded_confidence, words_at
from asrtool.inference.seams import join_seam
from asrtool.inference.segment_batches import (
    FollowedSegment,
    SegmentFrames,
    limit_primitive_cache,
    segment_frames,
    segment_windows,
    with_next_overlaps,
)
from asrtool.inference.segment_search import SearchProcesses, SegmentSearch, SegmentWords
from asrtool.inference.training_lengths import longest_utterance

logger = logging.getLogger(__name__)

Audio = str | Path | BinaryIO | np.ndarray  # a path, an open file, or samples (n,) or (n, channels)

T = TypeVar("T")

MIN_SEGMENT_SECONDS = 5.0  # shorter segments are mostly cut within phrases, also of systems trained on single words

BATCH_SECONDS = 100.0  # of audio with padding: on CPUs no larger batch is faster, on GPUs it fills one


class Transcriber:
    """Recognises recordings with one system, one method and its options.

    jobs: search processes beside the model. batch_seconds: audio in a batch of segments, padding included. max_seconds:
    the longest segment, by default the longest utterance of the training. vad: the detector of the pauses at which
    recordings are cut (asrtool/inference/detectors.py).
    """

    def __init__(
        self,
        experiment: Experiment,
        method: str,
        options: Options,
        jobs: int = 1,
        batch_seconds: float = BATCH_SECONDS,
        max_seconds: float | None = None,
        vad: str = "auto",
    ):
        check_options([method], options)
        limit_primitive_cache()
        self.experiment = experiment
        self.label = method_label(method, options)
        self.rate = experiment.config.features.sampling_rate
        self.batch_seconds = batch_seconds
        self.max_seconds = max_seconds or max(MIN_SEGMENT_SECONDS, longest_utterance(experiment))
        setup = open_search(method, experiment.tokenizer, options, topology=experiment.config.objective.topology)
        calibration, _ = open_calibration(experiment, self.label)
        describer = WordDescriber(experiment, setup.graph, calibration)
        # The processes are forked before the detector starts its threads.
        self._processes = SearchProcesses(SegmentSearch(setup.search, describer, experiment.tokenizer), jobs)
        self.detector = open_detector(vad)

    def transcribe(
        self,
        source: Audio,
        channel: Channel = "mix",
        rate: int | None = None,
        on_progress: Callable[[float], object] | None = None,
        on_segment: Callable[[Segment], object] | None = None,
    ) -> Transcript:
        """Returns the words of a recording; see `segments`.

        `on_progress` is called with the seconds of the recording that are done, after each segment and at the end.
        `on_segment` is called with each segment that has words, as soon as it is recognised.
        """
        recording = self._open(source, rate)
        blocks = _CountedBlocks(recording.blocks(self.rate, channel))
        segments = []
        for recognised in self._recognise(blocks):
            if recognised.words:
                segments.append(recognised.as_segment())
                if on_segment:
                    on_segment(segments[-1])
            if on_progress:
                on_progress(recognised.end)
        seconds = blocks.num_samples / self.rate
        if on_progress:
            on_progress(seconds)
        number = None if channel == "mix" else channel
        return Transcript(recording.name, round(seconds, 3), segments, self.label, number)

    def segments(self, source: Audio, channel: Channel = "mix", rate: int | None = None) -> Iterator[Segment]:
        """Yields the segments of a recording as they are recognised, in order; those without words are left out.

        `rate` is the sampling rate of `source` if it is an array, in Hz.
        """
        recording = self._open(source, rate)
        for recognised in self._recognise(recording.blocks(self.rate, channel)):
            if recognised.words:
                yield recognised.as_segment()

    def _open(self, source: Audio, rate: int | None) -> AudioRecording:
        recording = open_recording(source, rate)
        if warning := rate_warning(recording.sampling_rate, self.rate):
            logger.warning(f"{recording.name}: {warning}")
        return recording

    def _recognise(self, blocks: Iterable[np.ndarray]) -> Iterator["RecognisedSegment"]:
        audio = segment_recording(blocks, self.rate, self.max_seconds, self.detector)
        frames = self._with_frames(with_next_overlaps(audio))
        return join_segments(RecognisedSegment.from_result(place, result) for place, result in self.search_all(frames))

    def _with_frames(self, segments: Iterable[FollowedSegment]) -> Iterator[tuple["SegmentPlace", SegmentFrames]]:
        """Yields the place of each segment with its features and log-probs, in order."""
        for window in segment_windows(segments, self.rate):
            audio = [followed.segment for followed in window]
            places = [SegmentPlace.of(followed, self.rate) for followed in window]
            yield from zip(places, segment_frames(self.experiment, audio, self.batch_seconds), strict=True)

    def search_all(self, frames: Iterable[tuple[T, SegmentFrames]]) -> Iterator[tuple[T, SegmentWords]]:
        """Yields each item with the words of its frames, in order; the search processes share them."""
        return self._processes.map(frames)

    def close(self) -> None:
        """Ends the search processes."""
        self._processes.close()


class SegmentPlace(NamedTuple):
    """Where a segment is in its recording, in seconds, and how much of it the segments before and after it have."""

    start: float
    end: float
    overlap: float
    next_overlap: float

    @classmethod
    def of(cls, followed: FollowedSegment, rate: int) -> "SegmentPlace":
        """Returns the place of a segment at a sampling rate."""
        segment, next_overlap = followed
        return cls(segment.start, segment.start + len(segment.samples) / rate, segment.overlap, next_overlap)


class RecognisedSegment(NamedTuple):
    """The words of a segment, with times in the recording, their confidence, and the n-best list if there is one."""

    place: SegmentPlace
    words: list[Word]
    confidence: float | None = None
    alternatives: tuple[Alternative, ...] = ()

    @classmethod
    def from_result(cls, place: SegmentPlace, result: SegmentWords) -> "RecognisedSegment":
        """Returns the segment with the words of a search."""
        words = words_at(place.start, place.end, result.described.words)
        return cls(place, words, result.described.confidence, result.alternatives)

    @property
    def end(self) -> float:
        """The end of its audio in the recording, in seconds."""
        return self.place.end

    def as_segment(self) -> Segment:
        """Returns the segment from its first to its last word; it has at least one."""
        return Segment(
            start=self.words[0].start,
            end=self.words[-1].end,
            words=self.words,
            confidence=rounded_confidence(self.confidence),
            alternatives=self.alternatives,
        )

    def with_words(self, first: int, last: int) -> "RecognisedSegment":
        """Returns the segment with words[first:last] only; the neighbours have the others.

        Its confidence is the mean of these words. Of its alternatives, those remain that begin and end with the words
        that are left out, without them.
        """
        if (first, last) == (0, len(self.words)):
            return self
        kept = self.words[first:last]
        known = [word.confidence for word in kept if word.confidence is not None]
        confidence = sum(known) / len(known) if known and len(known) == len(kept) else None
        before, after = self.words[:first], self.words[last:]
        alternatives = trimmed_alternatives(
            self.alternatives, [word.text for word in before], [word.text for word in after]
        )
        return self._replace(words=kept, confidence=confidence, alternatives=alternatives)


def trimmed_alternatives(
    alternatives: Sequence[Alternative], before: Sequence[str], after: Sequence[str]
) -> tuple[Alternative, ...]:
    """Returns the alternatives that have the words `before` at their beginning and `after` at their end, without them.

    Their scores still belong to the whole hypotheses. There are none if the best one has other words there.
    """
    trimmed = []
    for number, alternative in enumerate(alternatives):
        words = alternative.text.split()
        end = len(words) - len(after)
        has_both = len(before) <= end and words[: len(before)] == [*before] and words[end:] == [*after]
        if has_both:
            trimmed.append(replace(alternative, text=" ".join(words[len(before) : end])))
        elif number == 0:
            return ()
    return tuple(trimmed)


def join_segments(segments: Iterable[RecognisedSegment]) -> Iterator[RecognisedSegment]:
    """Yields the segments with the words of their overlaps in one of both only.

    A segment waits for the next one only where these overlap.
    """
    waiting: RecognisedSegment | None = None
    for segment in segments:
        if waiting is not None:
            left, right = join_seam(waiting.words, segment.words, segment.place.start, segment.place.overlap)
            yield waiting.with_words(0, len(left))
            segment = segment.with_words(len(segment.words) - len(right), len(segment.words))
        waiting = segment if segment.place.next_overlap > 0 else None
        if waiting is None:
            yield segment
    if waiting is not None:
        yield waiting


class _CountedBlocks:
    """Blocks of samples, counted as they are read."""

    def __init__(self, blocks: Iterable[np.ndarray]):
        self._blocks = blocks
        self.num_samples = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self._blocks:
            self.num_samples += len(block)
            yield block
