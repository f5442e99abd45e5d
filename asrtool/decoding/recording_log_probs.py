"""The log-probs of a whole recording, window by window, on one grid of frames.

The model sees windows with some seconds of context on either side, whose frames are not kept:

    samples   |......................................................
    window 0  [ kept      |context]
    window 1        [context| kept      |context]
    window 2                      [context| kept      |context]
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from asrtool.data.audio_blocks import AudioRecording, Channel, open_recording
from asrtool.data.features import features_of_samples, samples_per_frame
from asrtool.data.sources import InvalidEntry
from asrtool.errors import DataError, UserError
from asrtool.experiment import Experiment
from asrtool.progress import progress
from asrtool.text.context_units import ContextTokenizer

CONTEXT_SECONDS = 2.0  # more than the 1 s that a word takes; attention beyond that changes few frames
MAX_WINDOW_SECONDS = 30.0  # with context; a shorter limit of the training data holds as well
MIN_WINDOW_SECONDS = 8.0  # half of it is kept; models of short utterances (digits) still see whole words
MAX_HOURS = 12.0  # of a recording: the log-probs of 500 units have 90 MB for each hour


def recording_log_probs(
    experiment: Experiment, audio: Path | AudioRecording, channel: Channel = "mix"
) -> tuple[np.ndarray, float]:
    """Returns log-probs (T, V) float16 of a recording and its duration in seconds; T frames of `frame_seconds`.

    V counts the phones of a system with context-dependent units, else the units. Raises UserError for a recording that
    cannot be read or is longer than MAX_HOURS, and DataError for log-probs that are not finite.
    """
    rate = experiment.config.features.sampling_rate
    try:
        recording = audio if isinstance(audio, AudioRecording) else open_recording(audio)
        if recording.seconds and recording.seconds > 3600 * MAX_HOURS:
            raise UserError(
                f"{recording.name} has {recording.seconds / 3600:.1f} hours, more than {MAX_HOURS:g}; split it"
            )
        shape = _WindowShape(experiment)
        windows = _windows(recording.blocks(rate, channel), shape)
        total = int(np.ceil(recording.seconds / shape.kept_seconds)) if recording.seconds else None
        pieces: list[np.ndarray] = []
        num_samples = 0
        for samples, first, count in progress(
            windows, f"model on {os.path.basename(recording.name)}", total, "windows"
        ):
            more = len(samples) > first + count
            pieces.append(_kept_log_probs(experiment, samples, first, count // shape.frame if more else None))
            num_samples += count
    except InvalidEntry as problem:
        raise UserError(str(problem)) from problem
    log_probs = np.concatenate(pieces) if pieces else np.zeros((0, experiment.tokenizer.without_context.size))
    return log_probs, num_samples / rate


class _WindowShape:
    """Sizes of windows in samples; all are multiples of an output frame."""

    def __init__(self, experiment: Experiment):
        self.frame = samples_per_frame(experiment.config.features.sampling_rate) * experiment.model.subsampling.factor
        longest = min(experiment.config.data.max_seconds, MAX_WINDOW_SECONDS)
        window = max(longest, MIN_WINDOW_SECONDS)
        context = min(CONTEXT_SECONDS, window / 4)
        self.context = round(context / experiment.frame_seconds) * self.frame
        self.kept = round((window - 2 * context) / experiment.frame_seconds) * self.frame
        self.kept_seconds = self.kept / self.frame * experiment.frame_seconds


def _windows(blocks: Iterable[np.ndarray], shape: _WindowShape) -> Iterator[tuple[np.ndarray, int, int]]:
    """Yields the samples of each window, how many of them are context before it, and how many are kept."""
    buffer = np.zeros(0, np.float32)
    first = 0  # samples of context at the beginning of the buffer
    for block in blocks:
        buffer = np.concatenate([buffer, block])
        while len(buffer) >= first + shape.kept + shape.context:
            yield buffer[: first + shape.kept + shape.context], first, shape.kept
            drop = first + shape.kept - shape.context
            buffer = buffer[max(0, drop) :]
            first = first + shape.kept - max(0, drop)
    while len(buffer) > first:
        kept = min(shape.kept, len(buffer) - first)
        yield buffer[: first + kept + shape.context], first, kept
        drop = max(0, first + kept - shape.context)
        buffer = buffer[drop:]
        first = first + kept - drop


@torch.no_grad()
def _kept_log_probs(experiment: Experiment, samples: np.ndarray, first: int, count: int | None) -> np.ndarray:
    """Returns the log-probs (count, V) float16 of a window after `first` samples of context; count None: all others."""
    config = experiment.config.features
    features = features_of_samples(samples, config.sampling_rate, config.num_bins)  # (T, F)
    if not len(features):
        return np.zeros((0, experiment.tokenizer.without_context.size), np.float16)
    batch = features[None].to(experiment.device)
    log_probs, _ = experiment.model(batch, torch.tensor([len(features)], device=experiment.device))
    begin = first // (samples_per_frame(config.sampling_rate) * experiment.model.subsampling.factor)
    kept = log_probs[0].float().cpu().numpy()[begin : None if count is None else begin + count]
    if not np.isfinite(kept).all():
        raise DataError("the model's log-probs of the recording are not finite; look at its audio", [])
    return phone_log_probs(kept, experiment).astype(np.float16)


def phone_log_probs(log_probs: np.ndarray, experiment: Experiment) -> np.ndarray:
    """Returns log-probs (T, V') of phones for those (T, V) of phones in context; others as they are.

    The probability of a phone is the sum over its units, so that an alignment needs no context.
    """
    tokenizer = experiment.tokenizer
    if not isinstance(tokenizer, ContextTokenizer):
        return log_probs
    phones = np.array(tokenizer.phone_of)
    best = log_probs.max(axis=1, keepdims=True)
    sums = np.zeros((len(log_probs), tokenizer.without_context.size))
    np.add.at(sums.T, phones, np.exp(log_probs - best).T)
    return np.log(np.maximum(sums, np.finfo(np.float64).tiny)) + best
