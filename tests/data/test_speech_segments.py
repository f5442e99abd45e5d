import numpy as np
import pytest

from asrtool.data.segment_planning import SegmentationPolicy
from asrtool.data.speech_detection import WINDOW, SpeechDetector, create_detector, energy_detector
from asrtool.data.speech_segments import segment_recording
from tests.data.voice import pauses_and_voice

RATES = [8000, 11_025, 16_000, 44_100]
WINDOW_SECONDS = WINDOW / 16_000


class Loudness:
    """A stream that takes windows louder than -40 dB for speech, `delay` windows later."""

    def __init__(self, delay: int):
        self.delay = delay
        self.values = np.zeros(0, np.float32)

    def accept(self, windows):
        self.values = np.append(self.values, (windows**2).mean(axis=1) > 1e-4)
        count = max(0, len(self.values) - self.delay)
        ready, self.values = self.values[:count], self.values[count:]
        return ready

    def finish(self):
        ready, self.values = self.values, self.values[:0]
        return ready


def loudness(delay: int = 0) -> SpeechDetector:
    return SpeechDetector("loudness", lambda: Loudness(delay))


def noise_and_pauses(seed: int, rate: int, runs) -> np.ndarray:
    """Alternating noise and the hiss of a quiet room, of so many seconds."""
    draw = np.random.default_rng(seed)
    levels = [0.3, 0.001]
    parts = [levels[i % 2] * draw.uniform(-1, 1, round(seconds * rate)) for i, seconds in enumerate(runs)]
    return np.concatenate(parts).astype(np.float32)


def in_blocks(samples: np.ndarray, seed: int = 0):
    draw = np.random.default_rng(seed)
    while len(samples):
        size = int(draw.integers(1, 20_000))
        yield samples[:size]
        samples = samples[size:]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("delay", [0, 90])
@pytest.mark.parametrize("seed", range(5))
def test_segments_are_the_samples_of_the_recording_at_their_times(rate, delay, seed):
    runs = np.random.default_rng(seed).choice([0.2, 0.5, 3.0, 15.0], 12)
    samples = noise_and_pauses(seed, rate, runs)
    covered = np.zeros(len(samples), bool)
    end = 0.0
    for segment in segment_recording(in_blocks(samples, seed), rate, 6.0, loudness(delay)):
        first = round(segment.start * rate)
        np.testing.assert_array_equal(segment.samples, samples[first : first + len(segment.samples)])
        assert 0 < len(segment.samples) <= 6.0 * rate + 1
        if segment.start + segment.overlap < end - 1.5 / rate:  # both have the pause
            assert np.abs(samples[first : round(end * rate)]).max() < 0.01
        assert not segment.overlap or segment.start + segment.overlap == pytest.approx(end, abs=1.5 / rate)
        covered[first : first + len(segment.samples)] = True
        end = segment.start + len(segment.samples) / rate
    assert not np.abs(samples[~covered]).max(initial=0.0) > 0.1


def test_samples_are_kept_no_longer_than_needed():
    """Of an hour of audio, one block at a time, never more than a few segments are in memory."""
    import tracemalloc

    rate, block = 8000, noise_and_pauses(0, 8000, [1.0])
    tracemalloc.start()
    blocks = (block * (second % 20 < 13) for second in range(600))
    count = sum(1 for _ in segment_recording(blocks, rate, 10.0, loudness()))
    assert count > 50
    assert tracemalloc.get_traced_memory()[1] < 12 * 10.0 * rate * block.itemsize
    tracemalloc.stop()


@pytest.mark.parametrize("detector", ["best", "energy"])
@pytest.mark.parametrize("rate", [8000, 16_000])
def test_a_voice_is_whole_within_segments_that_are_cut_in_its_pauses(detector, rate):
    pauses = [1.0, 0.6, 0.6, 4.0, 0.5, 0.7]
    samples, is_voice = pauses_and_voice(seed=1, pauses=pauses, seconds=2.5)
    step = 16_000 // rate
    samples, is_voice = samples[::step], is_voice[::step]
    found = list(
        segment_recording(
            in_blocks(samples), rate, 8.0, energy_detector() if detector == "energy" else create_detector()
        )
    )
    covered = np.zeros(len(samples), bool)
    for segment in found:
        assert segment.overlap == 0
        first = round(segment.start * rate)
        end = first + len(segment.samples)
        covered[first:end] = True
        near = round(0.05 * rate)
        assert not is_voice[first : first + near].any()
        assert end == len(samples) or not is_voice[end - near : end].any()
    assert covered[is_voice].all()
    assert len(found) <= 4


def test_a_voice_without_a_pause_overlaps():
    samples, _ = pauses_and_voice(seed=2, pauses=[0.0], seconds=25.0)
    found = list(segment_recording(in_blocks(samples), 16_000, 8.0, create_detector()))
    assert all(1.9 <= segment.overlap <= 2.0 for segment in found[1:])
    assert len(found) <= 6


def test_silence_has_no_segment():
    for samples in (np.zeros(80_000, np.float32), np.zeros(0, np.float32)):
        assert list(segment_recording(in_blocks(samples), 16_000, 8.0, create_detector())) == []


def test_a_policy_changes_where_segments_end():
    samples = noise_and_pauses(0, 16_000, [2.0, 1.0, 2.0])
    assert len(list(segment_recording([samples], 16_000, 8.0, loudness()))) == 1
    assert len(list(segment_recording([samples], 16_000, 8.0, loudness(), SegmentationPolicy(long_pause=0.8)))) == 2
