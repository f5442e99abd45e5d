"""Training of the GMM, and of the transforms of its speakers: speaker-adaptive training.

First all speakers share the features: alignments begin with states of equal length, and are found again while the
number of Gaussians grows. Then transforms of the speakers and Gaussians of transformed frames are estimated in turns,
so that the GMM describes an average speaker, to whom a transform brings a new one (Anastasakos et al. 1996, "A compact
model for speaker-adaptive training"; with transforms of the features, Gales 1998, section 4).
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice

import numpy as np
import torch
from torch import Tensor

from asrtool.data.features import FRAME_SHIFT
from asrtool.errors import DataError
from asrtool.fmllr.gaussians import VARIANCE_FLOOR, GaussianMixtures
from asrtool.fmllr.hmm import align_states, equal_states, is_silence, transcript_hmm
from asrtool.fmllr.transform import (
    TransformStatistics,
    apply_transform,
    estimate_transform,
    identity_transform,
    log_likelihood_gain,
)
from asrtool.fmllr.utterances import Utterance
from asrtool.progress import progress

logger = logging.getLogger(__name__)

NUM_ITERATIONS = 24  # of EM without transforms
ALIGNED_ITERATIONS = {1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 17, 20, 23}  # that find the alignments again first
GROWTH_ITERATIONS = 20  # during which the number of Gaussians grows
NUM_ROUNDS = 3  # of transforms and Gaussians in turns
ROUND_ITERATIONS = 3  # of EM in a round
UTTERANCES_AT_ONCE = 20
# Frames of an average speaker that are added to a speaker's own: with less speech the transform is near the identity.
# Neighbouring frames say nearly the same, so that this is more than it seems.
PRIOR_FRAMES = 10_000.0


@dataclass
class Aligned:
    """An utterance and the state (T,) of each of its frames."""

    utterance: Utterance
    states: Tensor


def train_mixtures(utterances: Sequence[Utterance], num_states: int, num_gaussians: int) -> GaussianMixtures:
    """Returns mixtures of about `num_gaussians` Gaussians for the states of all phones and of silence.

    Raises DataError if no utterance is long enough for its words.
    """
    frames = torch.cat([utterance.frames for utterance in utterances])
    mixtures = GaussianMixtures.of_frames(frames, num_states)
    floor = VARIANCE_FLOOR * frames.var(0)
    del frames
    aligned = [Aligned(item, torch.from_numpy(equal_states(item.words, len(item.frames)))) for item in utterances]
    for iteration in progress(range(NUM_ITERATIONS), "training of the GMM", NUM_ITERATIONS, "iterations"):
        if iteration in ALIGNED_ITERATIONS:
            aligned = align_utterances(mixtures, utterances)
        if not aligned:
            raise DataError("no utterance is long enough for its words", [item.id for item in utterances[:10]])
        posteriors = _reestimate(mixtures, [item.utterance.frames for item in aligned], aligned, floor)
        share = min(1.0, (iteration + 1) / GROWTH_ITERATIONS)
        mixtures.split(round(num_states + share * (num_gaussians - num_states)), posteriors)
    return mixtures


def align_utterances(
    mixtures: GaussianMixtures, utterances: Iterable[Utterance], transforms: Mapping[str, Tensor] | None = None
) -> list[Aligned]:
    """Returns the most likely states of the utterances that are long enough for their words."""
    aligned = []
    for utterance in utterances:
        frames = apply_transform(transforms[utterance.key], utterance.frames) if transforms else utterance.frames
        states = align_states(mixtures, frames, transcript_hmm(utterance.words))
        if states is not None:
            aligned.append(Aligned(utterance, torch.from_numpy(states)))
    return aligned


def train_with_transforms(
    mixtures: GaussianMixtures, utterances: Sequence[Utterance], num_gaussians: int
) -> TransformStatistics:
    """Trains the mixtures and transforms of the speakers in turns; returns the statistics of an average speaker.

    Raises DataError if there are fewer frames of speech than a row of a transform has numbers.
    """
    transforms: dict[str, Tensor] = {}
    for _ in range(NUM_ROUNDS):
        sums, average = speaker_statistics(mixtures, utterances, transforms)
        _require_speech(average)
        transforms = estimate_transforms(sums, average, transforms)
        _train_on_transformed(mixtures, utterances, transforms, num_gaussians)
    _, average = speaker_statistics(mixtures, utterances, transforms)
    return average


def _require_speech(average: TransformStatistics) -> None:
    dims, columns = average.linear.shape
    if average.num_frames < columns:
        speech = f"{average.num_frames * FRAME_SHIFT:.2f} s of speech, and a transform of {dims} cepstra needs"
        needed = f"{columns * FRAME_SHIFT:.2f} s at least, and minutes to be useful"
        raise DataError(f"the training set has {speech} {needed}; give a larger one", [])


def speaker_statistics(
    mixtures: GaussianMixtures, utterances: Iterable[Utterance], transforms: Mapping[str, Tensor]
) -> tuple[dict[str, TransformStatistics], TransformStatistics]:
    """Returns the statistics of the speech of each speaker, by the keys of the transforms, and of an average speaker.

    The words are aligned with frames under the `transforms` (D, D + 1) that are known so far; others are the identity.
    The average speaker has all frames under their transforms, for which the identity is about the best transform.
    Utterances of the same speaker that follow each other are taken together.
    """
    dims = mixtures.means.shape[1]
    sums: dict[str, TransformStatistics] = {}
    average = TransformStatistics.zeros(dims)
    for key, group in groupby(utterances, key=lambda utterance: utterance.key):
        transform = transforms.get(key, identity_transform(dims))
        own = sums.setdefault(key, TransformStatistics.zeros(dims))
        for some in _batched((utterance for utterance in group if utterance.words), UTTERANCES_AT_ONCE):
            aligned = align_utterances(mixtures, some, {key: transform})
            if aligned:
                frames = torch.cat([item.utterance.frames for item in aligned])
                states = torch.cat([item.states for item in aligned])
                speech = ~is_silence(states)
                frames, states = frames[speech], states[speech]
                transformed = apply_transform(transform, frames)
                expected = mixtures.expected_precisions(transformed, states)
                own.add(frames, *expected)
                average.add(transformed, *expected)
    return sums, average


def estimate_transforms(
    sums: Mapping[str, TransformStatistics],
    average: TransformStatistics,
    initial: Mapping[str, Tensor],
    prior_frames: float = PRIOR_FRAMES,
) -> dict[str, Tensor]:
    """Returns the transform (D, D + 1) of each speaker, from statistics smoothed with `prior_frames` average frames.

    It is the identity without frames of a speaker, and where the estimate makes the speaker's own frames less likely or
    does not exist, as with very little speech; a warning names these speakers.
    """
    transforms = {}
    gains: list[float] = []
    silent: list[str] = []
    failed: list[str] = []
    for key, own in sums.items():
        transforms[key] = identity_transform(len(own.linear))
        if not own.num_frames:
            silent.append(key)
            continue
        try:
            start = initial.get(key, transforms[key])
            transform = estimate_transform(own.smoothed(average, prior_frames), start)
        except torch.linalg.LinAlgError:  # the frames do not span all dimensions
            failed.append(key)
            continue
        gain = log_likelihood_gain(own, transform)
        if gain >= 0:  # not so for NaN
            transforms[key] = transform
            gains.append(gain)
        else:
            failed.append(key)
    if gains:
        logger.info(
            f"{len(gains)} transforms make frames {np.mean(gains):.2f} nats more likely, {min(gains):.2f} at least"
        )
    if silent:
        logger.warning(f"no words to estimate the transforms of {', '.join(silent)}; their features do not change")
    if failed:
        problem = f"too little speech for the transforms of {', '.join(failed)}, which would make it less likely"
        logger.warning(f"{problem}; their features do not change")
    return transforms


def _batched(items: Iterable[Utterance], size: int) -> Iterator[list[Utterance]]:
    """Yields lists of `size` items, in order; the last may be shorter."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch


def _train_on_transformed(
    mixtures: GaussianMixtures, utterances: Sequence[Utterance], transforms: Mapping[str, Tensor], num_gaussians: int
) -> None:
    aligned = align_utterances(mixtures, utterances, transforms)
    frames = [apply_transform(transforms[item.utterance.key], item.utterance.frames) for item in aligned]
    floor = VARIANCE_FLOOR * torch.cat(frames).var(0)
    for _ in range(ROUND_ITERATIONS):
        posteriors = _reestimate(mixtures, frames, aligned, floor)
        mixtures.split(num_gaussians, posteriors)


def _reestimate(
    mixtures: GaussianMixtures, frames: Sequence[Tensor], aligned: Sequence[Aligned], floor: Tensor
) -> Tensor:
    """Runs one iteration of EM on frames (T, D) with known states; returns the posteriors of the Gaussians (M,)."""
    sums = mixtures.statistics(torch.cat(list(frames)), torch.cat([item.states for item in aligned]))
    logger.debug(f"{len(mixtures)} Gaussians: {sums.log_likelihood / sums.num_frames:.3f} nats a frame")
    return mixtures.update(sums, floor)
