"""Streaming a manifest as if it were spoken now: words, the computing time of each chunk, and the delay of each word.

The simulated clock of a recording is the clock of a recogniser with one thread: a chunk arrives when its last sample
has been spoken, and is processed as soon as the one before is done, in the time that this really takes.
"""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lhotse import MonoCut

from asrtool.data.lhotse_objects import read_cut, text_and_speaker
from asrtool.data.manifest import count_cuts
from asrtool.data.samples import block_reader, load_samples
from asrtool.data.shards import entries, manifest_files
from asrtool.data.sources import InvalidEntry, as_data_error
from asrtool.decoding.decode import hypothesis_row
from asrtool.decoding.hypothesis import Hypothesis
from asrtool.decoding.result_folder import result_lock, write_result
from asrtool.decoding.runs import DecodingRun
from asrtool.device import describe_device
from asrtool.progress import progress
from asrtool.provenance import provenance
from asrtool.streaming.latency import (
    algorithmic_latency,
    aligned_words,
    default_chunk_seconds,
    emission_delays,
    read_aligned_words,
    time_statistics,
)
from asrtool.streaming.partial_hypothesis import EmissionTracker, WordEmission
from asrtool.streaming.recogniser import Recogniser, RecognitionResult
from asrtool.streaming.report import offline_agreement

BLOCK_SECONDS = 60.0  # of audio that are in memory at a time: 4 MB at 16 kHz


@dataclass
class StreamedRecording:
    """The result of one cut, streamed as a recording of its own."""

    row: dict  # of hyps.jsonl
    emissions: list[WordEmission]  # in seconds of the simulated clock
    compute_seconds: list[float]  # computing time of each chunk
    end_compute_seconds: float  # computing time after the last chunk
    num_utterances: int


@dataclass
class StreamStatistics:
    """The results and times of all recordings."""

    rows: list[dict] = field(default_factory=list)
    compute_seconds: list[float] = field(default_factory=list)  # computing time of each chunk
    end_compute_seconds: list[float] = field(default_factory=list)  # of each recording, after its last chunk
    # for each word the seconds from its end until it appeared, and until it was final
    delays: list[tuple[float, float]] = field(default_factory=list)
    audio_seconds: float = 0.0
    num_utterances: int = 0

    def add(self, recording: StreamedRecording, seconds: float, delays: list[tuple[float, float]]) -> None:
        """Adds a recording of `seconds`, with the delays of its words."""
        self.rows.append(recording.row)
        self.compute_seconds += recording.compute_seconds
        self.end_compute_seconds.append(recording.end_compute_seconds)
        self.delays += delays
        self.audio_seconds += seconds
        self.num_utterances += recording.num_utterances

    def facts(self) -> dict[str, Any]:
        """Returns the entries of stream.json."""
        seconds = sum(self.compute_seconds) + sum(self.end_compute_seconds)
        facts: dict[str, Any] = {"recordings": len(self.rows), "utterances": self.num_utterances}
        facts |= {"audio_seconds": round(self.audio_seconds, 2)}
        facts |= {"seconds": round(seconds, 2), "rtf": round(seconds / self.audio_seconds, 5)}
        facts |= {"compute_ms": time_statistics(self.compute_seconds)}
        facts |= {"end_ms": time_statistics(self.end_compute_seconds)}
        facts |= {"emission": None}
        if self.delays:
            first = time_statistics([first for first, _ in self.delays])
            final = time_statistics([final for _, final in self.delays])
            facts["emission"] = {"words": len(self.delays), "first_ms": first, "final_ms": final}
        return facts


def stream_run(
    recogniser: Recogniser,
    run: DecodingRun,
    settings: dict,
    chunk: float | None = None,
    alignments: Path | None = None,
    max_seconds: float = 3600.0,
) -> dict:
    """Recognises each cut of a run chunk by chunk into hyps.jsonl; writes and returns the facts (`stream.json`).

    settings: everything that determines the results of the search. chunk: seconds of audio that arrive at a time, by
    default `default_chunk_seconds`. alignments: a manifest of the same cuts with alignments "word", if the run's lacks
    them. Raises DataError for audio that cannot be read or is longer than `max_seconds`, UserError while another
    process writes into the run's folder.
    """
    experiment = recogniser.experiment
    chunk = chunk or default_chunk_seconds(experiment)
    chunk_samples = max(1, round(chunk * recogniser.rate))
    statistics = StreamStatistics()
    # a training that runs may replace or remove the file before the end
    checkpoint = {"checkpoint": experiment.checkpoint.name, "checkpoint_sha256": experiment.checkpoint_sha256}
    with as_data_error():
        words_of = read_aligned_words(alignments) if alignments else {}
    with result_lock(run.out, "asrtool stream"):
        count = sum(map(count_cuts, manifest_files(run.cuts)))
        for entry in progress(entries(run.cuts), f"streaming {run.name}", count):
            with as_data_error():
                cut = read_cut(entry)
                recording = stream_recording(recogniser, cut, chunk_samples, max_seconds)
                words = words_of.get(cut.id) or aligned_words(cut)
            statistics.add(recording, cut.duration, emission_delays(recording.emissions, words))
        rows = sorted(statistics.rows, key=lambda row: row["id"])
        facts = {"set": run.name, "method": run.method} | settings | checkpoint
        facts |= {"cuts": str(run.cuts), "chunk_ms": round(1000 * chunk, 1)}
        facts |= {"endpoints": recogniser.endpointing is not None} | statistics.facts()
        facts |= {"latency_ms": algorithmic_latency(experiment), "device": describe_device(experiment.device)}
        facts |= {"precision": experiment.computed_precision}
        offline = experiment.folder / "decode" / run.name / run.out.name
        facts |= {"offline": offline_agreement(rows, offline, checkpoint), "options": run.options}
        facts |= provenance()
        write_result(run.out, rows, "stream.json", facts)
    return facts


