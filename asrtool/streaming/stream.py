"""Streaming a manifest as if it were spoken now: words, what each chunk costs, and when each word is known.

The clock of a recording is that of one that listens with one thread: a chunk has arrived when its last sample was
spoken, and is worked on as soon as the one before is done, in the time that this takes here and now.
"""

import itertools
import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from lhotse import MonoCut

from asrtool.data.features import FRAME_SHIFT
from asrtool.data.manifest import count_cuts, open_cuts, text_and_speaker
from asrtool.data.samples import block_reader, load_samples
from asrtool.data.shards import entries, manifest_files
from asrtool.data.sources import InvalidEntry
from asrtool.decoding.decode import hypothesis_row
from asrtool.decoding.hypothesis import Hypothesis
from asrtool.decoding.result_folder import write_result
from asrtool.device import describe_device
from asrtool.errors import AsrtoolError, DataError, UserError
from asrtool.experiment import Experiment
from asrtool.locks import write_lock
from asrtool.progress import progress
from asrtool.provenance import provenance
from asrtool.scoring.folder import HYPOTHESES, read_result_facts, read_hypotheses
from asrtool.scoring.wer import align_words
from asrtool.streaming.endpointing import Endpointing
from asrtool.streaming.feature_stream import FeatureStream
from asrtool.streaming.partial_hypothesis import EmissionTracker, WordEmission
from asrtool.streaming.recogniser import Recogniser, Result, StreamingSetup

logger = logging.getLogger(__name__)

LEAST_CHUNK = 0.1  # seconds, what a telephone or a browser sends at a time
BLOCK_SECONDS = 60.0  # of audio that are held at a time: 4 MB at 16 kHz


@dataclass
class StreamedRecording:
    """What came of one recording."""

    row: dict
    emissions: list[WordEmission]  # times of the clock
    chunks: list[float]  # seconds of computing for each
    end: float  # and behind the last one
    utterances: int


@dataclass
class StreamStatistics:
    """Over all recordings."""

    rows: list[dict] = field(default_factory=list)
    chunks: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    delays: list[tuple[float, float]] = field(default_factory=list)  # of a word when it was first there, and final
    audio: float = 0.0
    utterances: int = 0

    def add(self, heard: StreamedRecording, seconds: float, delays: list[tuple[float, float]]) -> None:
        """A recording of `seconds`."""
        self.rows.append(heard.row)
        self.chunks += heard.chunks
        self.ends.append(heard.end)
        self.delays += delays
        self.audio += seconds
        self.utterances += heard.utterances

    def facts(self) -> dict:
        """For stream.json."""
        seconds = sum(self.chunks) + sum(self.ends)
        facts = {"recordings": len(self.rows), "utterances": self.utterances, "audio_seconds": round(self.audio, 2)}
        facts |= {"seconds": round(seconds, 2), "rtf": round(seconds / self.audio, 5)}
        facts |= {"compute_ms": _spread(self.chunks), "end_ms": _spread(self.ends)}
        if not self.delays:
            return facts | {"emission": None}
        first, final = map(_spread, zip(*self.delays, strict=True))
        return facts | {"emission": {"words": len(self.delays), "first_ms": first, "final_ms": final}}


def default_chunk(experiment: Experiment) -> float:
    """Seconds of audio that come at a time: the model's own chunk, or as many of them as make LEAST_CHUNK."""
    own = experiment.model.latency().chunk * FRAME_SHIFT
    return own * max(1, int(np.ceil(LEAST_CHUNK / own)))


def latency(experiment: Experiment) -> dict:
    """Milliseconds of audio behind the beginning of an output frame that it waits for: at most, and on average."""
    features, model = experiment.config.features, experiment.model
    right, chunk = model.latency()
    ahead = right + FeatureStream(features.sampling_rate, features.num_bins).look_ahead / FRAME_SHIFT
    shift = 1000 * FRAME_SHIFT
    mean = ahead + (chunk + model.subsampling.factor) / 2  # a chunk's first frame waits for all of it, its last for one
    return {"max": round(shift * (ahead + chunk), 1), "mean": round(shift * mean, 1)}


