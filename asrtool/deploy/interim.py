"""Reading, cutting and times without parts that are not in this checkout yet; to be deleted with their first use."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import soundfile
import soxr

from asrtool.decoding.hypothesis import Hypothesis
from asrtool.experiment import Experiment
from asrtool.streaming.ctc_search import WordAssembler


@dataclass(frozen=True)
class AudioSegment:
    """Samples (n,) float32 from `start`, in seconds; the first `overlap` seconds are in the previous segment, too."""

    start: float
    samples: np.ndarray
    overlap: float = 0.0


@dataclass(frozen=True)
class TimedWord:
    text: str
    start: float
    end: float
    confidence: float | None = None


@dataclass(frozen=True)
class UtteranceWords:
    words: list[TimedWord]
    confidence: float | None = None


class WordDescriber:
    def __init__(self, experiment: Experiment, graph: object = None, calibration: object = None):
        self.assembler = WordAssembler(experiment.tokenizer)
        self.frame = experiment.frame_seconds

    def describe(self, hypothesis: Hypothesis, log_probs: np.ndarray) -> UtteranceWords:
        words, frames = hypothesis.words, hypothesis.word_frames
        if words is None:
            words, frames = self.assembler.words(hypothesis.tokens, hypothesis.frames)
        ends = [*frames, len(log_probs)][1:]
        rows = zip(words, frames, ends, strict=True)
        return UtteranceWords([TimedWord(word, a * self.frame, b * self.frame) for word, a, b in rows])


def read_segments(source, rate_of_array, rate: int, channel, max_seconds: float) -> Iterator[AudioSegment]:
    if isinstance(source, np.ndarray):
        samples, source_rate = source, rate_of_array
    else:
        samples, source_rate = soundfile.read(source, dtype="float32")
    if samples.ndim == 2:
        samples = samples.mean(1) if channel == "mix" else samples[:, channel]
    samples = soxr.resample(samples, source_rate, rate).astype(np.float32)
    size = round(max_seconds * rate)
    for begin in range(0, len(samples), size):
        yield AudioSegment(begin / rate, samples[begin : begin + size])
