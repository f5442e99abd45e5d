"""The words of a hypothesis with their times, by forced alignment, and with their confidences."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from asrtool.decoding.calibration import MethodCalibration, mean_confidence
from asrtool.decoding.confidence import WordEvidence, acoustic_posteriors, empty_posterior
from asrtool.decoding.hypothesis import Hypothesis
from asrtool.decoding.unit_chain import FrameSpan
from asrtool.decoding.word_times import unit_spans, word_times
from asrtool.decoding.word_units import WordSplitter
from asrtool.experiment import Experiment
from asrtool.graphs.folder import DecodingGraph


class TimedWord(NamedTuple):
    """A recognised word; `start` and `end` in seconds from the start of the log-probs.

    confidence: the probability that it is correct, calibrated where there is a calibration.
    """

    text: str
    start: float
    end: float
    confidence: float | None


class UtteranceWords(NamedTuple):
    """The words of an utterance, and its expected word accuracy: 1 - WER, or 0 where there are more errors than words.

    Without a calibration this is the mean of the words' confidences, which leaves missing words out.
    """

    words: list[TimedWord]
    confidence: float | None


class UtteranceEvidence(NamedTuple):
    """What the confidences of an utterance are computed from; `empty`: the probability that it has no word."""

    words: list[WordEvidence]
    empty: float


class WordDescriber:
    """Finds times and confidences of the words in hypotheses of one search.

    `graph` is the graph of a graph search. `calibration` is the method's, of `read_calibration`; None: posteriors stay
    as they are.
    """

    def __init__(
        self,
        experiment: Experiment,
        graph: DecodingGraph | None = None,
        calibration: MethodCalibration | None = None,
    ):
        self.splitter = WordSplitter(experiment.tokenizer, graph)
        self.topology = graph.meta["topology"] if graph else experiment.config.objective.topology
        self.frame_seconds = experiment.frame_seconds
        self.calibration = calibration

    def describe(
        self, hypothesis: Hypothesis, log_probs: np.ndarray, features: np.ndarray | None = None
    ) -> UtteranceWords:
        """Returns the words of a hypothesis for log_probs (T, V) float32 on the CPU.

        `features` (F, B), the log-mel features of the same utterance, sharpen the times: see word_times.py.
        """
        words = self.splitter.words(hypothesis)
        spans = unit_spans(log_probs, hypothesis, self.topology)
        word_spans = [_joined(spans, begin, end) for _, (begin, end) in words]
        evidence = self._evidence(hypothesis, log_probs, words, word_spans)
        times = word_times(word_spans, len(spans), len(log_probs), self.frame_seconds, features)
        confidences = [self._confidence(word) for word in evidence.words]
        timed = [
            TimedWord(text, start, end, confidence)
            for (text, _), (start, end), confidence in zip(words, times, confidences, strict=True)
        ]
        return UtteranceWords(timed, self._utterance_confidence(confidences, evidence.empty))

    def evidence(self, hypothesis: Hypothesis, log_probs: np.ndarray) -> UtteranceEvidence:
        """Returns what the confidences of a hypothesis are computed from; log_probs (T, V)."""
        words = self.splitter.words(hypothesis)
        spans = unit_spans(log_probs, hypothesis, self.topology)
        word_spans = [_joined(spans, begin, end) for _, (begin, end) in words]
        return self._evidence(hypothesis, log_probs, words, word_spans)

    def _evidence(
        self,
        hypothesis: Hypothesis,
        log_probs: np.ndarray,
        words: Sequence[tuple[str, tuple[int, int]]],
        word_spans: Sequence[FrameSpan],
    ) -> UtteranceEvidence:
        units = [hypothesis.tokens[begin:end] for _, (begin, end) in words]
        acoustic = acoustic_posteriors(log_probs, word_spans, units, self.topology)
        posteriors: Sequence[float | None] = hypothesis.word_posteriors or [None] * len(words)
        evidence = [
            WordEvidence(posterior, value, len(one))
            for posterior, value, one in zip(posteriors, acoustic, units, strict=True)
        ]
        return UtteranceEvidence(evidence, 0.0 if words else empty_posterior(log_probs, self.topology))

    def _confidence(self, evidence: WordEvidence) -> float:
        calibrated = self.calibration.word_confidence(evidence) if self.calibration else None
        return evidence.raw_confidence if calibrated is None else calibrated

    def _utterance_confidence(self, confidences: Sequence[float], empty: float) -> float:
        mean = mean_confidence(confidences, empty)
        return self.calibration.utterances.confidence(mean, len(confidences)) if self.calibration else mean


def _joined(spans: Sequence[FrameSpan], begin: int, end: int) -> FrameSpan:
    """Returns the frames from unit `begin` to the one before `end`; no frames at unit `begin` if there is none."""
    if begin < end:
        return FrameSpan(spans[begin].begin, spans[end - 1].end)
    place = spans[begin].begin if begin < len(spans) else (spans[-1].end if spans else 0)
    return FrameSpan(place, place)
