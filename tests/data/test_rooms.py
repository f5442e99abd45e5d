"""Simulated rooms have the acoustics that were asked for, and reverberation keeps energy and time."""

import numpy as np
import pytest

from asrtool.data.rooms import reverberate, simulate_response, trim_response

RATE = 16000


def decay_seconds(response: np.ndarray) -> float:
    """The reverberation time of a response, from its energy decay between -5 and -25 dB (ISO 3382)."""
    energy = np.cumsum(np.square(response[1:], dtype=np.float64)[::-1])[::-1]
    decibels = 10 * np.log10(energy / energy[0] + 1e-12)
    return 3 * float(np.argmax(decibels < -25) - np.argmax(decibels < -5)) / RATE


@pytest.mark.parametrize("t60", [0.1, 0.4, 1.5])
def test_a_simulated_room_has_its_reverberation_time(t60):
    responses = [simulate_response(RATE, t60, 2.0, np.random.default_rng(n), volume=100.0) for n in range(5)]
    assert np.mean([decay_seconds(response) for response in responses]) == pytest.approx(t60, rel=0.1)


def test_the_ratio_of_direct_sound_to_reverberation_is_that_of_the_room():
    """Both are equal at the critical distance, 0.057 * sqrt(V / T60) by Sabine's formula."""
    volume, t60 = 200.0, 0.5
    critical = 0.057 * np.sqrt(volume / t60)
    for distance in (critical / 4, critical):
        ratios = []
        for number in range(10):
            response = simulate_response(RATE, t60, distance, np.random.default_rng(number), volume)
            ratios.append(-10 * np.log10(np.square(response[1:], dtype=np.float64).sum()))
        assert np.mean(ratios) == pytest.approx(20 * np.log10(critical / distance), abs=2.5)


def test_reverberation_keeps_length_energy_and_the_time_of_the_direct_sound():
    samples = np.zeros(RATE, np.float32)
    samples[5000] = 0.5
    response = simulate_response(RATE, 0.3, 1.0, np.random.default_rng(1))
    wet = reverberate(samples, response)
    assert wet.shape == samples.shape and np.abs(wet).argmax() == 5000
    assert np.abs(wet[:4990]).max() < 1e-6 < np.abs(wet[5100:7000]).max()
    assert np.square(wet).sum() == pytest.approx(np.square(samples).sum(), rel=1e-4)


def test_silence_and_silent_responses_change_nothing():
    noise = np.random.default_rng(1).normal(size=500).astype(np.float32)
    assert not reverberate(np.zeros(500, np.float32), np.ones(3, np.float32)).any()
    assert np.array_equal(reverberate(noise, np.zeros(10, np.float32)), noise)


def test_a_recorded_response_begins_at_its_direct_sound():
    response = np.zeros(4000, np.float32)
    response[[1000, 1500]] = -1.0, 0.5
    trimmed, peak = trim_response(response, RATE)
    assert peak == 32 and trimmed[peak] == -1.0 and len(trimmed) == 4000 - 1000 + 32
