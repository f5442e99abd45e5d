"""The segments of a recording through the acoustic model, in batches of similar length and in bounded memory."""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from asrtool.data.batch import Batch
from asrtool.data.features import features_of_samples
from asrtool.data.speech_segments import AudioSegment
from asrtool.experiment import Experiment

# Audio that is sorted by length at once. With segments of up to 20 s, batches from 200 s of audio have about 5 % of
# padding; its samples take 13 MB at 16 kHz, its features 6 MB, its log-probs 10 MB for 500 units.
WINDOW_SECONDS = 200.0
PRIMITIVE_CACHE_CAPACITY = "16"  # about the operations of one batch: its layers have the same shapes


def limit_primitive_cache() -> None:
    """Bounds the memory that oneDNN keeps for shapes of batches that it has seen; an environment variable goes first.

    It has an effect only before the first model runs in this process. Each batch has a new shape: with oneDNN's own
    limit of 1024, memory grew by 0.4 GB in an hour of audio.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", PRIMITIVE_CACHE_CAPACITY)


class SegmentFrames(NamedTuple):
    """The log-mel features (T, F) of a segment and its log-probs (T', V), both float32."""

    features: np.ndarray
    log_probs: np.ndarray


class FollowedSegment(NamedTuple):
    """A segment, and the seconds of its end that the next segment has as well."""

    segment: AudioSegment
    next_overlap: float


def with_next_overlaps(segments: Iterable[AudioSegment]) -> Iterator[FollowedSegment]:
    """Yields each segment with the overlap of the next one, which is read before."""
    previous: AudioSegment | None = None
    for segment in segments:
        if previous is not None:
            yield FollowedSegment(previous, segment.overlap)
        previous = segment
    if previous is not None:
        yield FollowedSegment(previous, 0.0)


def segment_windows(
    segments: Iterable[FollowedSegment], rate: int, max_seconds: float = WINDOW_SECONDS
) -> Iterator[list[FollowedSegment]]:
    """Yields the segments in windows, in order; `rate` is their sampling rate.

    The first window is a single segment, so that its words appear early; each further one has twice the audio, up to
    `max_seconds` and a segment.
    """
    limit = seconds = 0.0
    window: list[FollowedSegment] = []
    for followed in segments:
        window.append(followed)
        seconds += len(followed.segment.samples) / rate
        if seconds >= limit:
            yield window
            limit = min(2 * seconds, max_seconds)
            window, seconds = [], 0.0
    if window:
        yield window


def length_batches(lengths: Sequence[int], max_total: int) -> list[list[int]]:
    """Returns the indices of `lengths` in batches of similar length, the longest first.

    A batch, padded to its longest member, has at most `max_total` in all, or a single member.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        longest = lengths[batches[-1][0]] if batches else 0
        if batches and longest * (len(batches[-1]) + 1) <= max_total:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def segment_frames(
    experiment: Experiment, segments: Sequence[AudioSegment], batch_seconds: float
) -> list[SegmentFrames]:
    """Returns features and log-probs of each segment, with T = T' = 0 for segments that are shorter than a frame.

    A batch has at most `batch_seconds` of audio, padding included. Raises DataError where log-probs are not finite.
    """
    rate, num_bins = experiment.config.features.sampling_rate, experiment.config.features.num_bins
    lengths = [len(segment.samples) for segment in segments]
    no_frames = SegmentFrames(np.zeros((0, num_bins), np.float32), np.zeros((0, experiment.num_outputs), np.float32))
    results = [no_frames] * len(segments)
    for indices in length_batches(lengths, round(batch_seconds * rate)):
        features = [features_of_samples(segments[index].samples, rate, num_bins) for index in indices]
        chosen = [n for n, frames in enumerate(features) if len(frames)]
        names = [f"segment at {segments[indices[n]].start:.2f} s" for n in chosen]
        log_probs, lens = experiment.log_probs(feature_batch([features[n] for n in chosen], names))
        for n, row, length in zip(chosen, log_probs.float().cpu().numpy(), lens.tolist(), strict=True):
            # a view of the log-probs would keep the padded batch in memory
            results[indices[n]] = SegmentFrames(features[n].numpy(), row[:length].copy())
    return results


def feature_batch(features: Sequence[torch.Tensor], names: list[str]) -> Batch:
    """Returns a batch of features, each (T, F), without transcripts; `names` are for error messages."""
    lens = torch.tensor([len(frames) for frames in features], dtype=torch.int64)
    padded = torch.nn.utils.rnn.pad_sequence(list(features), batch_first=True) if features else torch.zeros(0, 0, 0)
    return Batch(
        ids=names,
        texts=[""] * len(names),
        features=padded,  # (N, T, F)
        feature_lens=lens,
        targets=torch.zeros(len(names), 0, dtype=torch.int64),
        target_lens=torch.zeros(len(names), dtype=torch.int64),
        seconds=0.0,
        speakers=[None] * len(names),
    )
