"""Measures of the confidences of utterances, against their definitions."""

import math

import numpy as np
import pytest

from asrtool.scoring.utterance_confidence import (
    UtteranceErrors,
    utterance_errors,
    utterance_quality,
    wer_of_most_confident,
)


def random_utterances(seed: int, count: int = 23) -> tuple[list[float], list[UtteranceErrors]]:
    """Utterances with few different confidences, and errors that agree with these by and large."""
    draw = np.random.default_rng(seed)
    confidences = draw.choice([0.2, 0.5, 0.55, 0.9], count)
    words = draw.integers(1, 20, count)
    return confidences.tolist(), [
        UtteranceErrors(int(draw.binomial(n, 1 - confidence)), int(n))
        for n, confidence in zip(words, confidences, strict=True)
    ]


@pytest.mark.parametrize("ref, hyp, errors, accuracy", [
    ("a b c d", "a b c d", 0, 1), ("a b c d", "a x c", 2, 0.5), ("a", "b c", 2, 0), ("a b", "a b c", 1, 0.5),
    ("a b", "", 2, 0), ("", "a", 1, 0), ("", "", 0, 1),
])  # fmt: skip
def test_accuracy_is_one_minus_the_error_rate_and_not_negative(ref, hyp, errors, accuracy):
    outcome = utterance_errors(ref, hyp)
    assert (outcome.errors, outcome.words, outcome.accuracy) == (errors, len(ref.split()), accuracy)


@pytest.mark.parametrize("share", [0.5, 0.75, 0.9, 1.0])
def test_the_wer_of_the_most_confident_utterances_does_not_depend_on_their_order(share):
    for seed in range(5):
        confidences, outcomes = random_utterances(seed)
        num_kept = math.ceil(share * len(outcomes))
        draw = np.random.default_rng(seed)
        errors = words = 0
        for _ in range(4000):
            order = sorted(draw.permutation(len(outcomes)), key=lambda one: -confidences[one])
            errors += sum(outcomes[one].errors for one in order[:num_kept])
            words += sum(outcomes[one].words for one in order[:num_kept])
        expected = wer_of_most_confident(confidences, outcomes, share)
        assert expected == pytest.approx(100 * errors / words, rel=0.02)
        shuffled = draw.permutation(len(outcomes))
        again = [confidences[one] for one in shuffled], [outcomes[one] for one in shuffled]
        assert wer_of_most_confident(*again, share) == pytest.approx(expected)


def test_perfect_confidences_have_no_calibration_error_and_a_correlation_of_one():
    _, outcomes = random_utterances(1)
    quality = utterance_quality([outcome.accuracy for outcome in outcomes], outcomes)
    assert quality.expected == quality.accuracy == pytest.approx(np.mean([outcome.accuracy for outcome in outcomes]))
    assert quality.ece == pytest.approx(0, abs=1e-12) and quality.correlation == pytest.approx(1)
    reverse = utterance_quality([1 - outcome.accuracy for outcome in outcomes], outcomes)
    assert reverse.correlation == pytest.approx(-1) and reverse.ece > 0.1
    assert quality.error_rates[0.5] < reverse.error_rates[0.5]


def test_equal_confidences_have_no_correlation():
    _, outcomes = random_utterances(2)
    assert utterance_quality([0.5] * len(outcomes), outcomes).correlation is None
    assert utterance_quality([0.1, 0.9], [UtteranceErrors(0, 1)] * 2).correlation is None
    assert wer_of_most_confident([0.5], [UtteranceErrors(1, 0)], 0.5) == 0
