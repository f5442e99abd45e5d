"""The learning rate at the corners of every schedule."""

import pytest

from asrtool.config import Config, Training
from asrtool.training.schedule import learning_rate

DECAYS = ["linear", "cosine", "inverse_sqrt", "none"]


def schedule(decay, warmup=10, steps=110, lr=2.0):
    config = Config(training=Training(lr=lr, decay=decay, warmup_steps=warmup, max_steps=steps))
    return lambda step: learning_rate(config, step)


@pytest.mark.parametrize("decay", DECAYS)
def test_warmup_is_linear_from_nothing_to_the_peak(decay):
    rate = schedule(decay)
    assert [rate(step) for step in (1, 5, 10)] == pytest.approx([0.2, 1.0, 2.0])


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("warmup", [0, 10])
def test_the_rate_never_rises_after_the_peak_and_no_step_is_wasted(decay, warmup):
    rates = [schedule(decay, warmup)(step) for step in range(max(warmup, 1), 111)]
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] <= rates[0] <= 2.0 and rates[0] > 1.9


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_linear_and_cosine_are_half_way_in_the_middle_and_zero_after_the_last_step(decay):
    rate = schedule(decay, steps=109)
    assert rate(60) == pytest.approx(1.0)
    assert rate(110) == pytest.approx(0.0, abs=1e-12) and rate(1000) == pytest.approx(0.0, abs=1e-12)


def test_inverse_sqrt_halves_at_four_times_the_warmup():
    assert [schedule("inverse_sqrt")(step) for step in (40, 90)] == pytest.approx([1.0, 2 / 3])


def test_without_decay_the_rate_stays():
    assert {schedule("none")(step) for step in (10, 11, 110, 1000)} == {2.0}


def test_without_decay_the_warmup_may_outlast_the_training():
    assert schedule("none", warmup=100, steps=50)(50) == pytest.approx(1.0)
