"""The Python interface: `asrtool.load` opens a trained system, which transcribes, streams and aligns."""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np

from asrtool.data.audio_blocks import Channel, open_recording
from asrtool.data.sources import InvalidEntry
from asrtool.decoding.calibration import MethodCalibration, open_calibration
from asrtool.decoding.options import Options
from asrtool.decoding.system_options import (
    LATTICE_OPTIONS,
    best_method,
    search_options,
    warn_of_unused_weights,
    with_lattices,
)
from asrtool.decoding.words import WordDescriber
from asrtool.errors import UserError
from asrtool.experiment import Experiment, open_experiment
from asrtool.inference.model_options import (
    check_method,
    check_precision,
    check_segmentation,
    given_options,
    require_count,
    require_path,
    require_rate,
    require_recording,
    require_text,
    require_texts,
)
from asrtool.inference.recording_alignment import RecordingAlignment, align_recording
from asrtool.inference.results import Segment, Transcript
from asrtool.inference.stream import Stream
from asrtool.inference.transcriber import BATCH_SECONDS, Audio, Transcriber
from asrtool.streaming.endpointing import parse_rules
from asrtool.streaming.search_setup import StreamingSetup, open_streaming_search
from asrtool.text.spoken_text import read_spoken_text, spoken_text

logger = logging.getLogger(__name__)

Recordings = list[str] | list[Path] | list[np.ndarray] | list[Audio] | tuple[Audio, ...]


def load(
    path: str | Path,
    *,
    device: str = "auto",
    method: str | None = None,
    graph: str | Path | None = None,
    rescore: str | Path | None = None,
    graph_lm: str | Path | None = None,
    lm: str | Path | None = None,
    hotwords: str | Path | Sequence[str] | None = None,
    jobs: int = 1,
    vad: str = "auto",
    checkpoint: str = "averaged",
    batch_seconds: float = BATCH_SECONDS,
    max_seconds: float | None = None,
    precision: str = "fp32",
    **options: Any,
) -> "Model":
    """Opens a trained system: an experiment folder, or a pack of `asrtool pack`.

        model = asrtool.load("exp/mine")
        model = asrtool.load("exp/mine", graph="data/lang/graph", device="cuda")

    device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:1".
    method: "greedy", "prefix" or "graph"; by default "graph" with a `graph`, "prefix" with an `lm`, else the best that
        the system carries the files for.
    graph: a decoding graph of `asrtool graph`. lm: a language model for prefix search.
    rescore, graph_lm: an n-gram model for lattice rescoring, and the one that the graph was built from.
    hotwords: phrases that are expected, in a file or a list.
    jobs: search processes beside the model; 1 searches in this process.
    vad: the detector of speech whose pauses long recordings are cut at: "silero", "energy", "none" (everything is
        speech), or "auto" for silero-vad where it is installed.
    checkpoint: "averaged", "best", "last" or a file.
    batch_seconds: audio in a batch of segments, with padding.
    max_seconds: the longest segment that a recording is cut into, by default the longest utterance of the training.
    precision: "fp32", "bf16", or "auto" for bf16 where the device has instructions for it. Many streams at once, and
        large models, are faster in bf16; a few words may differ.
    options: further options of `asrtool decode` by name, such as beam=12.0 or acoustic_scale=0.7.

    Files that the system carries are used where none is given.

    Raises UserError for what does not exist or does not fit together.
    """
    files = {"graph": graph, "rescore": rescore, "graph_lm": graph_lm, "lm": lm, "hotwords": hotwords}
    given = given_options({**files, **options})
    require_path("the trained system", path)
    require_count("jobs", jobs)
    check_segmentation(vad, batch_seconds, max_seconds)
    if method is not None:
        check_method(method, given)
    check_precision(precision)
    experiment = open_experiment(Path(path), checkpoint, device, precision)
    if method is None:
        method = _default_method(experiment, given)
        check_method(method, given)
    return Model(experiment, method, given, jobs, vad, batch_seconds, max_seconds)


def _default_method(experiment: Experiment, given: Options) -> str:
    if "graph" in given:
        return "graph"
    return "prefix" if "lm" in given else best_method(experiment)


