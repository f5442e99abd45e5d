"""Audio as it arrives, at any sampling rate, to partial and final words with times and confidence."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from asrtool.data.audio import MAX_SAMPLE, describe_wrong_samples
from asrtool.data.resampling import StreamResampler, rate_warning
from asrtool.decoding.words import WordDescriber
from asrtool.errors import UserError
from asrtool.experiment import Experiment
from asrtool.inference.results import Word, rounded_confidence, words_at
from asrtool.streaming.endpointing import Endpointing
from asrtool.streaming.partial_hypothesis import StreamingSearch
from asrtool.streaming.recogniser import Recogniser, RecognitionResult

logger = logging.getLogger(__name__)

INT16_STEP = np.float32(1 / 32768)


@dataclass(frozen=True)
class StreamResult:
    """The words of an utterance so far, `start` and `end` in seconds from the start of the stream.

    is_final: True once the utterance has ended; its words then have the times of a forced alignment, and confidence.
    Words of a partial result end where the next one begins. num_final: this many words, from the first on, cannot
    change any more. confidence: of the whole utterance, for final results.
    """

    words: Sequence[Word]
    start: float
    end: float
    is_final: bool
    num_final: int
    confidence: float | None = None

    @cached_property
    def text(self) -> str:
        """The words, joined by single spaces."""
        return " ".join(word.text for word in self.words)


class Stream:
    """One stream of audio; `asrtool.Model.stream` opens it.

        stream = model.stream(rate=48000)
        for samples in microphone:
            for result in stream.accept(samples):
                print(result.text, "" if result.is_final else "...")
        for result in stream.finish():
            print(result.text)

    The sizes of the pieces do not change the result. After `finish` it is ready for the next stream.
    """

    def __init__(
        self,
        experiment: Experiment,
        new_search: Callable[[], StreamingSearch],
        describer: WordDescriber,
        rate: int | None = None,
        endpointing: Endpointing | None = None,
    ):
        self._describer = describer
        self._recogniser = Recogniser(experiment, new_search, endpointing, keep_frames=True)
        self.rate = rate or self._recogniser.rate
        self._resampler = StreamResampler(self.rate, self._recogniser.rate)
        if warning := rate_warning(self.rate, self._recogniser.rate):
            logger.warning(warning)

    def accept(self, samples: np.ndarray) -> list[StreamResult]:
        """Takes samples; returns the utterances that ended in them, and the partial result of the next one.

        samples: (n,) or (n, channels), of which the mean is recognised; float in -1 .. 1, int16 or int32. Raises
        UserError for other samples, InvalidEntry for audio that the model cannot recognise.
        """
        return self._results(self._recogniser.accept(self._resampler.accept(mono_samples(samples))))

    def finish(self) -> list[StreamResult]:
        """Ends the stream; returns its last utterances. The object is then ready for another stream."""
        results = self._recogniser.accept(self._resampler.finish())[:-1]
        self._resampler = StreamResampler(self.rate, self._recogniser.rate)
        return self._results([*results, *self._recogniser.finish()])

    def results(self, pieces: Iterable[np.ndarray]) -> Iterator[StreamResult]:
        """Yields the results of a whole stream: what `accept` returns for each piece, and what `finish` returns."""
        for samples in pieces:
            yield from self.accept(samples)
        yield from self.finish()

    def _results(self, results: Sequence[RecognitionResult]) -> list[StreamResult]:
        return [stream_result(result, self._describer) for result in results]


def stream_result(result: RecognitionResult, describer: WordDescriber) -> StreamResult:
    """Returns a result with the times of its words, and with their confidence if the utterance has ended."""
    if result.hypothesis is None:
        return _partial(result)
    words: list[Word] = []
    confidence = None
    if result.frames is not None and len(result.frames.log_probs):
        described = describer.describe(result.hypothesis, result.frames.log_probs, result.frames.features)
        words = words_at(result.start, result.end, described.words)
        confidence = rounded_confidence(described.confidence)
    return StreamResult(words, result.start, result.end, True, len(words), confidence)


def _partial(result: RecognitionResult) -> StreamResult:
    ends = [*result.times, result.end][1:]
    rows = zip(result.words, result.times, ends, strict=True)
    words = [Word(text, start, max(start, end)) for text, start, end in rows]
    return StreamResult(words, result.start, result.end, False, result.num_final)


def mono_samples(samples: np.ndarray) -> np.ndarray:
    """Returns samples (n,) float32 in -1 .. 1 of (n,) or (n, channels) floats, int16 or int32: the channels' mean.

    Raises UserError for other arrays, and for samples that are not finite or far beyond -1 .. 1.
    """
    samples = np.asarray(samples)
    if samples.ndim not in (1, 2) or samples.dtype not in (np.int16, np.int32, np.float16, np.float32, np.float64):
        found = f"{samples.dtype} of shape {samples.shape}"
        raise UserError(f"samples are {found}; give (n,) or (n, channels) of int16, int32 or floats in -1 .. 1")
    if samples.ndim == 2 and samples.shape[1] == 1:
        samples = samples[:, 0]
    if samples.ndim == 1 and samples.dtype == np.int16:  # what most streams send
        return samples.astype(np.float32) * INT16_STEP
    scale = 1.0 if samples.dtype.kind == "f" else -float(np.iinfo(samples.dtype).min)
    scaled = samples.astype(np.float64) / scale
    is_audio = np.abs(scaled) <= MAX_SAMPLE  # NaN is not
    if not is_audio.all():
        raise UserError(f"samples are not audio: {describe_wrong_samples(scaled[~is_audio])}")
    mixed = scaled if scaled.ndim == 1 else scaled.mean(axis=1)
    return mixed.astype(np.float32)
