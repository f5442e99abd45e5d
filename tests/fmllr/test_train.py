"""Speaker-adaptive training on frames that are drawn from known states, which each speaker distorts."""

import numpy as np
import pytest
import torch

from asrtool.fmllr.hmm import STATES_PER_PHONE, num_hmm_states
from asrtool.fmllr.train import (
    align_utterances,
    estimate_transforms,
    speaker_statistics,
    train_mixtures,
    train_with_transforms,
)
from asrtool.fmllr.transform import apply_transform
from asrtool.fmllr.utterances import Utterance

DIMS = 6
PHONES = 4  # and the blank, whose states are silence
MEANS = 2.5 * np.random.default_rng(1).standard_normal((num_hmm_states(PHONES + 1), DIMS))


def distortion(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the matrix and the offset by which a speaker changes all frames."""
    draw = np.random.default_rng(seed)
    return np.eye(DIMS) + 0.25 * draw.standard_normal((DIMS, DIMS)), draw.standard_normal(DIMS)


def speak(speaker: int, seed: int) -> tuple[Utterance, np.ndarray]:
    """Returns an utterance of eight words of two phones between silences, and the true state of each frame."""
    draw = np.random.default_rng(seed)
    words = [[list(map(int, draw.integers(1, PHONES + 1, 2)))] for _ in range(8)]
    units = [0, *(unit for (pronunciation,) in words for unit in pronunciation), 0]
    sequence = [STATES_PER_PHONE * unit + offset for unit in units for offset in range(STATES_PER_PHONE)]
    states = np.repeat(sequence, draw.integers(2, 6, len(sequence)))
    matrix, offset = distortion(speaker)
    frames = (MEANS[states] + draw.standard_normal((len(states), DIMS))) @ matrix.T + offset
    return Utterance(f"{speaker}-{seed}", str(speaker), words, torch.from_numpy(frames).float()), states


@pytest.fixture(scope="module")
def trained():
    """Mixtures that were trained with four speakers, and the statistics of an average one."""
    utterances = [speak(speaker, 100 * speaker + number)[0] for speaker in range(4) for number in range(10)]
    mixtures = train_mixtures(utterances, len(MEANS), 60)
    return mixtures, train_with_transforms(mixtures, utterances, 60)


def test_a_transform_makes_a_new_speaker_s_states_recognisable(trained):
    mixtures, average = trained
    spoken = [speak(99, 9900 + number) for number in range(10)]
    utterances = [utterance for utterance, _ in spoken]
    transforms = {}
    for _ in range(2):
        sums, _ = speaker_statistics(mixtures, utterances, transforms)
        transforms = estimate_transforms(sums, average, transforms, prior_frames=200.0)
    errors = {"before": 0.0, "after": 0.0}
    for utterance, states in spoken:
        for name, frames in (
            ("before", utterance.frames),
            ("after", apply_transform(transforms["99"], utterance.frames)),
        ):
            found = mixtures.state_log_likelihoods(frames).argmax(1).numpy()
            errors[name] += float((found != states).mean()) / len(spoken)
    assert errors["after"] < 0.6 * errors["before"]


def test_the_mixtures_align_the_training_speakers(trained):
    mixtures, _ = trained
    assert {state for state in mixtures.states.tolist()} == set(range(len(MEANS)))
    utterance, _ = speak(0, 7)
    (aligned,) = align_utterances(mixtures, [utterance])
    assert len(aligned.states) == len(utterance.frames)
    short = Utterance("short", "0", utterance.words, utterance.frames[:10])
    assert align_utterances(mixtures, [short]) == []
    assert speaker_statistics(mixtures, [short], {})[0]["0"].num_frames == 0