def stream(
    experiment: Experiment,
    cuts: Path,
    out: Path,
    name: str,
    method: str,
    setup: StreamingSetup,
    chunk: float | None = None,
    endpointing: Endpointing | None = None,
    alignments: Path | None = None,
    options: dict | None = None,
    max_seconds: float = 3600.0,
) -> dict:
    """Recognise each cut of `cuts` chunk by chunk into `out`/hyps.jsonl; returns and writes the facts (`stream.json`).

    chunk: seconds of audio at a time (`default_chunk`). alignments: a manifest with alignments "word" of the same cuts,
    which `cuts` itself may have, too. `options` are what the user chose (asrtool/decoding/result_folder.py). Raises
    DataError for audio that cannot be read or is longer than `max_seconds`, UserError for a model that needs the whole
    utterance, and while another process writes into `out`.
    """
    recogniser = Recogniser(experiment, setup.new_search, endpointing)
    chunk = chunk or default_chunk(experiment)
    ends, totals = _word_ends(alignments) if alignments else {}, StreamStatistics()
    with write_lock(out, "asrtool stream"):
        count = sum(map(count_cuts, manifest_files(cuts)))
        for entry in progress(entries(cuts), f"streaming {name}", count):
            with as_data_error():
                cut = entry.cut()
                heard = stream_recording(recogniser, cut, max(1, round(chunk * recogniser.rate)), max_seconds)
                words = ends.get(cut.id) or aligned_words(cut)
            totals.add(heard, cut.duration, emission_delays(heard.emissions, words))
        rows = sorted(totals.rows, key=lambda row: row["id"])
        facts = {"set": name, "method": method} | setup.settings | {"checkpoint": experiment.checkpoint.name}
        facts |= {"cuts": str(cuts), "chunk_ms": round(1000 * chunk, 1), "endpoints": endpointing is not None}
        facts |= totals.facts() | {"latency_ms": latency(experiment), "device": describe_device(experiment.device)}
        offline = experiment.folder / "decode" / name / out.name
        facts |= {"offline": agreement(rows, offline, experiment.checkpoint.name), "options": options or {}}
        facts |= provenance()
        write_result(out, rows, "stream.json", facts)
    return facts


@contextmanager
def as_data_error() -> Iterator[None]:
    """Inside, what is wrong with an utterance becomes a DataError that names it."""
    try:
        yield
    except InvalidEntry as problem:
        message = "stopped at unreadable data; check the manifest with `asrtool prepare`"
        raise DataError(message, [str(problem)]) from None


def stream_recording(recogniser: Recogniser, cut: MonoCut, size: int, max_seconds: float = 3600.0) -> StreamedRecording:
    """Stream one cut, `size` samples at a time. Raises InvalidEntry."""
    history, ended, chunks = EmissionTracker(), [], []
    clock = arrived = 0.0
    for piece in itertools.chain(_audio(cut, recogniser.rate, size, max_seconds), [None]):  # None is the end
        begin = time.perf_counter()
        try:
            results = recogniser.finish() if piece is None else recogniser.accept(piece)
        except InvalidEntry as problem:
            raise InvalidEntry(f"{cut.id}: {problem}") from problem
        chunks.append(time.perf_counter() - begin)
        arrived += 0 if piece is None else len(piece) / recogniser.rate
        clock = max(clock, arrived) + chunks[-1]
        ended += [result for result in results if result.hypothesis]
        said = [*ended, *(result for result in results if not result.hypothesis)]
        history.note([word for result in said for word in result.words], clock)
    (text, speaker), frame = text_and_speaker(cut), recogniser.frame_seconds
    row = hypothesis_row(recogniser.experiment.tokenizer, cut.id, text, join(ended, frame), frame, speaker)
    return StreamedRecording(row, history.emissions(), chunks[:-1], chunks[-1], len(ended))


