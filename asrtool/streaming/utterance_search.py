"""The search of one stream, utterance by utterance: log-probs in, words and endpoints out."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from asrtool.decoding.hypothesis import Hypothesis
from asrtool.streaming.ctc_search import WordAssembler
from asrtool.streaming.endpointing import Endpointing
from asrtool.streaming.partial_hypothesis import PartialHypothesis, StreamingSearch


@dataclass(frozen=True)
class UtteranceFrames:
    """The log-mel features (T, F) of an utterance and its log-probs (T', V), both float32."""

    features: np.ndarray
    log_probs: np.ndarray


@dataclass(frozen=True)
class RecognitionResult:
    """The words of an utterance so far; times in seconds from the start of the stream.

    times: where each of the words begins. num_final: this many words, from the first on, cannot change any more. start,
    end: of the audio that was searched. hypothesis: None while the utterance goes on (a partial result), then the
    search's hypothesis, whose frames are counted from `start`. frames: of an utterance that has ended, with
    `keep_frames`.
    """

    words: list[str]
    times: list[float]
    num_final: int
    start: float
    end: float
    hypothesis: Hypothesis | None = None
    frames: UtteranceFrames | None = None


@dataclass(frozen=True)
class SearchSettings:
    """What the searches of all streams of a model have in common.

    frame_seconds: from the start of an output frame to the next one's. check_interval: output frames between two checks
    for an endpoint. factor: feature frames for each output frame. keep_frames: results of utterances have their
    features and log-probs, which are kept until then.
    """

    assembler: WordAssembler
    frame_seconds: float
    factor: int
    check_interval: int
    keep_frames: bool = False


class UtteranceSearch:
    """Searches the utterances of one stream. An utterance begins right after the last frame of the one before."""

    def __init__(
        self,
        settings: SearchSettings,
        new_search: Callable[[], StreamingSearch],
        endpointing: Endpointing | None = None,
    ):
        self._settings = settings
        self._new_search = new_search
        self._endpointing = endpointing
        self._start_frame = 0  # output frames of the stream before the utterance
        self._begin()

    def _begin(self) -> None:
        self._search = self._new_search()
        self._partial = PartialHypothesis([], 0, 0)
        self.num_frames = 0  # output frames of the utterance that were searched
        self._features: list[np.ndarray] = []
        self._log_probs: list[np.ndarray] = []

    def advance(self, log_probs: np.ndarray, features: np.ndarray, check: bool = True) -> bool:
        """Searches log-probs (T, V) of further frames up to the end of the utterance; returns True if it was reached.

        `features` (m, F) are those that arrived with them. Without `check` the utterance goes on whatever the rules.
        """
        if self._settings.keep_frames:
            self._features.append(features)
        if self._endpointing is None or not check:
            self._search_frames(log_probs)
            return False
        interval = self._settings.check_interval
        first = interval - self.num_frames % interval
        for piece in np.split(log_probs, range(first, len(log_probs), interval)):
            self._search_frames(piece)
            is_check = len(piece) and self.num_frames % interval == 0
            if is_check and self._endpointing.has_ended(self._partial, self._settings.frame_seconds):
                return True
        return False

    def _search_frames(self, log_probs: np.ndarray) -> None:
        """Searches the log-probs (T, V) of further frames; T may be 0."""
        if len(log_probs):
            self._partial = self._search.advance(log_probs)
            self.num_frames += len(log_probs)
            if self._settings.keep_frames:
                self._log_probs.append(log_probs)

    def end_utterance(self) -> RecognitionResult:
        """Returns the result of the utterance, and begins another one after its last frame."""
        hypothesis = self._search.finish()
        if hypothesis.words is None:
            words, frames = self._settings.assembler.words(hypothesis.tokens, hypothesis.frames)
        else:
            words, frames = hypothesis.words, hypothesis.word_frames
        result = self._result(words, frames, len(words), hypothesis)
        if self._settings.keep_frames:
            result = replace(result, frames=self._utterance_frames())
        self._start_frame += self.num_frames
        self._begin()
        return result

    @property
    def total_frames(self) -> int:
        """The output frames of the stream that were searched."""
        return self._start_frame + self.num_frames

    def partial(self) -> RecognitionResult:
        """Returns the words of the utterance so far."""
        return self._result(self._partial.words, self._partial.word_frames, self._partial.num_final)

    def _result(
        self, words: list[str], frames: list[int], num_final: int, hypothesis: Hypothesis | None = None
    ) -> RecognitionResult:
        """Returns the result that the words are, from their first frames, counted from the start of the utterance."""
        frame_seconds = self._settings.frame_seconds
        start = self._start_frame * frame_seconds
        return RecognitionResult(
            words=words,
            times=[round(start + frame * frame_seconds, 3) for frame in frames],
            num_final=num_final,
            start=round(start, 3),
            end=round(start + self.num_frames * frame_seconds, 3),
            hypothesis=hypothesis,
        )

    def _utterance_frames(self) -> UtteranceFrames:
        """Returns the features and log-probs of the utterance, which ends with the last frame that was searched."""
        if not self._log_probs:
            return UtteranceFrames(np.zeros((0, 0), np.float32), np.zeros((0, 0), np.float32))
        features = np.concatenate(self._features)[: self.num_frames * self._settings.factor]
        return UtteranceFrames(features, np.concatenate(self._log_probs))
