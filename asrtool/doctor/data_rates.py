"""Faults of lengths: of the audio, of the transcript in units, and of the transcript in relation to the speech."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from asrtool.config import Config
from asrtool.data.features import MIN_FRAME_SECONDS, count_frames
from asrtool.doctor.data_audio_checks import is_steady_noise
from asrtool.doctor.data_entries import Utterance
from asrtool.doctor.data_faults import Faults
from asrtool.doctor.data_signal import Signal
from asrtool.objectives.full_sum import topology_min_frames
from asrtool.text.tokenizer import Tokenizer
from asrtool.text.words import composed

MIN_UTTERANCES = 20  # for a median rate and its deviation
MAX_CHARACTERS_PER_SECOND = 50.0  # of audio: twice the fastest speech in any alphabet
MIN_DEVIATION = 0.12  # of the logarithm of the rate: read speech of one person has 0.1, of many 0.2
MAX_Z = 4.0  # deviations from the median; the farthest of 1,400 read utterances in two languages has 3.7
MAX_RATIO = 1.8  # to the median rate, or its inverse: within that, people just speak fast or slowly
MIN_SPEECH_SECONDS = 0.1


@dataclass(frozen=True)
class Limits:
    """What training requires of lengths, by the configuration."""

    min_seconds: float
    max_seconds: float
    rate: int | None  # Hz; None takes the rate of each recording
    max_speed: float
    out_length: Callable[[int], int] | None  # feature frames -> output frames; None for objectives without a minimum
    min_frames: Callable[[Sequence[int]], int]  # units -> output frames that the objective needs for them


def length_limits(config: Config | None) -> Limits:
    """Returns the limits of a configuration, or of the defaults."""
    from asrtool.models.subsampling import make_front_end

    values = config or Config()
    front_end = make_front_end(values.model.subsampling, values.features.num_bins, 8)  # 8: any dimension will do
    return Limits(
        min_seconds=values.data.min_seconds,
        max_seconds=values.data.max_seconds,
        rate=config.features.sampling_rate if config else None,
        max_speed=max(values.data.augment.speeds),
        out_length=None if values.objective.kind == "ce" else front_end.out_length,
        min_frames=lambda units: topology_min_frames(units, values.objective.topology),
    )


def check_lengths(utterances: Sequence[Utterance], limits: Limits, tokenizer: Tokenizer | None, faults: Faults) -> None:
    """Adds a fault for each utterance that training would leave out by its length."""
    shortest = max(limits.min_seconds, MIN_FRAME_SECONDS)
    for utterance in utterances:
        seconds = utterance.seconds
        if seconds < shortest:
            faults.add("too-short", utterance.id, f"{seconds:.3f} s")
        elif seconds > limits.max_seconds:
            faults.add("too-long", utterance.id, f"{seconds:.1f} s")
        elif tokenizer and limits.out_length and not tokenizer.unknown(composed(utterance.text or "")):
            _check_feasible(utterance, limits, tokenizer, faults)


def _check_feasible(utterance: Utterance, limits: Limits, tokenizer: Tokenizer, faults: Faults) -> None:
    rate = limits.rate or (utterance.source.rate if utterance.source else 16000)
    frames = count_frames(int(utterance.seconds / limits.max_speed * rate), rate)
    available = limits.out_length(frames) if limits.out_length else frames
    needed = limits.min_frames(tokenizer.encode(composed(utterance.text or "")))
    if needed > available:
        faults.add("ctc-infeasible", utterance.id, f"{needed} frames needed, {available} in {utterance.seconds:.2f} s")


def check_speaking_rates(
    utterances: Sequence[Utterance], signals: Mapping[int, Signal], first: int, faults: Faults
) -> None:
    """Adds a fault for each transcript that is far too long or too short for its speech.

    `signals` has the measures of utterances by number; the first of this set has the number `first`. Outliers are
    judged by the logarithm of characters per second, with the median and its absolute deviation, so that they do not
    hide each other: per second of speech and per second of audio, of which the one closer to its median counts. Long
    pauses alone, or noise that hides pauses, make no outlier.
    """
    rated: list[_Rated] = []
    for number, utterance in enumerate(utterances, first):
        characters = len("".join(composed(utterance.text or "").split()))
        speech = _speech_seconds(utterance, signals.get(number))
        if not characters or speech is None:
            continue
        if characters > MAX_CHARACTERS_PER_SECOND * utterance.seconds:
            detail = f"{characters / utterance.seconds:.1f} characters per second of audio"
            faults.add("too-many-characters", utterance.id, detail)
        else:
            rated.append(_Rated(utterance.id, characters, speech, utterance.seconds))
    if len(rated) >= MIN_UTTERANCES:
        _add_outliers(rated, faults)


@dataclass(frozen=True, slots=True)
class _Rated:
    id: str
    characters: int
    speech: float  # seconds
    audio: float  # seconds


def _add_outliers(rated: Sequence[_Rated], faults: Faults) -> None:
    by_speech = _deviations([item.characters for item in rated], [item.speech for item in rated])
    by_audio = _deviations([item.characters for item in rated], [item.audio for item in rated])
    usual = float(np.median([item.characters / item.speech for item in rated]))
    for item, speech, audio in zip(rated, by_speech, by_audio, strict=True):
        if speech[0] * audio[0] <= 0:
            continue
        difference, z = min(speech, audio, key=lambda pair: abs(pair[1]))
        if abs(z) > MAX_Z and abs(difference) > math.log(MAX_RATIO):
            kind = "too-many-characters" if z > 0 else "too-few-characters"
            rate = f"{item.characters / item.speech:.1f} characters per second of speech"
            faults.add(kind, item.id, f"{rate}, where {usual:.1f} is usual")


def _deviations(characters: Sequence[int], seconds: Sequence[float]) -> list[tuple[float, float]]:
    """Returns, for each utterance, how far its logarithmic rate is from the median, also in standard deviations.

    The deviation is larger where few characters are expected and written.
    """
    logarithms = np.log(np.array(characters) / np.array(seconds))
    median = float(np.median(logarithms))
    deviation = max(MIN_DEVIATION, 1.4826 * float(np.median(np.abs(logarithms - median))))
    expected = np.maximum(characters, np.array(seconds) * math.exp(median))
    differences = logarithms - median
    z = differences / np.hypot(deviation, 1 / np.sqrt(expected))
    return list(zip(differences.tolist(), z.tolist(), strict=True))


def _speech_seconds(utterance: Utterance, signal: Signal | None) -> float | None:
    """Returns the seconds of speech, the duration without measured audio, and None for audio without speech."""
    if signal is None:
        return utterance.seconds
    if signal.wrong_samples or signal.speech_seconds < MIN_SPEECH_SECONDS or is_steady_noise(signal):
        return None
    return signal.speech_seconds
