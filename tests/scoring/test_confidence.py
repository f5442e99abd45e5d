"""Measures of confidences, against their definitions computed word by word."""

import itertools
import math

import numpy as np
import pytest

from asrtool.scoring.confidence import (
    confidence_quality,
    error_rate_of_most_confident,
    expected_calibration_error,
    normalised_cross_entropy,
    words_correct,
)


def random_words(seed: int, count: int = 37) -> tuple[list[float], list[bool]]:
    """Confidences with few different values, so that some are equal, and outcomes that agree with them by and large."""
    draw = np.random.default_rng(seed)
    confidences = draw.choice([0.1, 0.3, 0.35, 0.6, 0.8, 0.95], count)
    return confidences.tolist(), (draw.random(count) < confidences).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_normalised_cross_entropy_is_that_of_its_definition(seed):
    confidences, correct = random_words(seed)
    share = sum(correct) / len(correct)
    most = -sum(math.log2(share if one else 1 - share) for one in correct)
    own = -sum(math.log2(value if one else 1 - value) for value, one in zip(confidences, correct, strict=True))
    assert normalised_cross_entropy(confidences, correct) == pytest.approx((most - own) / most)


def test_normalised_cross_entropy_of_special_cases():
    correct = [True, True, True, False]
    assert normalised_cross_entropy([0.75] * 4, correct) == pytest.approx(0)
    assert normalised_cross_entropy([1, 1, 1, 0], correct) == pytest.approx(1, abs=1e-3)
    assert normalised_cross_entropy([0, 0, 0, 1], correct) < -10  # finite although these are impossible
    for undefined in ([], [True], [False, False]):
        assert normalised_cross_entropy([0.5] * len(undefined), undefined) is None


@pytest.mark.parametrize("count, bins", [(30, 5), (31, 5), (3, 5), (1, 1)])
def test_calibration_error_is_the_mean_difference_of_bins_of_equal_size(count, bins):
    draw = np.random.default_rng(count)
    confidences = draw.random(count).tolist()  # all different
    correct = (draw.random(count) < 0.5).tolist()
    pairs = sorted(zip(confidences, correct, strict=True))
    sizes = [count // bins + (number < count % bins) for number in range(bins)]
    total = 0.0
    remaining = iter(pairs)
    for size in filter(None, sizes):
        own = list(itertools.islice(remaining, size))
        total += size * abs(sum(value for value, _ in own) / size - sum(one for _, one in own) / size)
    assert expected_calibration_error(confidences, correct, bins) == pytest.approx(total / count)


def test_calibration_error_of_special_cases():
    assert expected_calibration_error([], []) == 0
    assert expected_calibration_error([0.75] * 400, ([True] * 3 + [False]) * 100) == pytest.approx(0, abs=1e-9)
    assert expected_calibration_error([1.0] * 10, [False] * 10) == 1


@pytest.mark.parametrize("share", [0.5, 0.75, 0.9, 1.0])
def test_errors_of_the_most_confident_words_are_the_mean_over_the_orders_of_equal_ones(share):
    for seed in range(5):
        confidences, correct = random_words(seed)
        num_kept = math.ceil(share * len(correct))
        draw = np.random.default_rng(seed)
        rates = []
        for _ in range(3000):
            order = sorted(draw.permutation(len(correct)), key=lambda word: -confidences[word])
            rates.append(100 * np.mean([not correct[word] for word in order[:num_kept]]))
        expected = error_rate_of_most_confident(confidences, correct, share)
        assert expected == pytest.approx(np.mean(rates), abs=5 * np.std(rates) / 3000**0.5 + 1e-9)


def test_no_measure_depends_on_the_order_of_the_words():
    confidences, correct = random_words(1)
    order = np.random.default_rng(2).permutation(len(correct))
    first = confidence_quality(confidences, correct)
    second = confidence_quality([confidences[n] for n in order], [correct[n] for n in order])
    assert (first.nce, first.ece) == pytest.approx((second.nce, second.ece))
    assert list(first.error_rates.values()) == pytest.approx(list(second.error_rates.values()))


def test_a_word_is_correct_where_the_alignment_matches_it():
    assert words_correct("a b c", "a x c d") == [True, False, True, False]
    assert words_correct("a b c", "b") == [True]
    assert words_correct("", "a") == [False]
    assert words_correct("a", "") == []
