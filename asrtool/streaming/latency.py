"""Latency of streaming: what the model waits for, and the delay until each word appears."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from lhotse import MonoCut

from asrtool.data.features import frame_seconds
from asrtool.data.lhotse_sets import open_cuts
from asrtool.data.sources import InvalidEntry
from asrtool.errors import UserError
from asrtool.experiment import Experiment
from asrtool.scoring.wer import align_words
from asrtool.streaming.feature_stream import FrameExtractor
from asrtool.streaming.partial_hypothesis import WordEmission

MIN_CHUNK_SECONDS = 0.1  # about as much as a telephone or a browser sends at a time


def default_chunk_seconds(experiment: Experiment) -> float:
    """Returns the audio that arrives at a time: the model's chunk, or the fewest of them above MIN_CHUNK_SECONDS."""
    chunk = experiment.model.latency().chunk * frame_seconds(experiment.config.features.sampling_rate)
    return chunk * max(1, int(np.ceil(MIN_CHUNK_SECONDS / chunk)))


def algorithmic_latency(experiment: Experiment) -> dict[str, float]:
    """Returns how much audio behind its beginning an output frame waits for, in milliseconds: maximum and mean."""
    features, model = experiment.config.features, experiment.model
    right, chunk = model.latency()
    seconds = frame_seconds(features.sampling_rate)
    ahead = right + FrameExtractor(features.sampling_rate, features.num_bins).look_ahead / seconds
    shift = 1000 * seconds
    # A chunk's first frame waits for all of the chunk, its last frame for one frame.
    mean = ahead + (chunk + model.subsampling.factor) / 2
    return {"max": round(shift * (ahead + chunk), 1), "mean": round(shift * mean, 1)}


def aligned_words(cut: MonoCut) -> list[tuple[str, float]]:
    """Returns the words of the cut's alignment and their ends, in seconds from its beginning; empty without alignment.

    Raises InvalidEntry for an alignment without times.
    """
    alignment = (cut.supervisions[0].alignment or {}).get("word") if cut.supervisions else None
    try:
        words = [(str(item.symbol), float(item.end)) for item in alignment or [] if item.symbol]
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InvalidEntry(f"{cut.id}: its alignment is not one of words with times; see `asrtool align`") from error
    if not all(math.isfinite(end) for _, end in words):
        raise InvalidEntry(f"{cut.id}: its alignment has times that are not finite; see `asrtool align`")
    return words


def read_aligned_words(path: Path) -> dict[str, list[tuple[str, float]]]:
    """Returns the aligned words of each cut of a manifest, by id. Raises UserError when no cut has any."""
    words_of = {cut.id: words for cut in open_cuts(path) if (words := aligned_words(cut))}
    if not words_of:
        raise UserError(f"{path} has no alignments of words; create them with `asrtool align`")
    return words_of


def emission_delays(emissions: list[WordEmission], words: list[tuple[str, float]]) -> list[tuple[float, float]]:
    """Returns for each correctly recognised word the seconds from its end until it appeared, and until it was final.

    `words`: the words of the alignment with their ends. A word may appear before it ends: its delay is then negative.
    """
    pairs = align_words(" ".join(word for word, _ in words), " ".join(emission.word for emission in emissions))
    ends = iter(end for _, end in words)
    remaining = iter(emissions)
    delays = []
    for ref, hyp in pairs:
        end = next(ends) if ref else math.nan
        emission = next(remaining) if hyp else None
        if emission and ref == hyp:
            delays.append((emission.first - end, emission.final - end))
    return delays


def time_statistics(seconds: Sequence[float]) -> dict[str, float]:
    """Returns mean, median, 95th percentile and maximum, in milliseconds."""
    values = 1000 * np.array(seconds)
    statistics = {
        "mean": values.mean(),
        "median": np.median(values),
        "p95": np.percentile(values, 95),
        "max": values.max(),
    }
    return {name: round(float(value), 2) for name, value in statistics.items()}
