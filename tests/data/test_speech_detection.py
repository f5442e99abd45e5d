import builtins
import importlib.util

import numpy as np
import pytest
import torch

from asrtool.data import speech_detection
from asrtool.data.speech_detection import RATE, WINDOW, create_detector, energy_detector, silero_detector
from tests.data.voice import pauses_and_voice

has_silero = pytest.mark.skipif(importlib.util.find_spec("silero_vad") is None, reason="silero-vad is not installed")


def probabilities(detector, samples: np.ndarray, sizes=lambda: 64) -> np.ndarray:
    """The probabilities of all complete windows, given in batches of some windows each."""
    windows = samples[: len(samples) // WINDOW * WINDOW].reshape(-1, WINDOW)
    stream, outputs, position = detector.stream(), [], 0
    while position < len(windows):
        size = int(sizes())
        outputs.append(stream.accept(windows[position : position + size]))
        position += size
    return np.concatenate([*outputs, stream.finish()])


@pytest.fixture(params=["silero-vad", "silero-vad by torch", "energy"])
def detector(request, monkeypatch):
    if request.param == "energy":
        return energy_detector()
    silero_vad = pytest.importorskip("silero_vad")
    if request.param.endswith("torch"):
        load = silero_vad.load_silero_vad
        monkeypatch.setattr(silero_vad, "load_silero_vad", lambda: load())  # a version without the faster network
    return silero_detector()


def test_there_is_one_probability_for_each_window_whatever_the_batches(detector):
    samples, _ = pauses_and_voice(seed=1, pauses=[1.0, 2.0, 0.5])
    draw = np.random.default_rng(0)
    at_random = probabilities(detector, samples, lambda: draw.integers(1, 50))
    assert at_random.shape == (len(samples) // WINDOW,)
    assert ((at_random >= 0) & (at_random <= 1)).all()
    np.testing.assert_allclose(at_random, probabilities(detector, samples), atol=1e-4)


def test_a_stream_does_not_see_the_previous_recording(detector):
    samples, _ = pauses_and_voice(seed=2, pauses=[0.5])
    np.testing.assert_array_equal(probabilities(detector, samples), probabilities(detector, samples))


@pytest.mark.parametrize("noise_db", [-70.0, -45.0])
def test_a_voice_is_told_from_its_background(detector, noise_db):
    samples, is_voice = pauses_and_voice(seed=3, pauses=[1.0, 2.0, 1.0], noise_db=noise_db)
    result = probabilities(detector, samples)
    share = is_voice[: len(result) * WINDOW].reshape(-1, WINDOW).mean(axis=1)
    inside = np.convolve(share, np.ones(9) / 9, "same")  # away from the edges
    assert np.median(result[inside > 0.999]) > 0.5
    assert np.median(result[inside < 0.001]) < 0.1


def test_silence_and_no_samples_give_no_speech(detector):
    assert probabilities(detector, np.zeros(5 * RATE, np.float32)).max() < 0.1
    assert len(probabilities(detector, np.zeros(0, np.float32))) == 0


def test_the_noise_floor_follows_a_background_that_becomes_louder():
    draw = np.random.default_rng(0)
    gain = np.repeat([0.001, 0.02], 20 * RATE)
    result = probabilities(energy_detector(), (gain * draw.normal(size=len(gain))).astype(np.float32))
    late = round(35 * RATE / WINDOW)
    assert result[: round(19 * RATE / WINDOW)].max() < 0.1
    assert result[late:].max() < 0.1


def test_speech_at_the_beginning_is_not_taken_for_the_noise_floor():
    samples, is_voice = pauses_and_voice(seed=4, pauses=[0.0, 1.0])
    assert is_voice[0]
    assert np.median(probabilities(energy_detector(), samples)[:20]) > 0.5


@has_silero
def test_both_networks_of_silero_vad_agree(monkeypatch):
    import silero_vad

    pytest.importorskip("onnxruntime")
    samples, _ = pauses_and_voice(seed=5, pauses=[0.5, 1.0])
    by_onnx = probabilities(silero_detector(), samples)
    load = silero_vad.load_silero_vad
    monkeypatch.setattr(silero_vad, "load_silero_vad", lambda: load())
    np.testing.assert_allclose(probabilities(silero_detector(), samples), by_onnx, atol=1e-4)


@has_silero
def test_loading_it_leaves_the_threads_of_torch_alone():
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert silero_detector().name == "silero-vad"
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)


def test_without_silero_vad_energy_is_used_and_named(monkeypatch, caplog):
    original = builtins.__import__

    def without(name, *args, **options):
        if name.startswith("silero_vad"):
            raise ImportError(name)
        return original(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    assert speech_detection.create_detector().name == "energy"
    assert "pip install 'asrtool[audio]'" in caplog.text
    assert len(caplog.records) == 1


@has_silero
def test_silero_vad_is_used_where_it_is_installed():
    assert create_detector().name == "silero-vad"
