"""One stream of audio: samples in, words out.

samples -> FeatureStream -> ModelStream -> StreamingSearch -> RecognitionResult; after an endpoint, all of them are new
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from asrtool.data.features import FRAME_SHIFT
from asrtool.data.sources import InvalidEntry
from asrtool.decoding.hypothesis import Hypothesis
from asrtool.errors import UserError
from asrtool.experiment import Experiment
from asrtool.streaming.ctc_search import WordAssembler
from asrtool.streaming.endpointing import Endpointing
from asrtool.streaming.feature_stream import FeatureStream
from asrtool.streaming.model_stream import ModelStream
from asrtool.streaming.partial_hypothesis import PartialHypothesis, StreamingSearch

# The least time between two checks for an endpoint: far below the shortest silence of a rule, and long enough that a
# graph's best path is not traced back for every frame.
ENDPOINT_CHECK_SECONDS = 0.1


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


class Recogniser:
    """Recognises audio as it arrives, in pieces of any size, which do not change the result.

    The result of an utterance is what `asrtool decode` finds in its audio alone. An utterance ends with the stream, or
    where `endpointing` ends it; the next one begins right there, with model and search as at the start of a stream:
    no audio is lost between them, and past audio costs neither time nor memory. `new_search` creates the search of an
    utterance. With `keep_frames`, results of utterances have their features and log-probs, which are kept until then.
    """

    def __init__(
        self,
        experiment: Experiment,
        new_search: Callable[[], StreamingSearch],
        endpointing: Endpointing | None = None,
        keep_frames: bool = False,
    ):
        require_streaming_model(experiment)
        self.experiment = experiment
        self.new_search = new_search
        self.endpointing = endpointing
        self.keep_frames = keep_frames
        self.assembler = WordAssembler(experiment.tokenizer)
        self.rate = experiment.config.features.sampling_rate
        self.frame_seconds = experiment.frame_seconds
        factor = experiment.model.subsampling.factor
        self.frame_samples = int(FRAME_SHIFT * self.rate) * factor
        chunk = experiment.model.latency().chunk // factor  # output frames that the model computes at a time
        # output frames between two checks for an endpoint
        self.check_interval = chunk * math.ceil(ENDPOINT_CHECK_SECONDS / (chunk * self.frame_seconds))
        self._begin_utterance(0, torch.zeros(0))

    def accept(self, samples: np.ndarray | torch.Tensor) -> list[RecognitionResult]:
        """Takes (n,) samples, float in -1 .. 1; returns the utterances that ended in them, and a partial result.

        Raises ValueError for integers and for several channels, InvalidEntry for log-probs that are not finite.
        """
        samples = torch.as_tensor(samples)
        if samples.ndim != 1 or not samples.is_floating_point():
            expected = "samples are (n,) float in -1 .. 1, of one channel"
            raise ValueError(f"{samples.dtype} {tuple(samples.shape)}: {expected}")
        # At most a second at a time: audio after an endpoint is processed again for the next utterance.
        ended = [result for piece in samples.float().split(self.rate) for result in self._process(piece)]
        return [*ended, self._result(self._partial.words, self._partial.word_frames, self._partial.num_final)]

    def finish(self) -> list[RecognitionResult]:
        """Ends the stream; returns its last utterance. The recogniser is then ready for another stream."""
        log_probs = self._log_probs(self._features.finish())
        log_probs = np.concatenate([log_probs, _finite(self._model.finish()[0])])
        num_left = int(self._model.out_lens[0]) - self._num_frames  # the model's further frames are of padding
        self._search_frames(log_probs[:num_left])
        result = self._end_utterance()
        self._begin_utterance(0, torch.zeros(0))
        return [result]

    def _begin_utterance(self, sample: int, kept: torch.Tensor) -> None:
        """Begins an utterance at `sample` of the stream; `kept` are the samples from there on that have arrived."""
        features = self.experiment.config.features
        self._features = FeatureStream(features.sampling_rate, features.num_bins)
        self._model = ModelStream(self.experiment.model)
        self._search = self.new_search()
        self._start = sample
        self._kept = kept  # samples of output frames that were not searched yet
        self._num_dropped = 0  # samples of the utterance before `_kept`
        self._num_frames = 0  # output frames of the utterance that were searched
        self._partial = PartialHypothesis([], 0, 0)
        self._kept_features: list[torch.Tensor] = []  # of the utterance, and of what has arrived after it
        self._kept_log_probs: list[np.ndarray] = []

    def _process(self, samples: torch.Tensor) -> list[RecognitionResult]:
        """Takes samples; returns the utterances that ended in them."""
        self._kept = torch.cat([self._kept, samples])
        ended = []
        while self._search_to_endpoint(self._log_probs(self._features.accept(samples))):
            ended.append(self._end_utterance())
            samples = self._kept  # the next utterance takes the samples after the last frame
        self._drop_samples()
        return ended

    def _log_probs(self, features: torch.Tensor) -> np.ndarray:
        """Returns the log-probs (T, V) that are now final, for further features (n, F)."""
        if self.keep_frames:
            self._kept_features.append(features)
        return _finite(self._model.accept(features[None].to(self.experiment.device))[0])

    def _search_to_endpoint(self, log_probs: np.ndarray) -> bool:
        """Searches further frames up to the end of the utterance; returns True if it was reached."""
        if self.endpointing is None:
            self._search_frames(log_probs)
            return False
        first = self.check_interval - self._num_frames % self.check_interval
        for piece in np.split(log_probs, range(first, len(log_probs), self.check_interval)):
            self._search_frames(piece)
            is_check = len(piece) and self._num_frames % self.check_interval == 0
            if is_check and self.endpointing.has_ended(self._partial, self.frame_seconds):
                return True
        return False

    def _search_frames(self, log_probs: np.ndarray) -> None:
        """Searches the log-probs (T, V) of further frames; T may be 0."""
        if len(log_probs):
            self._partial = self._search.advance(log_probs)
            self._num_frames += len(log_probs)
            if self.keep_frames:
                self._kept_log_probs.append(log_probs)

    def _end_utterance(self) -> RecognitionResult:
        """Returns the result of the utterance, and begins another one after its last frame."""
        hypothesis = self._search.finish()
        if hypothesis.words is None:
            words, frames = self.assembler.words(hypothesis.tokens, hypothesis.frames)
        else:
            words, frames = hypothesis.words, hypothesis.word_frames
        result = self._result(words, frames, len(words), hypothesis)
        if self.keep_frames:
            result = replace(result, frames=self._utterance_frames())
        self._drop_samples()
        self._begin_utterance(self._start + self._num_dropped, self._kept)
        return result

    def _result(
        self, words: list[str], frames: list[int], num_final: int, hypothesis: Hypothesis | None = None
    ) -> RecognitionResult:
        """Returns the result that the words are, from their first frames, counted from the start of the utterance."""
        start = self._start / self.rate  # seconds
        frame_seconds = self.frame_seconds
        return RecognitionResult(
            words=words,
            times=[round(start + frame * frame_seconds, 3) for frame in frames],
            num_final=num_final,
            start=round(start, 3),
            end=round(start + self._num_frames * frame_seconds, 3),
            hypothesis=hypothesis,
        )

    def _utterance_frames(self) -> UtteranceFrames:
        """Returns the features and log-probs of the utterance, which ends with the last frame that was searched."""
        no_log_probs = np.zeros((0, self.experiment.tokenizer.size), np.float32)
        features = torch.cat(self._kept_features)[: self._num_frames * self.experiment.model.subsampling.factor]
        return UtteranceFrames(features.numpy(), np.concatenate([no_log_probs, *self._kept_log_probs]))

    def _drop_samples(self) -> None:
        """Deletes the samples of frames that were searched."""
        num_searched = self._num_frames * self.frame_samples
        self._kept = self._kept[num_searched - self._num_dropped :]
        self._num_dropped = num_searched


def _finite(log_probs: torch.Tensor) -> np.ndarray:
    """Returns log-probs (T, V) as an array. Raises InvalidEntry when they are not finite: they cannot be decoded."""
    if not log_probs.isfinite().all():
        raise InvalidEntry("the model's log-probs are not finite; look at the audio")
    return log_probs.cpu().numpy()


def require_streaming_model(experiment: Experiment) -> None:
    """Raises UserError for a model that needs the whole utterance; the message names the setting that causes it."""
    if experiment.model.can_stream:
        return
    model = experiment.config.model
    if model.normalise == "utterance":
        reason = "model.normalise is utterance, which needs all of it; train with model.normalise=global"
    elif model.architecture == "blstm":
        hint = "train lc_blstm, or a transformer with mask chunk"
        reason = f"model.architecture is blstm, which reads it backwards; {hint}"
    elif model.mask == "full":
        hint = "train with model.mask=chunk, model.chunk_size and model.memory, or with mask=sliding"
        reason = f"model.mask is full; {hint}"
    else:
        reason = "model.left_context or model.right_context is null, without a bound; train with numbers for both"
    raise UserError(f"{experiment.folder} cannot stream: {reason}")
