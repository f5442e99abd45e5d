import numpy as np
import pytest

from asrtool.data.resampling import StreamResampler, rate_warning

RATES = [(8000, 16000), (16000, 8000), (11025, 16000), (22050, 16000), (44100, 16000), (48000, 16000), (16000, 16000)]


def resample(samples, from_rate, to_rate, sizes) -> np.ndarray:
    resampler = StreamResampler(from_rate, to_rate)
    outputs, position = [], 0
    while position < len(samples):
        size = int(sizes())
        outputs.append(resampler.accept(samples[position : position + size]))
        position += size
    return np.concatenate([*outputs, resampler.finish()])


@pytest.mark.parametrize(("from_rate", "to_rate"), RATES)
@pytest.mark.parametrize("length", [0, 1, 777, 50_001])
def test_the_length_is_that_of_the_input_whatever_the_sizes_of_blocks(from_rate, to_rate, length):
    draw = np.random.default_rng(length)
    samples = draw.uniform(-0.5, 0.5, length).astype(np.float32)
    random_blocks = resample(samples, from_rate, to_rate, lambda: draw.integers(1, 5000))
    one_block = resample(samples, from_rate, to_rate, lambda: max(1, length))
    assert abs(len(one_block) - length * to_rate / from_rate) <= 0.5
    np.testing.assert_allclose(random_blocks, one_block, atol=1e-5)


@pytest.mark.parametrize(("from_rate", "to_rate"), RATES)
@pytest.mark.parametrize("seconds", [0.0, 0.1, 1.25, 2.9])
def test_a_click_keeps_its_time(from_rate, to_rate, seconds):
    samples = np.zeros(3 * from_rate, np.float32)
    click = round(seconds * from_rate)
    samples[click] = 0.9
    output = resample(samples, from_rate, to_rate, lambda: 4096)
    assert abs(np.abs(output).argmax() / to_rate - click / from_rate) <= 0.5 / min(from_rate, to_rate)


def test_a_tone_keeps_its_phase_over_ten_minutes():
    from_rate, to_rate, seconds = 44_100, 16_000, 600
    resampler = StreamResampler(from_rate, to_rate)
    phases = []
    for second in range(seconds):
        time = second + np.arange(from_rate) / from_rate
        output = resampler.accept(np.sin(2 * np.pi * 440 * time).astype(np.float32))
        phases.append(output)
    output = np.concatenate([*phases, resampler.finish()])
    expected = np.sin(2 * np.pi * 440 * np.arange(len(output)) / to_rate)
    middle = slice(to_rate, -to_rate)  # the filter sees the edges as silence
    assert len(output) == seconds * to_rate
    assert np.abs(output - expected)[middle].max() < 1e-3


def test_audio_of_a_lower_rate_than_the_models_has_a_warning():
    assert rate_warning(16000, 16000) is None and rate_warning(48000, 16000) is None
    assert rate_warning(8000, 16000).startswith("audio of 8000 Hz has nothing above 4000 Hz; the model is of 16000 Hz")
