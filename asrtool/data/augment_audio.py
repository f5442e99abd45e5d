"""Augmentation of the samples of training cuts: volume, reverberation, noise, telephone band, filters and codecs.

They are applied in the order in which sound passes them: the speech in its room, the noise in the same place, then the
channel and the codec. Every random number is drawn from (seed, epoch, cut id) alone, as in asrtool/data/augment.py.
"""

import random
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from lhotse import MonoCut

from asrtool.config_data import AugmentConfig, CodecConfig, NoiseConfig, ReverbConfig
from asrtool.data.augment import keyed_generator
from asrtool.data.codecs import draw_compression, require_codecs, through_codec, through_lowpass, through_telephone
from asrtool.data.lhotse_sets import open_cuts
from asrtool.data.rooms import reverberate, simulate_response, trim_response
from asrtool.data.samples import load_samples
from asrtool.errors import UserError

MIN_NOISE_SECONDS = 0.1  # a shorter noise, repeated in a cut, would be a tone
MAX_NOISES = 200_000  # recordings of one manifest that are held in each loader process, about 2 kB each
MAX_RESPONSE_SECONDS = 30.0  # of a recorded room impulse response; the longest ones, of caves, have 20


def audio_change(
    cut: MonoCut, augment: AugmentConfig, seed: int, epoch: int
) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Returns the function that augments the samples of `cut`, (n,) -> (n,) float32, or None if nothing is turned on.

    Speeds are not part of it: they change the length of the cut.
    """
    if not set(augment.sample_changes) - {"speeds"}:
        return None
    return lambda samples: perturb_audio(samples, cut.id, cut.sampling_rate, augment, seed, epoch)


def perturb_audio(
    samples: torch.Tensor, cut_id: str, sampling_rate: int, augment: AugmentConfig, seed: int, epoch: int
) -> torch.Tensor:
    """Returns the samples (n,) float32 of a cut, augmented as configured.

    Raises UserError for a manifest of noise or responses that cannot be used, InvalidEntry for audio in it that cannot.
    """

    def generator(kind: str, number: int = 0) -> random.Random:
        return keyed_generator(kind, number, seed, epoch, cut_id)

    audio = samples.numpy()
    if augment.volume:
        audio = audio * np.float32(generator("volume").uniform(*augment.volume))
    if augment.reverb:
        audio = _add_reverberation(audio, sampling_rate, augment.reverb, generator("reverb"))
    level = _power(audio)  # of the speech, to which all signal-to-noise ratios refer
    for number, source in enumerate(augment.noise_sources):
        audio = _add_noise(audio, level, sampling_rate, source, generator("noise", number))
    if generator("telephone").random() < augment.telephone_probability:
        audio = through_telephone(audio, sampling_rate)
    if augment.lowpass and (drawn := generator("lowpass")).random() < augment.lowpass.probability:
        audio = through_lowpass(audio, sampling_rate, drawn.uniform(*augment.lowpass.cutoff))
    if augment.codec:
        audio = _encode(audio, sampling_rate, augment.codec, generator("codec"))
    return torch.from_numpy(np.ascontiguousarray(audio, dtype=np.float32))


def _add_reverberation(
    audio: np.ndarray, sampling_rate: int, reverb: ReverbConfig, generator: random.Random
) -> np.ndarray:
    if generator.random() >= reverb.probability:
        return audio
    if reverb.manifest is not None:
        chosen = generator.choice(_load_responses(reverb.manifest, sampling_rate))
        return reverberate(audio, *trim_response(load_samples(chosen).numpy(), sampling_rate))
    t60 = generator.uniform(*reverb.t60)
    distance = generator.uniform(*reverb.distance)
    room = np.random.default_rng(generator.getrandbits(64))
    return reverberate(audio, simulate_response(sampling_rate, t60, distance, room))


def _add_noise(
    audio: np.ndarray, level: float, sampling_rate: int, source: NoiseConfig, generator: random.Random
) -> np.ndarray:
    """Returns `audio` with the sum of one or several recordings of a source mixed in at a drawn signal-to-noise ratio.

    `level` is the mean power of the speech.
    """
    if generator.random() >= source.probability:
        return audio
    noises = _load_noises(source.manifest, sampling_rate)
    voices = generator.randint(*source.voices)
    noise = np.zeros(len(audio), dtype=np.float32)
    for _ in range(voices):
        voice = _excerpt(generator.choice(noises), len(audio), generator)
        power = _power(voice)
        noise += voice / np.float32(np.sqrt(power)) if power > 0 else 0.0  # voices are equally loud
    noise_power = _power(noise)
    if noise_power == 0.0:
        return audio
    snr = generator.uniform(*source.snr)
    return audio + noise * np.float32(np.sqrt(level / noise_power * 10 ** (-snr / 10)))


def _excerpt(noise: MonoCut, length: int, generator: random.Random) -> np.ndarray:
    """Returns `length` samples of a recording: a part of it from a drawn start on, or all of it, repeated."""
    seconds = length / noise.sampling_rate
    if noise.duration > seconds:
        start = generator.uniform(0, noise.duration - seconds)
        noise = noise.truncate(offset=start, duration=seconds, preserve_id=True)
    return np.resize(load_samples(noise.drop_supervisions()).numpy(), length)


def _power(audio: np.ndarray) -> float:
    """Returns the mean square of samples."""
    return float(np.square(audio, dtype=np.float64).mean()) if len(audio) else 0.0


def _encode(audio: np.ndarray, sampling_rate: int, codec: CodecConfig, generator: random.Random) -> np.ndarray:
    if generator.random() >= codec.probability:
        return audio
    chosen = generator.choice(codec.codecs)
    return through_codec(audio, sampling_rate, chosen, draw_compression(chosen, generator))


def require_sources(augment: AugmentConfig, sampling_rate: int) -> None:
    """Raises UserError where a manifest of noise or room impulse responses, or a codec, cannot be used.

    Training calls it at its start: the first cut that draws a noise may come hours later.
    """
    for source in augment.noise_sources:
        _load_noises(source.manifest, sampling_rate)
    if augment.reverb and augment.reverb.manifest is not None:
        _load_responses(augment.reverb.manifest, sampling_rate)
    if augment.codec:
        require_codecs(augment.codec.codecs, sampling_rate)


@lru_cache(maxsize=16)
def _load_noises(path: Path, sampling_rate: int) -> list[MonoCut]:
    """Returns the recordings of a manifest of noise."""
    requirement = f"a noise is one channel of a recording, of at least {MIN_NOISE_SECONDS:g} s"
    return _load_recordings("noise", path, sampling_rate, requirement, lambda cut: cut.duration >= MIN_NOISE_SECONDS)


@lru_cache(maxsize=4)
def _load_responses(path: Path, sampling_rate: int) -> list[MonoCut]:
    """Returns the recordings of a manifest of room impulse responses."""
    limit = f"{MAX_RESPONSE_SECONDS:g} s"
    requirement = f"a room impulse response is one channel of a recording, of at most {limit}"
    is_usable = lambda cut: cut.duration <= MAX_RESPONSE_SECONDS  # noqa: E731
    return _load_recordings("reverb.manifest", path, sampling_rate, requirement, is_usable)


def _load_recordings(
    key: str, path: Path, sampling_rate: int, requirement: str, is_usable: Callable[[MonoCut], bool]
) -> list[MonoCut]:
    key = f"data.augment.{key}"
    hint = "make it with `asrtool prepare folder --unlabelled`"
    if not Path(path).exists():
        raise UserError(f"{key} not found: {path}; {hint}")
    cuts: list[MonoCut] = []
    for cut in open_cuts(path):
        if not (isinstance(cut, MonoCut) and cut.has_recording and is_usable(cut)):
            raise UserError(f"{key} {path}: {cut.id}: {requirement}; leave it out of the manifest")
        if cut.sampling_rate != sampling_rate:
            rates = f"{cut.id} has {cut.sampling_rate} Hz, the speech {sampling_rate}"
            raise UserError(f"{key} {path}: {rates}; see `asrtool prepare --resample`")
        cuts.append(cut)
        if len(cuts) == MAX_NOISES:
            break
    if not cuts:
        raise UserError(f"{key} {path} is empty; {hint}")
    return cuts
