"""Augmentation of samples: what is mixed in has the configured level, and every change depends on the seed alone."""

import numpy as np
import pytest
import soundfile
import torch
from lhotse import Recording

from asrtool.config_data import AugmentConfig
from asrtool.data.augment_audio import audio_change, perturb_audio, require_sources
from asrtool.data.corpora import Utterance
from asrtool.data.features import BLOCK_SECONDS, MAX_WHOLE_SECONDS, compute_features
from asrtool.data.manifest import write_manifest
from asrtool.errors import UserError
from tests.tiny import tone

RATE = 16000
SPEECH = np.random.default_rng(1).normal(0, 10**-1.5, RATE * 3 // 2).astype(np.float32)  # 1.5 s at -30 dB


def level(samples) -> float:
    """Mean energy in dB."""
    return 10 * np.log10(np.mean(np.square(samples, dtype=np.float64)))


def perturb(augment, seed=1, epoch=0, name="x", samples=SPEECH, rate=RATE) -> np.ndarray:
    return perturb_audio(torch.from_numpy(samples), name, rate, AugmentConfig(**augment), seed, epoch).numpy()


@pytest.fixture(scope="module")
def manifest_of(tmp_path_factory):
    """manifest_of(samples, ...) -> a manifest of a recording of each."""

    def make(*recordings, rate=RATE):
        folder = tmp_path_factory.mktemp("noise")
        utterances = []
        for number, samples in enumerate(recordings):
            soundfile.write(folder / f"{number}.wav", samples, rate, "FLOAT")
            utterances.append(Utterance(str(number), str(folder / f"{number}.wav"), "noise"))
        write_manifest(utterances, folder / "noise.jsonl.gz", sampling_rate=rate)
        return folder / "noise.jsonl.gz"

    return make


@pytest.fixture(scope="module")
def noises(manifest_of):
    """noises(seconds) -> a manifest of one noise at -10 dB, much louder than the speech."""
    return lambda seconds: manifest_of(np.random.default_rng(2).normal(0, 10**-0.5, round(seconds * RATE)))


@pytest.mark.parametrize("snr", [0.0, 10.0, 25.0])
@pytest.mark.parametrize("seconds", [0.4, 1.5, 4.0])
def test_noise_is_mixed_in_at_the_requested_snr(noises, seconds, snr):
    """Also when the noise is shorter, and so repeated, or longer, and so cut out of."""
    mixed = perturb({"noise": noises(seconds), "noise_snr": (snr, snr), "noise_probability": 1.0})
    assert mixed.shape == SPEECH.shape
    noise = mixed - SPEECH
    assert level(SPEECH) - level(noise) == pytest.approx(snr, abs=0.01)
    assert level(noise[-1600:]) == pytest.approx(level(noise), abs=1)  # up to the end


def test_the_snr_is_drawn_from_its_range(noises):
    augment = {"noise": noises(2.0), "noise_snr": (5, 15), "noise_probability": 1.0}
    ratios = [level(SPEECH) - level(perturb(augment, epoch=epoch) - SPEECH) for epoch in range(8)]
    assert 4.9 < min(ratios) < max(ratios) < 15.1
    assert max(ratios) - min(ratios) > 2


def test_each_source_is_mixed_in_with_its_probability(noises):
    loud = {"manifest": noises(1.0), "probability": 0.3, "snr": (-20, -20)}
    quiet = {"manifest": noises(1.0), "probability": 0.6, "snr": (20, 20)}
    ratios = []
    for epoch in range(400):
        mixed = perturb({"noise": [loud, quiet]}, epoch=epoch) - SPEECH
        ratios.append(round(level(SPEECH) - level(mixed), -1) if mixed.any() else None)
    loudly, alone = ratios.count(-20.0), ratios.count(20.0)  # together they are as loud as the loud one
    assert loudly == pytest.approx(0.3 * 400, abs=37)  # four deviations
    assert alone == pytest.approx(0.7 * 0.6 * 400, abs=40)
    assert ratios.count(None) == pytest.approx(0.7 * 0.4 * 400, abs=36)


def test_babble_is_the_sum_of_equally_loud_voices_at_the_snr(manifest_of):
    frequencies = [500, 1000, 2000, 3000]
    gains = [0.01, 0.1, 0.3, 0.5]
    voices = [gain * tone(f, 2.0, rate=RATE) for f, gain in zip(frequencies, gains, strict=True)]
    source = {"manifest": manifest_of(*voices), "voices": (4, 4), "snr": (5, 5), "probability": 1.0}
    heard = []
    for epoch in range(6):
        babble = perturb({"noise": [source]}, epoch=epoch) - SPEECH
        assert level(SPEECH) - level(babble) == pytest.approx(5, abs=0.01)
        spectrum = np.abs(np.fft.rfft(babble)) * 2 / len(babble)
        peaks = [spectrum[round(f * 1.5) - 3 : round(f * 1.5) + 4].max() for f in frequencies]
        heard.append([peak for peak in peaks if peak > 0.2 * max(peaks)])
    assert any(len(peaks) >= 3 for peaks in heard)  # several voices at once, the quiet recordings among them
    assert all(max(peaks) < 4.5 * min(peaks) for peaks in heard)


def test_volume_scales_the_samples():
    np.testing.assert_allclose(perturb({"volume": (0.5, 0.5)}), 0.5 * SPEECH, rtol=1e-5)


def test_volume_is_drawn_from_its_range():
    gains = [np.abs(perturb({"volume": (0.25, 1.0)}, epoch=e)).max() / np.abs(SPEECH).max() for e in range(9)]
    assert 0.25 <= min(gains) < 0.5 < 0.75 < max(gains) <= 1.0


@pytest.fixture(scope="module")
def changes(noises, manifest_of):
    """Each kind of augmentation, turned on for every cut."""
    response = np.zeros(800, np.float32)
    response[[80, 200, 500]] = 0.5, 0.3, -0.2
    return {
        "volume": {"volume": (0.1, 2.0)},
        "noise": {"noise": noises(3.0), "noise_probability": 1.0},
        "babble": {"noise": [{"manifest": noises(2.0), "voices": (3, 7), "probability": 1.0}]},
        "simulated": {"reverb": {"probability": 1.0}},
        "recorded": {"reverb": {"manifest": manifest_of(response, response[::-1].copy()), "probability": 0.5}},
        "telephone": {"telephone_probability": 0.5},
        "lowpass": {"lowpass": {"probability": 1.0}},
        "codec": {"codec": {"probability": 1.0, "codecs": ("gsm", "mulaw", "mp3", "opus", "vorbis")}},
    }


KINDS = ["volume", "noise", "babble", "simulated", "recorded", "telephone", "lowpass", "codec"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_depends_on_seed_epoch_and_cut_alone_and_keeps_the_length(changes, kind):
    def drawn(seed, epoch, name="x"):
        torch.rand(3)
        np.random.rand(3)
        return perturb(changes[kind], seed, epoch, name)

    results = {}
    for key in [(1, 2), (2, 2), (1, 3), (1, 2, "y"), *((1, epoch) for epoch in range(4, 8))]:
        results[key] = drawn(*key)
        assert np.array_equal(results[key], drawn(*key))
        assert results[key].shape == SPEECH.shape and results[key].dtype == np.float32
    distinct = {samples.tobytes() for samples in results.values()}
    assert len(distinct) > 1
    if kind not in ("telephone", "recorded"):  # which have two results
        assert len(distinct) == len(results)


def test_everything_together_changes_features_but_not_their_number(changes, tmp_path):
    augment = AugmentConfig(**{key: value for change in changes.values() for key, value in change.items()})
    soundfile.write(tmp_path / "x.wav", SPEECH, RATE, "FLOAT")
    cut = Recording.from_file(tmp_path / "x.wav").to_cut()
    plain = compute_features(cut, 20)
    augmented = compute_features(cut, 20, change=audio_change(cut, augment, 1, 0))
    assert augmented.shape == plain.shape and not torch.allclose(augmented, plain, atol=0.5)
    assert audio_change(cut, AugmentConfig(speeds=(0.9, 1.1), vtlp=0.1), 1, 0) is None


def test_augmented_features_of_long_audio_are_computed_in_blocks_and_are_the_same(tmp_path):
    seconds = MAX_WHOLE_SECONDS + BLOCK_SECONDS / 2
    soundfile.write(tmp_path / "long.wav", tone(300, seconds), RATE, "FLOAT")
    cut = Recording.from_file(tmp_path / "long.wav").to_cut()
    halved = compute_features(cut, 20, change=lambda samples: samples / 2)
    assert torch.allclose(halved, compute_features(cut, 20) - 2 * np.log(2), atol=1e-3)


def test_recorded_responses_leave_the_speech_where_it_is(manifest_of):
    delayed = np.zeros(4000, np.float32)
    delayed[2400] = 0.8  # 150 ms late, as the sound of a recorded response is
    reverb = {"manifest": manifest_of(delayed), "probability": 1.0}
    np.testing.assert_allclose(perturb({"reverb": reverb}), SPEECH, atol=1e-4)


@pytest.mark.parametrize(
    ("augment", "problem"),
    [
        ({"noise": "none.jsonl.gz"}, "data.augment.noise not found: none.jsonl.gz"),
        ({"reverb": {"manifest": "none.jsonl.gz"}}, "data.augment.reverb.manifest not found: none.jsonl.gz"),
        ({"codec": {"codecs": ["opus"]}}, "opus has no 11025 Hz"),
    ],
)
def test_what_cannot_be_used_is_named_before_training(augment, problem):
    with pytest.raises(UserError, match=problem):
        require_sources(AugmentConfig(**augment), 11025)
    require_sources(AugmentConfig(codec={"codecs": ["mp3", "vorbis", "gsm"]}), 11025)


def test_noise_and_responses_at_another_rate_are_refused_by_name(noises):
    for augment in ({"noise": noises(1.0)}, {"reverb": {"manifest": noises(1.0)}}):
        with pytest.raises(UserError, match="0 has 16000 Hz, the speech 8000"):
            require_sources(AugmentConfig(**augment), 8000)
