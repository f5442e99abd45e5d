"""Augmentation of training cuts: speed, volume, noise, length of the vocal tract, SpecAugment.

Every draw comes from (seed, epoch, cut id) or (seed, epoch, batch number) and nothing else, so that the same batch is
the same bits whichever process makes it, and after a resume.
"""

import hashlib
import random
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from lhotse import MonoCut
from lhotse.dataset import SpecAugment
from lhotse.features.kaldi.layers import lin2mel, mel2lin

from asrtool.config import AugmentConfig, SpecAugmentConfig
from asrtool.data.features import extractor
from asrtool.data.manifest import open_cuts
from asrtool.errors import UserError

KEPT = 0.8  # of the highest frequency; formants are below
SHORTEST_REST = 0.01  # seconds; nothing shorter is mixed in at the end of a cut, where rounding can leave a rest
SHORTEST_NOISE = 0.1  # seconds; a cut of 30 s has it 300 times, and with much shorter ones mixing would never end


def keyed_generator(*key: object) -> random.Random:
    """A random generator that depends on `key` alone."""
    return random.Random(hashlib.blake2b(repr(key).encode(), digest_size=16).digest())


def draw_speed(identifier: str, augment: AugmentConfig, seed: int, epoch: int) -> float:
    """The speed that a cut is drawn in an epoch; bucketing knows it from the cut's name alone."""
    if len(augment.speeds) == 1:
        return augment.speeds[0]
    return keyed_generator("speed", seed, epoch, identifier).choice(augment.speeds)


def perturb_speed(cut: MonoCut, augment: AugmentConfig, seed: int, epoch: int) -> MonoCut:
    """`cut` at its speed of this epoch."""
    speed = draw_speed(cut.id, augment, seed, epoch)
    return cut if speed == 1.0 else cut.perturb_speed(speed, affix_id=False)


def perturb_audio(cut: MonoCut, augment: AugmentConfig, seed: int, epoch: int) -> MonoCut:
    """`cut` with its volume changed and noise mixed in, as configured."""
    draw = keyed_generator("audio", seed, epoch, cut.id)
    if augment.volume:
        cut = cut.perturb_volume(draw.uniform(*augment.volume), affix_id=False)
    if augment.noise and draw.random() < augment.noise_probability:
        cut = _mix_noise(cut, augment, draw)
    return cut


def _mix_noise(cut: MonoCut, augment: AugmentConfig, draw: random.Random) -> MonoCut:
    """`cut` with one noise: a stretch of it, or the whole again and again, each time at the same ratio."""
    noise = draw.choice(_noises(augment.noise))
    if noise.sampling_rate != cut.sampling_rate:
        said = f"{noise.id} has {noise.sampling_rate} Hz, the speech {cut.sampling_rate}"
        raise UserError(f"data.augment.noise {augment.noise}: {said}; see `asrtool prepare lhotse --resample`")
    start = draw.uniform(0, max(0.0, noise.duration - cut.duration))
    snr, mixed, offset = draw.uniform(*augment.noise_snr), cut, 0.0
    while (rest := cut.duration - offset) > SHORTEST_REST:
        piece = noise.truncate(offset=start, duration=min(rest, noise.duration), preserve_id=True).drop_supervisions()
        mixed = mixed.mix(piece, offset_other_by=offset, snr=snr, preserve_id="left")
        offset += piece.duration
    return mixed


@lru_cache(maxsize=2)
def _noises(path: Path) -> list[MonoCut]:
    if not Path(path).is_file():
        raise UserError(f"data.augment.noise not found: {path}; make it with `asrtool prepare lhotse`")
    noises = list(open_cuts(path))
    for noise in noises:
        if not (isinstance(noise, MonoCut) and noise.has_recording and noise.duration >= SHORTEST_NOISE):
            wanted = f"a noise is one channel of a recording, of at least {SHORTEST_NOISE:g} s"
            raise UserError(f"data.augment.noise {path}: {noise.id}: {wanted}; leave it out of the manifest")
    return noises


def perturb_vocal_tract_length(features: torch.Tensor, warp: float, sampling_rate: int) -> torch.Tensor:
    """Log-mel features (T, F) as if all frequencies had been multiplied by `warp` (Jaitly and Hinton 2013).

    Those that come to lie above KEPT of the highest are squeezed or stretched instead, so that the highest stays.
    """
    left, share = _warped_bins(features.shape[1], round(warp, 3), sampling_rate)
    return features[:, left] * (1 - share) + features[:, left + 1] * share


@lru_cache(maxsize=1000)
def _warped_bins(bins: int, warp: float, sampling_rate: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the value of each bin comes from: after which bin, and how far to the next one."""
    config = extractor(sampling_rate, bins).config
    lowest, highest = config.low_freq, config.high_freq + (sampling_rate / 2 if config.high_freq <= 0 else 0)
    mels = np.linspace(lin2mel(lowest), lin2mel(highest), bins + 2)  # edges and centres of the filters
    knee = KEPT * highest * min(warp, 1.0)
    source = np.interp(mel2lin(mels[1:-1]), [0.0, knee, highest], [0.0, knee / warp, highest])
    place = ((lin2mel(source) - mels[1]) / (mels[1] - mels[0])).clip(0, bins - 1)
    left = place.astype(int).clip(max=bins - 2)
    return torch.from_numpy(left), torch.from_numpy(place - left).float()


def spec_augment(config: SpecAugmentConfig) -> SpecAugment:
    """Lhotse's SpecAugment for (N, T, F) batches; masks take the mean of the utterance."""
    return SpecAugment(
        time_warp_factor=config.time_warp or None,
        num_feature_masks=config.frequency_masks,
        features_mask_size=config.frequency_width,
        num_frame_masks=config.time_masks,
        frames_mask_size=config.time_width,
        max_frames_mask_fraction=config.time_fraction,
        p=config.probability,
    )


def mask_batch(masks: SpecAugment, features: torch.Tensor, lengths: torch.Tensor, *key: object) -> torch.Tensor:
    """SpecAugment on each utterance of a padded (N, T, F) batch, its padding left alone, drawn from `key`."""
    state, numpy_state = random.getstate(), np.random.get_state()  # lhotse draws from all three libraries
    draw = keyed_generator("masks", *key)
    random.seed(draw.getrandbits(64))
    np.random.seed(draw.getrandbits(32))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw.getrandbits(63))
        for row, length in zip(features, lengths.tolist(), strict=True):
            if length * masks.max_frames_mask_fraction >= 1:  # else not even one frame may be masked
                row[:length] = masks(row[None, :length])[0]
    random.setstate(state)
    np.random.set_state(numpy_state)
    return features
