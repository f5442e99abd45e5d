from dataclasses import replace
from itertools import cycle, islice

import numpy as np
import pytest
import torch
from lhotse import CutSet

from asrtool.data import statistics
from asrtool.data.features import compute_features, count_frames
from asrtool.data.inspection import CutRequirements, inspect_cuts
from asrtool.data.lhotse_sets import open_cuts
from asrtool.data.loading import SpeechDataset, load_batches
from asrtool.data.sampling import OrderedSampler
from asrtool.data.statistics import feature_statistics
from asrtool.errors import DataError
from asrtool.models.acoustic import AcousticModel
from asrtool.objectives.ctc import min_frames
from asrtool.text.tokenizer import load_tokenizer
from tests.tiny import feature_batch


def loaded(config, corpus):
    return load_batches(SpeechDataset(config, None, training=False), OrderedSampler(corpus, 10.0), 0)


@pytest.mark.parametrize("per_utterance", [False, True])
def test_statistics_are_those_of_all_frames(tiny_config, corpus, per_utterance):
    frames = [compute_features(cut, 20).double().numpy() for cut in open_cuts(corpus)]
    if per_utterance:
        frames = [f - f.mean(0) for f in frames]
    frames = np.concatenate(frames)
    mean, deviation = feature_statistics(loaded(tiny_config(), corpus), per_utterance)
    assert mean.shape == deviation.shape == (20,)
    assert mean.dtype == deviation.dtype == torch.float32
    np.testing.assert_allclose(mean, frames.mean(0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(deviation, frames.std(0), rtol=1e-5)


def test_statistics_are_exact_far_from_zero():
    """A large mean and a small deviation: single precision would lose it."""
    features = torch.randn(4, 500, 3, generator=torch.Generator().manual_seed(0)) * 1e-2 + 1000
    batch = feature_batch(features, torch.full((4,), 500), seconds=20.0)
    _, deviation = feature_statistics([batch], per_utterance=False)
    np.testing.assert_allclose(deviation, features.double().flatten(0, 1).numpy().std(0), rtol=1e-3)


def test_statistics_take_about_an_hour_of_an_endless_stream(tiny_config, corpus):
    taken = []

    def endless():
        for batch in cycle(islice(loaded(tiny_config(), corpus), 2)):
            taken.append(1)
            yield replace(batch, seconds=600.0)

    feature_statistics(endless(), per_utterance=False)
    assert len(taken) * 600 == pytest.approx(statistics.STATISTICS_SECONDS, abs=1200)


@pytest.fixture
def tokenizer(tokenizer_file):
    return load_tokenizer(tokenizer_file)


@pytest.fixture
def inspect(tiny_config, tokenizer, tmp_path):
    """inspect(cuts, **config) -> what `inspect_cuts` finds, with the rule of CTC and the real model's lengths."""

    def look(cuts, **changes):
        CutSet.from_cuts(cuts).to_file(tmp_path / "in.jsonl.gz")
        config = tiny_config(**changes)
        requirements = CutRequirements(
            data=config.data,
            sampling_rate=config.features.sampling_rate,
            tokenizer=tokenizer,
            min_frames=min_frames,
            out_length=AcousticModel(config.model, config.features.num_bins, tokenizer.size).out_length,
        )
        return inspect_cuts(tmp_path / "in.jsonl.gz", requirements)

    return look


@pytest.fixture
def cuts(corpus):
    return list(open_cuts(corpus))


def with_text(cut, text):
    cut.supervisions[0].text = text
    return cut


def out_frames(cut) -> int:
    return (count_frames(cut.num_samples, cut.sampling_rate) + 3) // 4


def test_a_good_manifest_is_kept_whole(cuts, inspect):
    found = inspect(cuts)
    assert found.cuts == 24
    assert found.seconds == pytest.approx(sum(cut.duration for cut in cuts))
    assert found.dropped == {}


@pytest.mark.parametrize("repeats", [0, 3])
def test_a_cut_is_kept_if_its_frames_are_exactly_enough_for_its_units(cuts, inspect, repeats):
    """Each pair of equal neighbours needs one frame more, for the blank between them."""
    cut = cuts[0]
    frames = out_frames(cut)

    def spelt(units):
        words = ["one", "two"] * units
        for place in range(0, 2 * repeats, 2):
            words[place + 1] = words[place]
        words = words[:units]
        assert sum(a == b for a, b in zip(words, words[1:], strict=False)) >= repeats
        return with_text(cut, " ".join(words))

    most = max(n for n in range(2 * repeats + 2, frames + 1) if needed_by(spelt(n)) <= frames)
    assert needed_by(spelt(most)) == frames
    assert inspect([spelt(most), cuts[1]]).dropped == {}
    dropped = inspect([spelt(most + 1), cuts[1]]).dropped
    assert list(dropped) == [cut.id]
    reason = dropped[cut.id]
    assert f"{frames} output frames" in reason
    assert f"{most + 1} units need {needed_by(spelt(most + 1))}" in reason


def needed_by(cut) -> int:
    words = cut.supervisions[0].text.split()
    return len(words) + sum(words[i] == words[i + 1] for i in range(len(words) - 1))


def test_a_cut_must_have_enough_frames_at_the_fastest_speed(cuts, inspect):
    """A cut must be reachable at whatever speed an epoch draws."""
    cut = max(cuts, key=lambda cut: cut.duration)
    fast = out_frames(cut.perturb_speed(1.1))
    units = out_frames(cut)
    assert fast < units
    with_text(cut, " ".join(["one", "two"] * units)[: 4 * units - 1])
    speeds = {"data": {"augment": {"speeds": [0.9, 1.0, 1.1]}}}
    assert inspect([cut, cuts[0]]).dropped == {}
    assert f"{fast} output frames" in inspect([cut, cuts[0]], **speeds).dropped[cut.id]
    with_text(cut, " ".join(["one", "two"] * units)[: 4 * fast - 1])
    assert inspect([cut, cuts[0]], **speeds).dropped == {}


def test_cuts_outside_the_lengths_are_dropped_with_their_length(cuts, inspect):
    found = inspect(cuts, data={"min_seconds": 0.7, "max_seconds": 2.0})
    expected = {cut.id for cut in cuts if not 0.7 <= cut.duration <= 2.0}
    assert 0 < len(expected) < 24
    assert set(found.dropped) == expected
    assert found.cuts == 24 - len(expected)
    assert all(f"{cut.duration:.2f} s" in found.dropped[cut.id] for cut in cuts if cut.id in expected)


def test_all_unusable_transcripts_are_listed(cuts, inspect):
    with_text(cuts[2], "one five six five")
    with_text(cuts[5], " ")
    with_text(cuts[7], None)
    cuts[9].supervisions = []
    with_text(cuts[11], "seven")
    with pytest.raises(DataError) as caught:
        inspect(cuts)
    problems = dict(problem.split(": ", 1) for problem in caught.value.problems)
    assert list(problems) == [cuts[n].id for n in (2, 5, 7, 9, 11)]
    assert "five six" in problems[cuts[2].id]
    assert all("empty transcript" in problems[cuts[n].id] for n in (5, 7, 9))
    assert "seven" in problems[cuts[11].id]
    assert "5 cuts" in caught.value.summary


def test_cuts_at_another_rate_are_listed(cuts, inspect):
    cuts[3] = cuts[3].resample(8000)
    with pytest.raises(DataError) as caught:
        inspect(cuts)
    assert caught.value.problems == [f"{cuts[3].id}: 8000 Hz, the configuration says features.sampling_rate=16000"]


def test_nothing_left_is_an_error_with_every_reason(cuts, inspect):
    with pytest.raises(DataError, match="nothing of .* is left") as caught:
        inspect(cuts, data={"min_seconds": 20, "max_seconds": 30})
    assert len(caught.value.problems) == 24
