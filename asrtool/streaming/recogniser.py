"""One stream of audio: samples in, words out.

samples -> FeatureStream -> Stream of the model -> StreamingSearch -> Result, and after an endpoint all of it anew
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from asrtool.data.features import FRAME_SHIFT
from asrtool.data.sources import InvalidEntry
from asrtool.decoding.hypothesis import Hypothesis
from asrtool.decoding.options import PREFIX_BEAM, Options, graph_options, prefix_fusion, read_priors
from asrtool.errors import UserError
from asrtool.experiment import Experiment
from asrtool.files import file_hash
from asrtool.graphs.folder import Graph, load_graph
from asrtool.streaming.ctc_search import StreamingGreedy, StreamingPrefix, WordAssembler
from asrtool.streaming.endpointing import Endpointing
from asrtool.streaming.feature_stream import FeatureStream
from asrtool.streaming.graph_search import StreamingGraph, StreamingGraphSearch
from asrtool.streaming.model_stream import Stream
from asrtool.streaming.partial_hypothesis import PartialHypothesis, StreamingSearch
from asrtool.text.tokenizer import Tokenizer

# Between two looks for an endpoint, at least: far below the shortest silence of a rule, and a graph's best path is not
# traced back for every frame.
LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Result:
    """What has been heard of an utterance; times in seconds from the start of the stream.

    times: where each of the words begins. final: so many of them, from the first on, will never change. start, end: of
    the audio that was searched. hypothesis: once the utterance has ended; its frames are counted from `start`.
    """

    words: list[str]
    times: list[float]
    final: int
    start: float
    end: float
    hypothesis: Hypothesis | None = None


class Recogniser:
    """Feed it audio as it comes, in pieces of any size, which make no difference to what is found.

    An utterance is what `asrtool decode` would find in its audio alone. It ends with the stream, or where `endpointing`
    has it; the next one begins right there, with model and search as at the start of a stream: nothing is lost between
    them, and what was said long ago costs neither time nor memory. `new_search` makes the search of an utterance.
    """

    def __init__(
        self,
        experiment: Experiment,
        new_search: Callable[[], StreamingSearch],
        endpointing: Endpointing | None = None,
    ):
        check_streams(experiment)
        self.experiment, self.new_search, self.endpointing = experiment, new_search, endpointing
        self.speller = WordAssembler(experiment.tokenizer)
        model, rate = experiment.model, experiment.config.features.sampling_rate
        self.rate, self.frame_seconds = rate, FRAME_SHIFT * model.subsampling.factor
        self.frame_samples = int(FRAME_SHIFT * rate) * model.subsampling.factor
        chunk = model.latency().chunk // model.subsampling.factor
        self.grid = chunk * math.ceil(LOOK_SECONDS / (chunk * self.frame_seconds))  # frames between two looks
        self._begin(0, torch.zeros(0))

    def accept(self, samples: np.ndarray | torch.Tensor) -> list[Result]:
        """Take in (n,) samples, float in -1 .. 1; returns the utterances that ended in them, and a partial result.

        Raises ValueError for integers and for more than one channel, InvalidEntry for log-probs that are not finite.
        """
        samples = torch.as_tensor(samples)
        if samples.ndim != 1 or not samples.is_floating_point():
            raise ValueError(
                f"{samples.dtype} {tuple(samples.shape)}: samples are (n,) float in -1 .. 1, of one channel"
            )
        # At most a second at a time: what was heard beyond an endpoint is heard again by the next utterance.
        ended = [result for piece in samples.float().split(self.rate) for result in self._hear(piece)]
        return [*ended, self._result(self._partial.words, self._partial.word_frames, self._partial.final)]

    def finish(self) -> list[Result]:
        """The stream has ended; returns its last utterance, and is ready for another stream."""
        rest = self._log_probs(self._features.finish())
        rest = np.concatenate([rest, _finite(self._stream.finish()[0])])
        self._search(rest[: int(self._stream.out_lens[0]) - self._frames])
        result = self._end()
        self._begin(0, torch.zeros(0))
        return [result]

    def _begin(self, sample: int, kept: torch.Tensor) -> None:
        """A new utterance at `sample` of the stream; `kept`: the samples from there on that have come already."""
        features = self.experiment.config.features
        self._features = FeatureStream(features.sampling_rate, features.num_bins)
        self._stream, self._found = Stream(self.experiment.model), self.new_search()
        self._start, self._kept, self._dropped, self._frames = sample, kept, 0, 0
        self._partial = PartialHypothesis([], 0, 0)

    def _hear(self, samples: torch.Tensor) -> list[Result]:
        """Take in samples; returns the utterances that ended in them."""
        self._kept, ended = torch.cat([self._kept, samples]), []
        while self._advance(self._log_probs(self._features.accept(samples))):
            ended.append(self._end())
            samples = self._kept  # the next utterance hears what this one has no frames for
        self._drop()
        return ended

    def _log_probs(self, features: torch.Tensor) -> np.ndarray:
        """(T, V) that are now sure, for further features (n, F)."""
        return _finite(self._stream.accept(features[None].to(self.experiment.device))[0])

    def _advance(self, log_probs: np.ndarray) -> bool:
        """Search further frames up to the end of the utterance; whether it was reached."""
        if self.endpointing is None:
            self._search(log_probs)
            return False
        first = self.grid - self._frames % self.grid
        for piece in np.split(log_probs, range(first, len(log_probs), self.grid)):
            self._search(piece)
            look = len(piece) and self._frames % self.grid == 0
            if look and self.endpointing.ended(self._partial, self.frame_seconds):
                return True
        return False

    def _search(self, log_probs: np.ndarray) -> None:
        if len(log_probs):
            self._partial = self._found.advance(log_probs)
            self._frames += len(log_probs)

    def _end(self) -> Result:
        """The result of the utterance; another one begins behind its last frame."""
        found = self._found.finish()
        if found.words is None:
            words, frames = self.speller.words(found.tokens, found.frames)
        else:
            words, frames = found.words, found.word_frames
        result = self._result(words, frames, len(words), found)
        self._drop()
        self._begin(self._start + self._dropped, self._kept)
        return result

    def _result(self, words: list[str], frames: list[int], final: int, found: Hypothesis | None = None) -> Result:
        start, frame = self._start / self.rate, self.frame_seconds
        times = [round(start + number * frame, 3) for number in frames]
        return Result(words, times, final, round(start, 3), round(start + self._frames * frame, 3), found)

    def _drop(self) -> None:
        """Forget the samples of frames that were searched."""
        searched = self._frames * self.frame_samples
        self._kept, self._dropped = self._kept[searched - self._dropped :], searched


def _finite(log_probs: torch.Tensor) -> np.ndarray:
    """Log-probs (T, V) as an array. Raises InvalidEntry when they are not finite: no words come out of those."""
    if not log_probs.isfinite().all():
        raise InvalidEntry("the model's log-probs are not finite; look at the audio")
    return log_probs.cpu().numpy()


def check_streams(experiment: Experiment) -> None:
    """Refuse a model that needs the whole utterance; the message says which setting makes it so."""
    if experiment.model.streams:
        return
    model, where = experiment.config.model, experiment.folder
    if model.normalise == "utterance":
        why = "model.normalise is utterance, which needs all of it; train with model.normalise=global"
    elif model.architecture == "blstm":
        why = "model.architecture is blstm, which reads it backwards; train lc_blstm, or a transformer with mask chunk"
    elif model.mask == "full":
        why = "model.mask is full; train with model.mask=chunk, model.chunk_size and model.memory, or with mask=sliding"
    else:
        why = "model.left_context or model.right_context is null, without a bound; train with numbers for both"
    raise UserError(f"{where} cannot stream: {why}")


class StreamingSetup(NamedTuple):
    """What makes the search of an utterance, and all that decides over its results."""

    new_search: Callable[[], StreamingSearch]
    settings: dict


def open_streaming_search(method: str, tokenizer: Tokenizer, options: Options) -> StreamingSetup:
    """The streaming search "greedy", "prefix" or "graph" with its options; call `check_options` first."""
    speller = WordAssembler(tokenizer)
    quiet = _outputs([tokenizer.separator] if tokenizer.separator else [], tokenizer)
    if method == "graph":
        return _graph(tokenizer, options)
    if method == "prefix":
        beam = int(options.get("beam", PREFIX_BEAM))
        fusion, settings = prefix_fusion(tokenizer, options)
        return StreamingSetup(lambda: StreamingPrefix(speller, beam, fusion, quiet), {"beam": beam} | settings)
    return StreamingSetup(lambda: StreamingGreedy(speller, quiet), {})


def _graph(tokenizer: Tokenizer, options: Options) -> StreamingSetup:
    graph = load_graph(options["graph"], tokenizer)
    priors = read_priors(options["priors"], graph) if "priors" in options else None
    chosen, quiet = graph_options(options), _silences(graph, tokenizer)
    settings = vars(chosen) | {"graph": str(graph.folder), "graph_digest": file_hash(graph.folder / "graph.json")}
    settings |= {"priors": file_hash(options["priors"])} if "priors" in options else {}
    ready = StreamingGraph(graph, chosen)
    return StreamingSetup(lambda: StreamingGraphSearch(ready, priors, quiet), settings)


def _silences(graph: Graph, tokenizer: Tokenizer) -> list[int]:
    silence = graph.meta.get("silence")
    units = _outputs([silence["unit"]] if silence else [], tokenizer)
    return (
        [output for unit in units for output in (2 * unit, 2 * unit + 1)] if graph.meta["topology"] == "hmm" else units
    )


def _outputs(symbols: list[str], tokenizer: Tokenizer) -> list[int]:
    return [number for number, symbol in enumerate(tokenizer.symbols) if symbol in symbols]
