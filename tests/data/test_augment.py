import numpy as np
import pytest
import soundfile
import torch
from lhotse import Recording

from asrtool.config_data import AugmentConfig, SpecAugmentConfig
from asrtool.data.augment import mask_batch, perturb_speed, perturb_vocal_tract_length, spec_augment
from asrtool.data.features import extractor

RATE = 16000


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """1.5 s of white noise at -30 dB."""
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    soundfile.write(path, np.random.default_rng(1).normal(0, 10**-1.5, RATE * 3 // 2), RATE, "FLOAT")
    return Recording.from_file(path).to_cut()


def test_speed_changes_the_duration_and_the_pitch(write_audio, tmp_path):
    cut = Recording.from_file(write_audio(tmp_path / "tone.wav", 1.0, frequency=1000)).to_cut()
    changed = perturb_speed(cut, AugmentConfig(speeds=(1.1,)), 1, 0)
    samples = changed.load_audio()[0]
    assert changed.duration == pytest.approx(1 / 1.1, abs=1e-3)
    assert len(samples) == changed.num_samples
    assert np.argmax(np.abs(np.fft.rfft(samples))) * RATE / len(samples) == pytest.approx(1100, abs=2)
    assert changed.id == cut.id


def test_every_speed_is_drawn_about_equally(cut):
    augment = AugmentConfig(speeds=(0.9, 1.0, 1.1))
    durations = [round(perturb_speed(cut, augment, 1, epoch).duration, 2) for epoch in range(300)]
    counts = [durations.count(round(1.5 / speed, 2)) for speed in augment.speeds]
    assert sum(counts) == 300
    assert min(counts) > 65  # four deviations below 100


def test_a_speed_depends_on_seed_epoch_and_cut_alone(cut):
    augment = AugmentConfig(speeds=tuple(1 + n / 100 for n in range(50)))

    def drawn(seed, epoch, name="x"):
        torch.rand(3)
        np.random.rand(3)
        return perturb_speed(cut.with_id(name), augment, seed, epoch).duration

    assert drawn(1, 2) == drawn(1, 2)
    assert len({drawn(1, 2), drawn(2, 2), drawn(1, 3), drawn(1, 2, "y")}) > 2


def batch(*lengths):
    lens = torch.tensor(lengths)
    features = torch.randn(len(lengths), max(lengths), 20, generator=torch.Generator().manual_seed(1)) + 5
    for row, length in zip(features, lengths, strict=True):
        row[length:] = 0
    return features, lens


def masks(**changes):
    return spec_augment(SpecAugmentConfig(**{"frequency_width": 5, "time_width": 20, "probability": 1.0} | changes))


@pytest.mark.parametrize("time_warp", [0, 80])
def test_padding_stays_zero_under_masks(time_warp):
    features, lens = batch(300, 200, 161, 90, 12)
    masked = mask_batch(masks(time_warp=time_warp), features.clone(), lens, "key")
    for before, after, length in zip(features, masked, lens, strict=True):
        assert (after[length:] == 0).all()
        assert not torch.equal(after[:length], before[:length])


@pytest.mark.parametrize("length", range(1, 30))
def test_very_short_cuts_can_be_masked(length):
    features, lens = batch(40, length)
    masked = mask_batch(masks(time_warp=80, time_width=100), features, lens, "key")
    assert masked.isfinite().all()
    assert masked[1, :length].abs().sum() > 0


def test_time_masks_cover_at_most_the_configured_share():
    features, lens = batch(400, 200)
    only_time = masks(time_warp=0, frequency_masks=0, time_masks=10, time_width=50, time_fraction=0.2)
    for key in range(20):
        masked = mask_batch(only_time, features.clone(), lens, key)
        changed = (masked != features).any(2).sum(1)
        assert changed.any()
        assert (changed <= 0.2 * lens).all()


def test_masks_cover_whole_bins_no_wider_than_configured():
    features, lens = batch(100)
    only_bins = masks(time_warp=0, time_fraction=0.01, time_width=1, time_masks=1, frequency_masks=1, frequency_width=4)
    widths = set()
    for key in range(30):
        masked = mask_batch(only_bins, features.clone(), lens, key)
        widths.add(int((masked != features).float().mean((0, 1)).gt(0.9).sum()))
    assert max(widths) <= 4
    assert len(widths) > 1


def test_masks_are_applied_with_their_probability():
    features, lens = batch(50)
    none = [mask_batch(masks(probability=0.0), features.clone(), lens, key) for key in range(10)]
    half = [mask_batch(masks(probability=0.5), features.clone(), lens, key) for key in range(200)]
    assert all(torch.equal(masked, features) for masked in none)
    assert sum(torch.equal(masked, features) for masked in half) == pytest.approx(100, abs=30)  # four deviations


def test_masks_depend_on_their_key_alone_and_leave_the_random_states_alone():
    import random

    features, lens = batch(300, 280)  # long enough to be warped
    states = random.getstate(), torch.get_rng_state(), np.random.get_state()
    one = mask_batch(masks(), features.clone(), lens, 1, 2, 3)
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), states[2], strict=True))
    random.random()
    torch.rand(1)
    np.random.rand(1)
    assert torch.equal(mask_batch(masks(), features.clone(), lens, 1, 2, 3), one)
    assert not torch.equal(mask_batch(masks(), features.clone(), lens, 1, 2, 4), one)


def tone(hertz: float) -> torch.Tensor:
    """Log-mel features of a second of a tone in a little noise."""
    time = torch.arange(RATE) / RATE
    samples = torch.sin(2 * torch.pi * hertz * time) + 1e-3 * torch.randn(RATE, generator=torch.manual_seed(1))
    return torch.from_numpy(extractor(RATE, 80).extract(samples[None].numpy(), RATE))


@pytest.mark.parametrize("warp", [0.8, 0.95, 1.0, 1.1, 1.25])
@pytest.mark.parametrize("hertz", [300, 1000, 4000])
def test_vtlp_moves_a_tone_to_the_warped_frequency(warp, hertz):
    warped, expected = perturb_vocal_tract_length(tone(hertz), warp, RATE), tone(hertz * warp)
    assert (warped[20:-20].argmax(1) - expected[20:-20].argmax(1)).abs().max() <= 1
    assert warped.shape == expected.shape and torch.equal(perturb_vocal_tract_length(expected, 1.0, RATE), expected)


def test_vtlp_keeps_the_highest_frequency():
    noise = torch.arange(80.0).repeat(3, 1)  # each bin its number
    for warp in (0.8, 1.25):
        warped = perturb_vocal_tract_length(noise, warp, RATE)
        assert warped[0, -1] == pytest.approx(79, abs=1) and (warped.diff(dim=1) >= 0).all()