def _audio(cut: MonoCut, rate: int, size: int, max_seconds: float) -> Iterator[torch.Tensor]:
    """The samples of a cut, `size` at a time; of a long one no more than BLOCK_SECONDS are held. Raises InvalidEntry."""
    if cut.has_recording and cut.sampling_rate != rate:
        wanted = f"the model hears {rate} Hz (features.sampling_rate); see `asrtool prepare --resample`"
        raise InvalidEntry(f"{cut.id}: {cut.sampling_rate} Hz, {wanted}")
    if not cut.has_recording or cut.duration <= BLOCK_SECONDS:
        yield from load_samples(cut, max_seconds).split(size)
        return
    read, block = block_reader(cut, max_seconds), size * max(1, int(BLOCK_SECONDS * rate) // size)
    for begin in range(0, cut.num_samples, block):
        yield from read(begin, min(begin + block, cut.num_samples)).split(size)


def join(results: list[Result], frame_seconds: float) -> Hypothesis:
    """The utterances of one recording as one hypothesis, its frames counted from the recording's beginning."""
    joined = Hypothesis([], [], 0.0, results[0].hypothesis.words and [])
    for result in results:
        found, first = result.hypothesis, round(result.start / frame_seconds)
        joined = replace(
            joined,
            tokens=joined.tokens + found.tokens,
            frames=joined.frames + [first + frame for frame in found.frames],
            score=joined.score + found.score,
            words=None if found.words is None else (joined.words or []) + found.words,
            word_frames=joined.word_frames + [first + frame for frame in found.word_frames],
            complete=joined.complete and found.complete,
        )
    return joined


def aligned_words(cut: MonoCut) -> list[tuple[str, float]]:
    """The words of the cut's alignment and their ends, in seconds from its beginning; none where there is none.

    Raises InvalidEntry for an alignment without times.
    """
    aligned = (cut.supervisions[0].alignment or {}).get("word") if cut.supervisions else None
    try:
        words = [(str(item.symbol), float(item.end)) for item in aligned or [] if item.symbol]
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InvalidEntry(f"{cut.id}: its alignment is not one of words with times; see `asrtool align`") from error
    if not all(math.isfinite(end) for _, end in words):
        raise InvalidEntry(f"{cut.id}: its alignment has times that are not finite; see `asrtool align`")
    return words


def _word_ends(path: Path) -> dict[str, list[tuple[str, float]]]:
    with as_data_error():
        found = {cut.id: words for cut in open_cuts(path) if (words := aligned_words(cut))}
    if not found:
        raise UserError(f"{path} has no alignments of words; make them with `asrtool align`")
    return found


def emission_delays(emissions: list[WordEmission], words: list[tuple[str, float]]) -> list[tuple[float, float]]:
    """For each word that was said and found: seconds from its end until it was first there, and until it was final.

    words: those of the alignment and their ends. A word may be there before it ends: its delay is then negative.
    """
    pairs = align_words(" ".join(word for word, _ in words), " ".join(emission.word for emission in emissions))
    said, found, delays = iter(words), iter(emissions), []
    for ref, hyp in pairs:
        end = next(said)[1] if ref else None
        emission = next(found) if hyp else None
        if ref == hyp:
            delays.append((emission.first - end, emission.final - end))
    return delays


def _spread(seconds: Sequence[float]) -> dict:
    """Mean, median, 95th percentile and maximum in milliseconds."""
    values = 1000 * np.array(seconds)
    spread = {"mean": values.mean(), "median": np.median(values), "p95": np.percentile(values, 95), "max": values.max()}
    return {name: round(float(value), 2) for name, value in spread.items()}


def agreement(rows: list[dict], folder: Path, checkpoint: str) -> dict | None:
    """How many words of an offline decoding in `folder` are the same; None where there is none of this checkpoint."""
    if not (folder / HYPOTHESES).is_file():
        return None
    try:
        other, hypotheses = read_result_facts(folder).get("checkpoint"), read_hypotheses(folder / HYPOTHESES)
    except AsrtoolError as error:  # what was streamed is worth more than the comparison
        logger.info(f"not compared with the offline decoding: {error}")
        return None
    if other != checkpoint:
        logger.info(f"{folder} is of {other}, not of {checkpoint}: not compared; decode again with --checkpoint")
        return None
    offline = {row["id"]: row["hyp"] for row in hypotheses}
    both = [(offline[row["id"]], row["hyp"]) for row in rows if row["id"] in offline]
    pairs = [pair for one in both for pair in align_words(*one)]
    same = sum(a == b for a, b in pairs)
    share = round(100 * same / len(pairs), 3) if pairs else 100.0
    return {"recordings": len(both), "words": sum(bool(word) for word, _ in pairs), "same_percent": share}


def summary_lines(facts: dict) -> list[str]:
    """The facts for people."""
    delay, compute, offline, emission = (facts[key] for key in ("latency_ms", "compute_ms", "offline", "emission"))
    lines = [
        f"{facts['set']} {facts['method']}: {facts['recordings']} recordings, {facts['utterances']} utterances, "
        f"{facts['audio_seconds']:.0f} s of audio, RTF {facts['rtf']:.4f} on {facts['device']}",
        f"  a chunk of {facts['chunk_ms']:g} ms: computed in {compute['mean']:.1f} ms, 95 % of them within "
        f"{compute['p95']:.1f} ms, all within {compute['max']:.1f} ms",
        f"  latency of features and model: {delay['max']:g} ms at most, {delay['mean']:g} ms on average",
    ]
    if emission:
        spread = emission["final_ms"]
        lines.append(
            f"  emission delay, end of a word until it is there for good: median {spread['median']:.0f} ms, "
            f"95 % {spread['p95']:.0f} ms ({emission['words']} words)"
        )
    if offline:
        lines.append(f"  {offline['same_percent']:g} % of {offline['words']} words are those of the offline decoding")
    return lines
