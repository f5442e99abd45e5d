"""The settings that `asrtool new` chooses for corpora of different size, sampling rate and machine."""

from collections import Counter
from dataclasses import replace

import pytest
import yaml

from asrtool.config import Config
from asrtool.planning.batch_fill import PADDING, fill
from asrtool.recipes.audio_sample import AudioSample
from asrtool.recipes.choices import choose_audio, choose_sets, choose_training, duration
from asrtool.recipes.config_text import config_text
from asrtool.recipes.facts import CorpusFacts
from asrtool.recipes.machine import Machine
from asrtool.recipes.presets import CPU, GPU, choose_preset

LAPTOP = Machine(cores=2, memory=16e9, has_bf16=False)
SERVER = Machine(cores=64, memory=500e9, has_bf16=True, gpus=("H200",) * 8, gpu_memory=140e9)


def facts(hours: float, rates: dict[int, int] | None = None, **changes: object) -> CorpusFacts:
    utterances = max(10, round(hours * 1000))
    known = CorpusFacts(
        utterances=utterances,
        seconds=hours * 3600,
        speakers=frozenset("abc"),
        rates=Counter(rates or {16000: utterances}),
        channels=Counter({1: utterances}),
        lengths=(0.5, 4.0, 16.0),
        texts=[],
        audio=AudioSample(),
    )
    return replace(known, **changes)


def settings(hours: float, machine: Machine, speed: float = 80.0, units: str = "char", **changes: object) -> dict:
    """Returns the configuration of a corpus of `hours`, as a tree."""
    corpus = facts(hours, **changes)
    sets = choose_sets(corpus, has_dev=False, has_test=False)
    audio = choose_audio(corpus, machine, sets.train_hours)
    training = choose_training(corpus, machine, sets.train_hours, units, speed, None)
    return yaml.safe_load(config_text("A corpus.", audio, training, has_dev=True))


@pytest.mark.parametrize("machine", [LAPTOP, SERVER])
@pytest.mark.parametrize("hours", [0.1, 1, 5, 30, 100, 1000, 10_000])
def test_every_configuration_is_valid(hours: float, machine: Machine) -> None:
    config = Config.model_validate(settings(hours, machine))
    assert config.data.batch_seconds >= config.data.max_seconds / 2
    assert config.training.warmup_steps < config.training.max_steps


def test_more_hours_have_larger_models() -> None:
    for presets, has_gpu in ((CPU, False), (GPU, True)):
        sizes = [choose_preset(0.2, has_gpu, "word")]
        sizes += [choose_preset(hours, has_gpu, "char") for hours in (0.2, 10, 100, 1000, 10_000)]
        weights = [preset.layers * preset.dim**2 for preset in sizes]
        assert weights == sorted(weights) and weights[0] < weights[-1]
        assert {preset.name for preset in sizes} == {preset.name for preset in presets}


@pytest.mark.parametrize("rates, expected, is_resampled", [
    ({8000: 100}, 8000, False),
    ({16000: 100}, 16000, False),
    ({48000: 100}, 16000, True),
    ({11025: 100}, 8000, True),
    ({44100: 90, 8000: 10}, 16000, True),
    ({16000: 10, 8000: 90}, 8000, True),
])  # fmt: skip
def test_sampling_rate_follows_most_recordings(rates: dict[int, int], expected: int, is_resampled: bool) -> None:
    audio = choose_audio(facts(1, rates), LAPTOP, 1)
    assert (audio.sampling_rate.value, audio.resample) == (expected, is_resampled)
    assert audio.num_bins.value == (40 if expected == 8000 else 80)


def test_training_on_a_slow_machine_is_shorter_than_the_limit() -> None:
    corpus = facts(100)
    slow = choose_training(corpus, LAPTOP, 100, "bpe", 20.0, None)
    fast = choose_training(corpus, SERVER, 100, "bpe", 500.0, None)
    assert slow.hours == pytest.approx(1.5, rel=0.1) and "passes would be better" in slow.max_steps.why
    assert fast.hours < 24
    assert choose_training(corpus, LAPTOP, 100, "bpe", 20.0, 6.0).hours == pytest.approx(6, rel=0.1)


def test_steps_and_time_follow_from_batches_that_are_not_full() -> None:
    corpus = facts(5)
    batch = choose_preset(4, False, "char").batch_seconds
    training = choose_training(corpus, LAPTOP, 4, "char", 10_000.0, None)
    audio = fill(batch, corpus.seconds / corpus.utterances) * batch * (1 - PADDING)
    epochs = training.max_steps.value * audio / (4 * 3600)
    assert epochs == pytest.approx(choose_preset(4, False, "char").epochs, rel=0.05)
    assert training.hours == pytest.approx(training.max_steps.value * audio / (1 - PADDING) / 10_000 / 3600)


def test_long_utterances_are_named_in_the_reason() -> None:
    training = choose_training(facts(5, lengths=(1.0, 8.0, 340.0)), LAPTOP, 5, "char", 80, None)
    assert training.max_seconds.value == 30 and "340 s" in training.max_seconds.why


def test_large_corpora_compute_features_on_the_fly() -> None:
    assert settings(1, LAPTOP)["features"]["source"] == "stored"
    large = settings(100, LAPTOP)
    assert large["features"]["source"] == "on_the_fly" and large["data"]["augment"]["speeds"] == [0.9, 1.0, 1.1]
    assert large["data"]["train"] == "data/train.jsonl.gz"


def test_dev_and_test_are_a_tenth_or_two_hours() -> None:
    assert choose_sets(facts(5), False, False).dev.value == "0.1"
    assert choose_sets(facts(1000), False, False).test.value == "2h"
    own_test = choose_sets(facts(5), has_dev=False, has_test=True)
    assert (own_test.dev.value, own_test.test.value) == ("0.1", "0") and own_test.train_hours == pytest.approx(4.5)


def test_stereo_takes_the_channel_of_the_sample() -> None:
    audio = choose_audio(
        facts(1, channels=Counter({2: 50}), audio=AudioSample(5, -20.0, 30.0, 1, "loudest")), LAPTOP, 1
    )
    assert audio.channel is not None and (audio.channel.value, audio.channel.why) == (1, "loudest")
    assert choose_audio(facts(1), LAPTOP, 1).channel is None


@pytest.mark.parametrize(
    ("hours", "audio", "speeds"),
    [(0.02, "1 min", "5 speeds"), (0.3, "18 min", "5 speeds"), (2.5, "2 h 30 min", "3 speeds")],
)
def test_reasons_tell_the_audio_and_the_speeds_that_were_chosen(hours: float, audio: str, speeds: str) -> None:
    chosen = choose_audio(facts(hours), LAPTOP, hours)
    training = choose_training(facts(hours), LAPTOP, hours, "char", 100.0, None)
    assert f"{len(chosen.speeds.value)} speeds" == speeds
    assert chosen.source.why.startswith(f"{audio} at {speeds} are")
    assert f"for {audio} on" in training.preset.why and f"passes over {audio}" in training.max_steps.why


def test_durations_are_short() -> None:
    assert [duration(seconds) for seconds in (40, 1500, 12_000)] == ["40 s", "25 min", "3 h 20 min"]