def stream_recording(
    recogniser: Recogniser, cut: MonoCut, chunk_samples: int, max_seconds: float = 3600.0
) -> StreamedRecording:
    """Streams one cut, `chunk_samples` samples at a time. Raises InvalidEntry."""
    tracker = EmissionTracker()
    utterances: list[RecognitionResult] = []
    compute_seconds: list[float] = []
    clock = arrived = 0.0  # seconds: the simulated time, and the audio that has been spoken
    for chunk in itertools.chain(_chunks(cut, recogniser.rate, chunk_samples, max_seconds), [None]):  # None is the end
        begin = time.perf_counter()
        try:
            results = recogniser.finish() if chunk is None else recogniser.accept(chunk)
        except InvalidEntry as problem:
            raise InvalidEntry(f"{cut.id}: {problem}") from problem
        compute_seconds.append(time.perf_counter() - begin)
        arrived += 0 if chunk is None else len(chunk) / recogniser.rate
        clock = max(clock, arrived) + compute_seconds[-1]
        utterances += [result for result in results if result.hypothesis]
        partial = [result for result in results if not result.hypothesis]
        tracker.update([word for result in (*utterances, *partial) for word in result.words], clock)
    (text, speaker), frame = text_and_speaker(cut), recogniser.frame_seconds
    hypothesis = join_utterances(utterances, frame)
    return StreamedRecording(
        row=hypothesis_row(recogniser.experiment.tokenizer, cut.id, text, hypothesis, frame, speaker),
        emissions=tracker.emissions(),
        compute_seconds=compute_seconds[:-1],
        end_compute_seconds=compute_seconds[-1],
        num_utterances=len(utterances),
    )


def _chunks(cut: MonoCut, rate: int, chunk_samples: int, max_seconds: float) -> Iterator[torch.Tensor]:
    """Yields the samples of a cut, `chunk_samples` at a time; at most BLOCK_SECONDS are in memory.

    Raises InvalidEntry for audio that cannot be read, has another sampling rate, or is longer than `max_seconds`.
    """
    if cut.has_recording and cut.sampling_rate != rate:
        expected = f"the model needs {rate} Hz (features.sampling_rate); see `asrtool prepare --resample`"
        raise InvalidEntry(f"{cut.id}: {cut.sampling_rate} Hz, {expected}")
    if not cut.has_recording or cut.duration <= BLOCK_SECONDS:
        yield from load_samples(cut, max_seconds).split(chunk_samples)
        return
    read = block_reader(cut, max_seconds)
    block_samples = chunk_samples * max(1, int(BLOCK_SECONDS * rate) // chunk_samples)  # whole chunks
    for begin in range(0, cut.num_samples, block_samples):
        yield from read(begin, min(begin + block_samples, cut.num_samples)).split(chunk_samples)


def join_utterances(results: list[RecognitionResult], frame_seconds: float) -> Hypothesis:
    """Returns the utterances of one recording as one hypothesis; its frames count from the recording's beginning."""
    joined = Hypothesis([], [], 0.0)
    for result in results:
        hypothesis = result.hypothesis
        assert hypothesis is not None  # the utterances have ended
        first = round(result.start / frame_seconds)  # the frame of the recording in which the utterance begins
        words = None if hypothesis.words is None else [*(joined.words or []), *hypothesis.words]
        joined = replace(
            joined,
            tokens=joined.tokens + hypothesis.tokens,
            frames=joined.frames + [first + frame for frame in hypothesis.frames],
            score=joined.score + hypothesis.score,
            words=words,
            word_frames=joined.word_frames + [first + frame for frame in hypothesis.word_frames],
            complete=joined.complete and hypothesis.complete,
        )
    return joined
