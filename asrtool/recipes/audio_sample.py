"""Levels, channels and noise of a few recordings, which stand for all of a corpus."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import soundfile

from asrtool.data.snr import estimate_snr

MAX_SECONDS = 20.0  # of a recording that are read
DEAD_CHANNEL = 1e-3  # RMS as a share of the loudest channel's, -60 dB: a channel that records nothing
COPIED_CHANNEL = 0.999  # correlation of two channels that hold the same signal


@dataclass(frozen=True)
class AudioSample:
    """What a sample of recordings is like."""

    recordings: int = 0
    level: float | None = None  # dB of full scale, RMS, the median
    snr: float | None = None  # dB, the median of an estimate
    channel: int = 0  # the channel that is loudest in most recordings
    channels: str = ""  # a phrase about recordings with several channels; "" if there are none


def every_nth(items: Sequence[str], count: int) -> list[str]:
    """Returns at most `count` of the items, evenly spaced over all of them."""
    if len(items) <= count:
        return list(items)
    return [items[index * len(items) // count] for index in range(count)]


def sample_audio(paths: Sequence[str]) -> AudioSample:
    """Returns level, noise and channels of the recordings `paths`. Recordings that cannot be read are left out."""
    levels: list[float] = []
    ratios: list[float] = []
    powers: list[np.ndarray] = []
    copied = 0
    for samples, rate in filter(None, map(_read, paths)):
        power = np.sqrt(np.mean(np.square(samples), axis=0))  # (channels,) RMS
        powers.append(power)
        loudest = samples[:, int(power.argmax())]
        levels.append(20 * float(np.log10(max(power.max(), 1e-6))))
        if (ratio := estimate_snr(loudest, rate)) is not None:
            ratios.append(ratio)
        copied += _is_copied(samples)
    if not levels:
        return AudioSample()
    channel, phrase = _choose_channel([power for power in powers if len(power) > 1], copied)
    snr = float(np.median(ratios)) if ratios else None
    return AudioSample(len(levels), float(np.median(levels)), snr, channel, phrase)


def _read(path: str) -> tuple[np.ndarray, int] | None:
    """Returns samples (n, channels) float32 from the middle of a recording and its rate, None if it cannot be read."""
    try:
        with soundfile.SoundFile(path) as file:
            count = int(min(file.frames, MAX_SECONDS * file.samplerate))
            file.seek((file.frames - count) // 2)
            samples = file.read(count, dtype="float32", always_2d=True)
            return (samples, file.samplerate) if len(samples) else None
    except (RuntimeError, OSError, TypeError, ValueError):  # `asrtool prepare` says what is wrong with it
        return None


def _is_copied(samples: np.ndarray) -> bool:
    """Returns True if the first two of several channels hold the same signal."""
    if samples.shape[1] < 2:
        return False
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return bool(np.corrcoef(samples[:, 0], samples[:, 1])[0, 1] > COPIED_CHANNEL)


def _choose_channel(powers: list[np.ndarray], copied: int) -> tuple[int, str]:
    """Returns the channel to use of recordings with several, and why; `powers` are the RMS values of each."""
    if not powers:
        return 0, ""
    loudest = [int(power.argmax()) for power in powers]
    if copied == len(powers):
        return 0, "its channels hold the same signal"
    channel = max(set(loudest), key=loudest.count)
    dead = sum(bool(power.min() < DEAD_CHANNEL * power.max()) for power in powers)
    if dead:
        return channel, f"the other channel is silent in {dead} of {len(powers)} sampled recordings"
    return channel, f"it is the loudest channel in {loudest.count(channel)} of {len(powers)} sampled recordings"
