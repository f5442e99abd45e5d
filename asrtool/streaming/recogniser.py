"""One stream of audio: samples in, words out.

samples -> UtteranceInput -> ModelSteps -> UtteranceSearch -> RecognitionResult
"""

import math
from collections.abc import Callable

import numpy as np
import torch

from asrtool.errors import UserError
from asrtool.experiment import Experiment
from asrtool.streaming.ctc_search import WordAssembler
from asrtool.streaming.endpointing import Endpointing
from asrtool.streaming.feature_stream import FrameExtractor
from asrtool.streaming.model_steps import ModelSteps, step_size
from asrtool.streaming.partial_hypothesis import StreamingSearch
from asrtool.streaming.utterance_input import UtteranceInput
from asrtool.streaming.utterance_search import RecognitionResult, SearchSettings, UtteranceFrames, UtteranceSearch

__all__ = ["RecognitionResult", "Recogniser", "UtteranceFrames"]

# The least time between two checks for an endpoint: far below the shortest silence of a rule, and long enough that a
# graph's best path is not traced back for every frame.
ENDPOINT_CHECK_SECONDS = 0.1


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
        self.rate = experiment.config.features.sampling_rate
        self.frame_seconds = experiment.frame_seconds
        self._settings = search_settings(experiment, keep_frames)
        self._extractor = frame_extractor(experiment)
        self._steps = ModelSteps(experiment, self._extractor)
        self._slot = self._steps.open()
        self._begin_stream()

    def _begin_stream(self) -> None:
        self._input = UtteranceInput(self.experiment, self._extractor)
        self._search = UtteranceSearch(self._settings, self.new_search, self.endpointing)

    def accept(self, samples: np.ndarray | torch.Tensor) -> list[RecognitionResult]:
        """Takes (n,) samples, float in -1 .. 1; returns the utterances that ended in them, and a partial result.

        Raises ValueError for integers and for several channels, InvalidEntry for log-probs that are not finite.
        """
        samples = torch.as_tensor(samples)
        if samples.ndim != 1 or not samples.is_floating_point():
            expected = "samples are (n,) float in -1 .. 1, of one channel"
            raise ValueError(f"{samples.dtype} {tuple(samples.shape)}: {expected}")
        # At most a second at a time: audio after an endpoint is copied again for the next utterance.
        for piece in samples.float().split(self.rate):
            self._input.add(piece)
        return [*self._run_steps(), self._search.partial()]

    def finish(self) -> list[RecognitionResult]:
        """Ends the stream; returns its last utterances. The recogniser is then ready for another stream."""
        self._input.end()
        results = [*self._run_steps(), self._search.end_utterance()]
        self._begin_stream()
        return results

    def _run_steps(self) -> list[RecognitionResult]:
        """Runs all steps that are ready; returns the utterances that ended in them."""
        ended = []
        while size := step_size(self.experiment, self._input.ready_size()):
            step = self._input.take(size)
            (output,) = self._steps.run([self._slot], [step])
            log_probs = output.finite_log_probs(self._input.outputs(size))
            check = not self._input.has_ended
            if self._search.advance(log_probs, output.features.numpy(), check):
                num_frames = self._search.num_frames
                ended.append(self._search.end_utterance())
                self._input.restart(num_frames)
            else:
                self._input.release(self._search.num_frames)
        return ended


def frame_extractor(experiment: Experiment) -> FrameExtractor:
    """Returns the extractor of the features that the model was trained with."""
    features = experiment.config.features
    return FrameExtractor(features.sampling_rate, features.num_bins)


def search_settings(experiment: Experiment, keep_frames: bool) -> SearchSettings:
    """Returns what the searches of all streams of a model have in common."""
    factor = experiment.model.subsampling.factor
    chunk = experiment.model.latency().chunk // factor  # output frames that the model computes at a time
    return SearchSettings(
        assembler=WordAssembler(experiment.tokenizer),
        frame_seconds=experiment.frame_seconds,
        factor=factor,
        check_interval=chunk * math.ceil(ENDPOINT_CHECK_SECONDS / (chunk * experiment.frame_seconds)),
        keep_frames=keep_frames,
    )


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
