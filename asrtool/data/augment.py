"""Augmentation of training cuts: speed, vocal tract length (VTLP), SpecAugment. augment_audio.py changes the samples.

Every random number is drawn from (seed, epoch, cut id) or (seed, epoch, position of the batch) and nothing else, so
that a batch has the same bits whichever process loads it, and after a resume.
"""

import hashlib
import random
from functools import lru_cache

import numpy as np
import torch
from lhotse import MonoCut
from lhotse.dataset import SpecAugment
from lhotse.features.kaldi.layers import lin2mel, mel2lin

from asrtool.config_data import AugmentConfig, SpecAugmentConfig
from asrtool.data.features import extractor

UNWARPED_FROM = 0.8  # share of the highest frequency; formants lie below it, and VTLP only fits the rest in above it


def keyed_generator(*key: object) -> random.Random:
    """Returns a random generator that depends on `key` alone."""
    return random.Random(hashlib.blake2b(repr(key).encode(), digest_size=16).digest())


def draw_speed(cut_id: str, augment: AugmentConfig, seed: int, epoch: int) -> float:
    """Returns the speed of a cut in an epoch. It depends on the cut's id alone, so that bucketing knows it."""
    if len(augment.speeds) == 1:
        return augment.speeds[0]
    return keyed_generator("speed", seed, epoch, cut_id).choice(augment.speeds)


def perturb_speed(cut: MonoCut, augment: AugmentConfig, seed: int, epoch: int) -> MonoCut:
    """Returns `cut` at its speed of this epoch."""
    speed = draw_speed(cut.id, augment, seed, epoch)
    return cut if speed == 1.0 else cut.perturb_speed(speed, affix_id=False)


def perturb_vocal_tract_length(features: torch.Tensor, warp: float, sampling_rate: int) -> torch.Tensor:
    """Returns log-mel features (T, F) as if all frequencies were multiplied by `warp` (VTLP; Jaitly and Hinton 2013).

    Frequencies that end above UNWARPED_FROM of the highest one are squeezed or stretched, so that the highest stays.
    """
    left, share = _vtlp_bins(features.shape[1], round(warp, 3), sampling_rate)
    return features[:, left] * (1 - share) + features[:, left + 1] * share


@lru_cache(maxsize=1000)
def _vtlp_bins(num_bins: int, warp: float, sampling_rate: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns from where the value of each bin is interpolated: the bin to the left, and the share of the next one."""
    config = extractor(sampling_rate, num_bins).config
    lowest = config.low_freq
    highest = config.high_freq + (sampling_rate / 2 if config.high_freq <= 0 else 0)
    mels = np.linspace(lin2mel(lowest), lin2mel(highest), num_bins + 2)  # edges and centres of the filters
    knee = UNWARPED_FROM * highest * min(warp, 1.0)
    source = np.interp(mel2lin(mels[1:-1]), [0.0, knee, highest], [0.0, knee / warp, highest])
    place = ((lin2mel(source) - mels[1]) / (mels[1] - mels[0])).clip(0, num_bins - 1)
    left = place.astype(int).clip(max=num_bins - 2)
    return torch.from_numpy(left), torch.from_numpy(place - left).float()


def spec_augment(config: SpecAugmentConfig) -> SpecAugment:
    """Returns lhotse's SpecAugment for (N, T, F) batches; masked values become the mean of the utterance."""
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
    """Applies SpecAugment, drawn from `key`, to each utterance of a padded (N, T, F) batch, and not to its padding."""
    python_state = random.getstate()  # lhotse draws from the generators of Python, numpy and torch
    numpy_state = np.random.get_state()
    generator = keyed_generator("masks", *key)
    random.seed(generator.getrandbits(64))
    np.random.seed(generator.getrandbits(32))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.getrandbits(63))
        for row, length in zip(features, lengths.tolist(), strict=True):
            if length * masks.max_frames_mask_fraction >= 1:  # else not even one frame may be masked
                row[:length] = masks(row[None, :length])[0]
    random.setstate(python_state)
    np.random.set_state(numpy_state)
    return features
