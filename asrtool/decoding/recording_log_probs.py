"""The log-probs of a whole recording, window by window, on one grid of frames.

The model sees windows with some seconds of context on either side, whose frames are not kept:

    samples   |......................................................
    window 0  [ kept      |context]
    window 1        [context| kept      |context]
    window 2                      [context| kept      |context]
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from asrtool.data.audio_blocks import AudioRecording, Channel, open_recording
from asrtool.data.features import features_of_samples, samples_per_frame
from asrtool.data.sources import InvalidEntry
from asrtool.errors import DataError, UserError
from asrtool.experiment import Experiment
from asrtool.progress import progress
from asrtool.text.context_units import ContextTokenizer
from asrtool.text.outputs import Topology
from asrtool.text.tokenizer import BLANK

CONTEXT_SECONDS = 2.0  # more than the 1 s that a word takes; attention beyond that changes few frames
MAX_WINDOW_SECONDS = 30.0  # with context; a shorter limit of the training data holds as well
MIN_WINDOW_SECONDS = 8.0  # half of it is kept; models of short utterances (digits) still see whole words
MAX_HOURS = 12.0  # of a recording: the log-probs of 500 units have 90 MB for each hour


class RecordingFrames(NamedTuple):
    """A recording as the model sees it.

    log_probs (T, V) float16, T frames of `frame_seconds`; V counts the phones of a system with context-dependent units,
    else the units. energy (F, 1): the mean of the log-mel features, one of each feature frame. seconds: the duration.
    """

    log_probs: np.ndarray
    energy: np.ndarray
    seconds: float


def recording_log_probs(
    experiment: Experiment, audio: Path | AudioRecording, channel: Channel = "mix"
) -> RecordingFrames:
    """Returns the log-probs of a recording, or of an audio file, of any length.

    Raises UserError for a recording that cannot be read or is longer than MAX_HOURS, and DataError for log-probs that
    are not finite.
    """
    try:
        recording = audio if isinstance(audio, AudioRecording) else open_recording(audio)
        hours = (recording.seconds or 0.0) / 3600
        if hours > MAX_HOURS:
            raise UserError(f"{recording.name} has {hours:.1f} hours, more than {MAX_HOURS:g}; split it")
        return _read_windows(experiment, recording, channel)
    except InvalidEntry as problem:
        raise UserError(str(problem)) from problem


def _read_windows(experiment: Experiment, recording: AudioRecording, channel: Channel) -> RecordingFrames:
    rate = experiment.config.features.sampling_rate
    shape = _WindowShape(experiment)
    windows = _windows(recording.blocks(rate, channel), shape)
    total = int(np.ceil(recording.seconds / shape.kept_seconds)) if recording.seconds else None
    log_probs = [np.zeros((0, experiment.tokenizer.without_context.size), np.float16)]
    energy = [np.zeros((0, 1), np.float32)]
    num_samples = 0
    for samples, first, count in progress(windows, f"model on {Path(recording.name).name}", total, "windows"):
        is_last = len(samples) == first + count
        features = features_of_samples(samples, rate, experiment.config.features.num_bins)  # (F, B)
        energy.append(features.mean(dim=1, keepdim=True).numpy()[_rows(first, count, shape.frame_shift, is_last)])
        if len(features):
            rows = _rows(first, count, shape.frame, is_last)
            log_probs.append(_window_log_probs(experiment, features)[rows].astype(np.float16))
        num_samples += count
    return RecordingFrames(np.concatenate(log_probs), np.concatenate(energy), num_samples / rate)


def _rows(first: int, count: int, frame: int, is_last: bool) -> slice:
    """Returns the rows of the samples that are kept, for frames of so many samples; of the last window all others."""
    return slice(first // frame, None if is_last else (first + count) // frame)


class _WindowShape:
    """Sizes of windows in samples; all are multiples of an output frame."""

    def __init__(self, experiment: Experiment):
        self.frame_shift = samples_per_frame(experiment.config.features.sampling_rate)
        self.frame = self.frame_shift * experiment.model.subsampling.factor
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


def _window_log_probs(experiment: Experiment, features: torch.Tensor) -> np.ndarray:
    """Returns the log-probs (T, V) of the features (F, B) of a window."""
    log_probs = experiment.forward(features[None], torch.tensor([len(features)]))[0][0].float().cpu().numpy()
    if not np.isfinite(log_probs).all():
        raise DataError("the model's log-probs of the recording are not finite; look at its audio", [])
    return phone_log_probs(log_probs, experiment)


def phone_log_probs(log_probs: np.ndarray, experiment: Experiment) -> np.ndarray:
    """Returns log-probs (T, V') of a topology with a blank, without context: of phones if units are phones in context.

    The probability of a phone is the sum over its units. The probability of a unit in topology hmm is the sum over its
    two outputs, and silence becomes the blank; the topology is then `topology_with_blank`. Others stay as they are.
    """
    tokenizer = experiment.tokenizer
    has_two_states = experiment.config.objective.topology == "hmm"
    if not isinstance(tokenizer, ContextTokenizer) and not has_two_states:
        return log_probs
    plain_of = tokenizer.phone_of if isinstance(tokenizer, ContextTokenizer) else range(tokenizer.size)
    columns = np.repeat(np.array(plain_of), 2 if has_two_states else 1)  # (V,)
    if has_two_states:
        columns[columns == tokenizer.without_context.silence] = BLANK
    best = log_probs.max(axis=1, keepdims=True)
    sums = np.zeros((len(log_probs), tokenizer.without_context.size))
    np.add.at(sums.T, columns, np.exp(log_probs - best).T)
    return np.log(np.maximum(sums, np.finfo(np.float64).tiny)) + best


def topology_with_blank(experiment: Experiment) -> Topology:
    """Returns the topology of `phone_log_probs`: in "modified", equal units need no blank between them, as in "hmm"."""
    topology = experiment.config.objective.topology
    return "modified" if topology == "hmm" else topology
