"""The estimate of the signal-to-noise ratio: close to the truth on bursts of a tone in noise."""

import numpy as np
import pytest

from asrtool.data.snr import estimate_snr

RATE = 16_000


def bursts(snr_db, seconds=4.0, rate=RATE):
    """Returns a tone that is on and off for 0.4 s each, in white noise; the SNR is of the time when it is on."""
    time = np.arange(round(seconds * rate)) / rate
    tone = 0.1 * np.sqrt(2) * np.sin(2 * np.pi * 440 * time) * ((time // 0.4) % 2 == 0)
    noise = np.random.default_rng(0).normal(0, 0.1 * 10 ** (-snr_db / 20), len(time))
    return (tone + noise).astype(np.float32)


@pytest.mark.parametrize("rate", [8000, 16_000, 48_000])
@pytest.mark.parametrize("snr", [5, 20, 40])
def test_the_estimate_is_within_two_decibels_of_the_truth(snr, rate):
    assert estimate_snr(bursts(snr, rate=rate), rate) == pytest.approx(snr, abs=2)


def test_padding_with_digital_silence_does_not_change_the_estimate():
    speech = bursts(20)
    padded = np.concatenate([np.zeros(RATE, np.float32), speech])
    assert estimate_snr(padded, RATE) == pytest.approx(estimate_snr(speech, RATE), abs=0.5)


@pytest.mark.parametrize("samples", [np.zeros(RATE), np.zeros(0), bursts(20)[: RATE // 4]])
def test_silence_and_short_audio_have_none(samples):
    assert estimate_snr(samples, RATE) is None
