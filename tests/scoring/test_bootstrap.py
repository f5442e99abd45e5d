"""The bootstrap of error rates, of few utterances and of many."""

import numpy as np
import pytest

from asrtool.scoring import bootstrap
from asrtool.scoring.bootstrap import bootstrap_rates, interval_half_width


def utterances(count, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 30, count)
    return rng.binomial(lengths, 0.2) - rng.binomial(lengths, 0.1), lengths  # differences of two systems


def test_the_rates_of_many_utterances_are_spread_like_those_of_single_draws(monkeypatch):
    errors, lengths = utterances(1000)
    drawn = bootstrap_rates(errors, lengths)
    monkeypatch.setattr(bootstrap, "MAX_ITEMS", 100)
    counted = bootstrap_rates(errors, lengths)
    assert drawn.shape == counted.shape == (bootstrap.REPLICATIONS,) and not np.array_equal(drawn, counted)
    assert counted.mean() == pytest.approx(100 * errors.sum() / lengths.sum(), abs=0.03)
    assert interval_half_width(counted) == pytest.approx(interval_half_width(drawn), rel=0.03)
    assert np.percentile(counted, [5, 95]) == pytest.approx(np.percentile(drawn, [5, 95]), abs=0.1)


def test_a_hundred_thousand_utterances_need_little_memory(monkeypatch):
    sizes = []
    monkeypatch.setattr(bootstrap, "REPLICATIONS", 50)
    monkeypatch.setattr(bootstrap, "MAX_SAMPLES_AT_ONCE", 10_000)
    unique = np.unique
    monkeypatch.setattr(np, "unique", lambda *a, **k: sizes.append(unique(*a, **k)) or sizes[-1])
    errors, lengths = utterances(100_000)
    assert len(bootstrap_rates(errors, lengths)) == 50
    assert sizes[0][0].shape[1] < 1000  # pairs that are drawn, instead of utterances


def test_replications_without_reference_words_are_left_out(monkeypatch):
    errors, lengths = np.array([1, 0, 0]), np.array([2, 0, 0])
    for limit in (10_000, 1):
        monkeypatch.setattr(bootstrap, "MAX_ITEMS", limit)
        rates = bootstrap_rates(errors, lengths)
        assert 0 < len(rates) < bootstrap.REPLICATIONS and set(rates) == {50.0}
