"""Speaker-adaptive training on frames that are drawn from known states, which each speaker distorts."""

import numpy as np
import pytest
import torch

from asrtool.errors import DataError
from asrtool.fmllr.hmm import STATES_PER_PHONE, num_hmm_states
from asrtool.fmllr.train import (
    align_utterances,
    estimate_transforms,
    speaker_statistics,
    train_mixtures,
    train_with_transforms,
)
from asrtool.fmllr.transform import (
    TransformStatistics,
    apply_transform,
    identity_transform,
    log_likelihood_gain,
)
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


@pytest.mark.parametrize("count", range(1, 3 * DIMS))
@pytest.mark.parametrize("content", ["speech", "constant"])
def test_a_speaker_with_very_little_speech_gets_no_transform_that_makes_it_less_likely(trained, capsys, count, content):
    mixtures, _ = trained
    utterance, states = speak(99, 9900)
    frames = utterance.frames[:count] if content == "speech" else torch.ones(count, DIMS)
    sums = TransformStatistics.zeros(DIMS)
    sums.add(frames, *mixtures.expected_precisions(frames, torch.from_numpy(states[:count])))
    transform = estimate_transforms({"x": sums}, sums, {})["x"]
    gain = log_likelihood_gain(sums, transform)
    assert gain >= 0 and torch.isfinite(transform).all()
    if content == "constant" or count <= DIMS:
        assert torch.equal(transform, identity_transform(DIMS))
        assert "too little speech for the transforms of x" in capsys.readouterr().err


@pytest.mark.parametrize("keep", [1, 2])
def test_a_training_set_with_less_speech_than_a_transform_needs_is_refused(keep):
    words = [[[1]]]
    states = num_hmm_states(1)
    frames = torch.randn(states * keep, 4 * states * keep, generator=torch.Generator().manual_seed(1))
    utterances = [Utterance("short", "s", words, frames)]
    mixtures = train_mixtures(utterances, num_hmm_states(2), 6)
    with pytest.raises(
        DataError, match=r"has 0\.\d\d s of speech, and a transform of \d+ cepstra needs 0\.\d\d s at least"
    ):
        train_with_transforms(mixtures, utterances, 6)