class Model:
    """A trained system that is ready to recognise; `asrtool.load` opens it.

    It is a context manager: leaving it ends the search processes of `jobs`.
    """

    def __init__(
        self,
        experiment: Experiment,
        method: str,
        options: Options,
        jobs: int = 1,
        vad: str = "auto",
        batch_seconds: float = BATCH_SECONDS,
        max_seconds: float | None = None,
    ):
        self.experiment = experiment
        self.method = method
        self.options = with_lattices(method, search_options(experiment, method, options))
        warn_of_unused_weights(experiment, method, self.options)
        self.jobs = jobs
        self.vad = vad
        self.batch_seconds = batch_seconds
        self.max_seconds = max_seconds
        self._given = options
        self._transcriber: tuple[int, Transcriber] | None = None  # and its nbest
        if method != "graph" and experiment.tokenizer.output_type != "words":
            logger.warning(
                f"{experiment.folder}: the results are {experiment.tokenizer.output_type}, since the units of this "
                "system are not parts of words; for words, give a graph of `asrtool graph`"
            )

    @property
    def sampling_rate(self) -> int:
        """The sampling rate of the model in Hz; audio of other rates is resampled to it."""
        return self.experiment.config.features.sampling_rate

    @overload
    def transcribe(
        self,
        source: Audio,
        rate: int | None = None,
        *,
        channel: Channel = "mix",
        nbest: int | None = None,
        on_progress: Callable[[float], object] | None = None,
    ) -> Transcript: ...

    @overload
    def transcribe(
        self,
        source: Recordings,
        rate: int | None = None,
        *,
        channel: Channel = "mix",
        nbest: int | None = None,
        on_progress: Callable[[float], object] | None = None,
    ) -> list[Transcript]: ...

    def transcribe(
        self,
        source: Audio | Recordings,
        rate: int | None = None,
        *,
        channel: Channel = "mix",
        nbest: int | None = None,
        on_progress: Callable[[float], object] | None = None,
    ) -> Transcript | list[Transcript]:
        """Returns the words of a recording, or of each in a list.

            transcript = model.transcribe("talk.mp3")
            for word in transcript.words:
                print(word.start, word.end, word.text, word.confidence)
            model.transcribe(samples, rate=44100)     # a NumPy array
            model.transcribe(["a.wav", "b.wav"])      # a list of transcripts

        source: the path of a file, an open binary file, or an array (n,) or (n, channels) of int16, int32 or floats in
        -1 .. 1, which needs its `rate` in Hz. Any length and sampling rate. channel: its number from 0 on, or "mix" for
        the mean of all. nbest: the number of hypotheses of each segment, in `Segment.alternatives`, for the methods
        "prefix" and "graph". on_progress: is called with the seconds of the recording that are done.

        Raises UserError or InvalidEntry, with a line that says what is wrong with a recording.
        """
        sources = source if isinstance(source, list | tuple) else [source]
        for one in sources:
            require_recording(one)
        require_rate(rate)
        transcriber = self.open_transcriber(nbest)
        if isinstance(source, list | tuple):
            return [transcriber.transcribe(one, channel, rate, on_progress) for one in source]
        return transcriber.transcribe(source, channel, rate, on_progress)

    def segments(
        self, source: Audio, rate: int | None = None, *, channel: Channel = "mix", nbest: int | None = None
    ) -> Iterator[Segment]:
        """Yields the segments of a recording in order, each as soon as it is recognised; see `transcribe`.

        for segment in model.segments("three_hours.mp3"):
            print(segment.start, segment.text)
        """
        require_recording(source)
        require_rate(rate)
        return self.open_transcriber(nbest).segments(source, channel, rate)

    def stream(self, rate: int | None = None, endpoint: Sequence[str] = ("default",)) -> Stream:
        """Returns a stream that accepts samples as they arrive; see `asrtool.inference.stream.Stream`.

            stream = model.stream(rate=48000)
            for result in stream.results(pieces):
                print(result.text, "" if result.is_final else "...")

        rate: the sampling rate of the samples in Hz, by default the model's. endpoint: the rules by which an utterance
        ends, as for `asrtool stream --endpoint`; none of them (an empty list) makes the stream one utterance. Raises
        UserError for a model that needs whole utterances.
        """
        require_rate(rate)
        require_texts("endpoint", endpoint)
        setup = self.streaming_search
        return Stream(self.experiment, setup.new_search, self.describer(setup), rate, parse_rules(endpoint))

    @cached_property
    def streaming_search(self) -> StreamingSetup:
        """The search of streams."""
        given = {name: value for name, value in self._given.items() if name not in LATTICE_OPTIONS}
        options = search_options(self.experiment, self.method, given, streaming=True)
        return open_streaming_search(
            self.method, self.experiment.tokenizer, options, self.experiment.config.objective.topology
        )

    def describer(self, setup: StreamingSetup) -> WordDescriber:
        """Returns what finds times and confidences of the words that a search of streams recognises."""
        return WordDescriber(self.experiment, setup.graph, self._calibration)

    @cached_property
    def _calibration(self) -> MethodCalibration | None:
        return open_calibration(self.experiment, self.method)[0]

    def align(
        self, audio: Audio, text: str | Path, rate: int | None = None, *, channel: Channel = "mix"
    ) -> RecordingAlignment:
        """Returns the times of the words of a text in a recording of any length.

            alignment = model.align("talk.mp3", "HELLO AND WELCOME")
            for word in alignment.words:
                print(word.start, word.end, word.text)

        audio, rate, channel: as for `transcribe`. text: the words, or the path (a `Path`, not a string) of a UTF-8 text
        file. Words that are not in the audio, and speech that is not in the text, are in `missing` and `extra`.

        Raises UserError for the text of another recording, and for audio that cannot be read.
        """
        require_recording(audio)
        require_text(text)
        require_rate(rate)
        tokenizer = self.experiment.tokenizer
        spoken = read_spoken_text(text, tokenizer) if isinstance(text, Path) else spoken_text([text], tokenizer)
        try:
            recording = open_recording(audio, rate)
        except InvalidEntry as problem:
            raise UserError(str(problem)) from problem
        return align_recording(self.experiment, recording, spoken, channel)

    def open_transcriber(self, nbest: int | None = None) -> Transcriber:
        """Returns the transcriber for n-best lists of this length; only the last one is kept, a graph takes memory."""
        if nbest is not None:
            require_count("nbest", nbest)
        count = nbest or self.options.get("nbest", 1)
        if self._transcriber is None or self._transcriber[0] != count:
            self.close()
            options = dict(self.options)
            if nbest:
                options["nbest"] = nbest
            transcriber = Transcriber(
                self.experiment,
                self.method,
                options,
                jobs=self.jobs,
                batch_seconds=self.batch_seconds,
                max_seconds=self.max_seconds,
                vad=self.vad,
            )
            self._transcriber = count, transcriber
        return self._transcriber[1]

    def close(self) -> None:
        """Ends the search processes; the next transcription starts them again."""
        if self._transcriber:
            self._transcriber[1].close()
            self._transcriber = None

    def __enter__(self) -> "Model":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<asrtool.Model {self.experiment.folder}, {self.method}, {self.experiment.device}>"
