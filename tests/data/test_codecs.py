"""Codecs and filters keep length and time, and remove what they should."""

import random

import numpy as np
import pytest

from asrtool.config_data import CodecConfig
from asrtool.data.codecs import COMPRESSION, draw_compression, through_codec, through_lowpass, through_telephone
from tests.tiny import tone

ALL = ("gsm", "mulaw", "mp3", "opus", "vorbis")


def band_level(samples, rate, low, high) -> float:
    """Energy between two frequencies in dB."""
    spectrum = np.square(np.abs(np.fft.rfft(samples))) / len(samples) ** 2
    return 10 * np.log10(spectrum[round(low / rate * len(samples)) : round(high / rate * len(samples))].sum() + 1e-20)


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize("codec", ALL)
def test_a_codec_keeps_length_time_and_most_of_the_sound(codec, rate):
    samples = np.concatenate([np.zeros(rate // 2, np.float32), tone(440, 1.0, rate=rate)])[: rate + 123]
    compressions = COMPRESSION.get(codec, (None,))
    decoded = [through_codec(samples, rate, codec, compression) for compression in compressions]
    for result in decoded:
        assert result.shape == samples.shape and result.dtype == np.float32
        loudest = np.abs(result) > 0.1
        assert loudest.argmax() == pytest.approx(rate // 2, abs=0.02 * rate)  # no delay
        assert band_level(result[-rate // 4 :], rate, 400, 480) == pytest.approx(
            band_level(samples[-rate // 4 :], rate, 400, 480), abs=1.5
        )
        assert not np.array_equal(result, samples)
    if len(decoded) == 2:  # the higher compression loses more
        errors = [np.square(result - samples).sum() for result in decoded]
        assert errors[0] < errors[1]


@pytest.mark.parametrize("codec", ALL)
def test_samples_beyond_full_scale_are_not_clipped(codec):
    samples = 10 * tone(300, 0.5)
    decoded = through_codec(samples, 16000, codec, draw_compression(codec, random.Random(1)))
    assert np.abs(decoded).max() == pytest.approx(np.abs(samples).max(), rel=0.2)


def test_drawn_compressions_are_accepted_by_the_encoder():
    for number in range(5):
        for codec in CodecConfig().codecs:
            through_codec(tone(300, 0.1), 16000, codec, draw_compression(codec, random.Random(number)))


def test_very_short_audio_passes_through_everything():
    for samples in (np.full(140, 0.1, np.float32), np.zeros(3, np.float32)):
        for codec in ALL:
            assert (
                through_codec(samples, 16000, codec, draw_compression(codec, random.Random(1))).shape == samples.shape
            )
        assert through_telephone(samples, 16000).shape == samples.shape
        assert through_lowpass(samples, 16000, 2000.0).shape == samples.shape


def test_a_telephone_passes_300_to_3400_hz():
    noise = np.random.default_rng(1).normal(0, 0.1, 32000).astype(np.float32)
    result = through_telephone(noise, 16000)
    loss = [band_level(noise, 16000, *band) - band_level(result, 16000, *band) for band in BANDS]
    assert loss[1] < 1 and loss[0] > 15 and loss[2] > 40
    assert result.shape == noise.shape


BANDS = [(20, 120), (500, 3000), (4200, 7900)]  # Hz


@pytest.mark.parametrize("cutoff", [1000.0, 4000.0, 100_000.0])
def test_a_low_pass_attenuates_above_its_cutoff_and_delays_nothing(cutoff):
    noise = np.random.default_rng(1).normal(0, 0.1, 32000).astype(np.float32)
    result = through_lowpass(noise, 16000, cutoff)
    below = (100, cutoff / 2) if cutoff < 8000 else (100, 6000)
    assert band_level(noise, 16000, *below) - band_level(result, 16000, *below) < 1
    if cutoff < 4000:
        octave = (2 * cutoff, 2.2 * cutoff)
        assert band_level(noise, 16000, *octave) - band_level(result, 16000, *octave) > 20
    assert np.correlate(result, noise[100:-100], "valid").argmax() == 100
