import os

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lhotse import CutSet, MonoCut, Recording

from asrtool.data import feature_store
from asrtool.data.corpora import Utterance
from asrtool.data.feature_store import store_features
from asrtool.data.features import (
    compute_features,
    count_frames,
    frame_seconds,
    load_features,
    samples_per_frame,
)
from asrtool.data.lhotse_sets import open_cuts
from asrtool.data.manifest import write_manifest
from asrtool.data.sources import InvalidEntry
from asrtool.errors import DataError
from asrtool.streaming.feature_stream import FrameExtractor

BINS = 20
HALF_A_TICK = 2.0**-9


@pytest.fixture
def small_shards(monkeypatch):
    """Ten cuts a shard: the corpus makes three."""
    monkeypatch.setattr(feature_store, "SHARD_CUTS", 10)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "stored" / "train.jsonl.gz"


@pytest.fixture
def broken_corpus(corpus, tmp_path, write_audio):
    """A manifest of 12 good cuts and then two whose audio is gone and cut short since; returns it and their names."""
    paths = [write_audio(tmp_path / f"{name}.flac", 1.0) for name in ("gone", "short")]
    rows = [Utterance(c.id, c.recording.sources[0].source, "one") for c in open_cuts(corpus).subset(first=12)]
    rows += [Utterance(path.stem, str(path), "one") for path in paths]
    write_manifest(rows, tmp_path / "broken.jsonl.gz")
    paths[0].unlink()
    os.truncate(paths[1], 5000)
    return tmp_path / "broken.jsonl.gz", paths


def loaded(manifest) -> dict[str, torch.Tensor]:
    return {cut.id: load_features(cut, "stored", BINS) for cut in open_cuts(manifest)}


def same(one: dict, two: dict) -> bool:
    return list(one) == list(two) and all(torch.equal(one[name], two[name]) for name in one)


def archives(out) -> dict[str, int]:
    """When each archive of features was written."""
    return {path.name: path.stat().st_mtime_ns for path in (out.parent / "feats").rglob("*.lca")}


@pytest.mark.parametrize("rate", [8000, 11025, 11150, 16000, 22050, 22255, 44100, 48000])
def test_the_frames_of_an_hour_have_the_seconds_of_an_hour(rate):
    assert samples_per_frame(rate) == FrameExtractor(rate, BINS).shift
    assert count_frames(3600 * rate, rate) * frame_seconds(rate) == pytest.approx(3600, abs=0.01)


def test_features_are_log_mel_energies_low_bins_first(corpus, write_audio, tmp_path):
    def loudest_bin(frequency):
        path = write_audio(tmp_path / f"{frequency}.wav", 0.5, frequency=frequency)
        return compute_features(Recording.from_file(path).to_cut(), BINS).mean(0).argmax()

    assert 0 < loudest_bin(300) < loudest_bin(1000) < loudest_bin(4000) < BINS


def test_features_grow_by_the_logarithm_of_the_energy(tmp_path):
    samples = np.random.default_rng(0).normal(0, 0.05, 16000)
    for gain in (1, 4):
        soundfile.write(tmp_path / f"{gain}.wav", samples * gain, 16000, "FLOAT")
    quiet, loud = (compute_features(Recording.from_file(tmp_path / f"{gain}.wav").to_cut(), BINS) for gain in (1, 4))
    assert loud - quiet == pytest.approx(np.log(16), abs=1e-2)


@settings(max_examples=40, deadline=None)
@given(st.integers(160, 20000), st.sampled_from([1.0, 0.9, 1.1, 0.7]), st.sampled_from([8000, 16000]))
@example(400, 1.0, 16000)
@example(4079, 1.0, 16000)
@example(4080, 1.0, 16000)  # half a shift more than 25 frames: rounds up
@example(4081, 0.9, 16000)
def test_the_number_of_frames_is_known_from_the_manifest(tmp_path_factory, samples, speed, rate):
    path = tmp_path_factory.getbasetemp() / "frames.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, samples), rate)
    cut = Recording.from_file(path).to_cut()
    cut = cut if speed == 1.0 else cut.perturb_speed(speed)
    assert compute_features(cut, BINS).shape == (count_frames(cut.num_samples, cut.sampling_rate), BINS)


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 1.5), st.floats(0.05, 0.45), st.sampled_from([1.0, 1.1]))
def test_the_number_of_frames_of_a_segment_is_known_from_the_manifest(corpus, start, duration, speed):
    recording = max(open_cuts(corpus), key=lambda cut: cut.duration).recording
    cut = MonoCut("s", round(start, 3), round(duration, 3), 0, recording=recording)
    cut = cut if speed == 1.0 else cut.perturb_speed(speed)
    assert len(compute_features(cut, BINS)) == count_frames(cut.num_samples, cut.sampling_rate)


def test_stored_features_equal_computed_ones_within_half_a_tick(corpus, out):
    summary = store_features(corpus, out, BINS)
    computed = {cut.id: compute_features(cut, BINS) for cut in open_cuts(corpus)}
    stored = loaded(out)
    assert summary.cuts == len(stored) == 24
    assert list(stored) == list(computed)
    assert all(stored[name].shape == computed[name].shape for name in computed)
    assert max((stored[name] - computed[name]).abs().max() for name in computed) <= HALF_A_TICK * 1.001


def test_segments_of_one_recording_have_their_own_stored_features(tmp_path, out, corpus):
    audio = max(open_cuts(corpus), key=lambda cut: cut.duration).recording.sources[0].source
    spans = [(0.0, 0.61), (0.61, 1.4), (1.003, 2.2)]
    rows = [Utterance(f"u{i}", audio, "one", None, "r", *span) for i, span in enumerate(spans)]
    write_manifest(rows, tmp_path / "segments.jsonl.gz")
    store_features(tmp_path / "segments.jsonl.gz", out, BINS)
    for cut in open_cuts(out):
        computed = compute_features(cut, BINS)
        torch.testing.assert_close(load_features(cut, "stored", BINS), computed, rtol=0, atol=HALF_A_TICK * 1.001)
        assert count_frames(cut.num_samples, cut.sampling_rate) == len(computed)


def test_every_cut_is_stored_at_every_speed_under_its_own_name(corpus, out):
    summary = store_features(corpus, out, BINS, speeds=(0.9, 1.0, 1.1))
    cuts = list(open_cuts(out))
    original = {cut.id: cut for cut in open_cuts(corpus)}
    assert summary.cuts == len({cut.id for cut in cuts}) == 3 * 24
    assert set(original) < {cut.id for cut in cuts}
    assert sum(cut.duration for cut in cuts) == pytest.approx(summary.seconds)
    for cut in cuts[:6]:
        torch.testing.assert_close(
            load_features(cut, "stored", BINS), compute_features(cut, BINS), rtol=0, atol=HALF_A_TICK * 1.001
        )
        assert len(load_features(cut, "stored", BINS)) == count_frames(cut.num_samples, cut.sampling_rate)
    slow, kept, fast = (cut for cut in cuts if cut.id.startswith("a-00"))
    assert slow.duration > kept.duration > fast.duration
    assert slow.supervisions[0].text == kept.supervisions[0].text == fast.supervisions[0].text


def test_one_process_and_two_store_the_same(corpus, out, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_store, "SHARD_CUTS", 3)  # so many that they do not end in order
    store_features(corpus, out, BINS, jobs=1)
    store_features(corpus, tmp_path / "two" / "train.jsonl.gz", BINS, jobs=2)
    assert same(loaded(out), loaded(tmp_path / "two" / "train.jsonl.gz"))


def test_an_interrupted_run_writes_only_what_is_missing(corpus, out, small_shards):
    store_features(corpus, out, BINS)
    before, features_before = archives(out), loaded(out)
    assert len(before) == 3
    out.unlink()
    for manifest in (out.parent / "feats" / "train").glob("*/000001-*.jsonl.gz"):
        manifest.unlink()
    store_features(corpus, out, BINS)
    after = archives(out)
    assert [name[:6] for name in after if after[name] != before[name]] == ["000001"]
    assert same(loaded(out), features_before)


def test_a_complete_run_again_writes_no_features(corpus, out, small_shards):
    store_features(corpus, out, BINS)
    before = archives(out)
    store_features(corpus, out, BINS)
    assert archives(out) == before


@pytest.mark.parametrize("change", ["bins", "speeds", "manifest"])
def test_changed_settings_compute_all_features_again(corpus, out, tmp_path, small_shards, change):
    store_features(corpus, out, BINS)
    before = archives(out)
    if change == "manifest":
        rows = list(open_cuts(corpus))[::-1]
        CutSet.from_cuts(rows).to_file(tmp_path / "other.jsonl.gz")
        store_features(tmp_path / "other.jsonl.gz", out, BINS)
        assert [cut.id for cut in open_cuts(out)] == [cut.id for cut in rows]
    elif change == "bins":
        store_features(corpus, out, BINS + 3)
        assert all(load_features(cut, "stored", BINS + 3).shape[1] == BINS + 3 for cut in open_cuts(out))
    else:
        store_features(corpus, out, BINS, speeds=(0.9,))
        assert sum(1 for _ in open_cuts(out)) == 24
    after = archives(out)
    assert not any(after.get(name) == written for name, written in before.items())


@pytest.mark.parametrize("jobs", [1, 2])
def test_unreadable_cuts_are_all_listed_and_no_manifest_is_left(broken_corpus, out, small_shards, jobs):
    manifest, paths = broken_corpus
    with pytest.raises(DataError) as caught:
        store_features(manifest, out, BINS, jobs=jobs)
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["gone", "short"]
    assert all(str(path) in problem for path, problem in zip(paths, caught.value.problems, strict=True))
    assert not out.exists()
    assert not list(out.parent.rglob(".tmp-*"))


def test_after_the_audio_is_fixed_only_the_bad_shard_is_computed(broken_corpus, out, small_shards, write_audio):
    manifest, paths = broken_corpus
    with pytest.raises(DataError):
        store_features(manifest, out, BINS)
    before = archives(out)
    for path in paths:
        write_audio(path, 1.0)
    store_features(manifest, out, BINS)
    (kept,) = (name for name in before if name.startswith("000000"))
    assert archives(out)[kept] == before[kept]
    assert len(loaded(out)) == 14


def test_loading_features_that_are_not_stored_names_the_remedy(corpus, out):
    cut = next(iter(open_cuts(corpus)))
    with pytest.raises(InvalidEntry, match=f"{cut.id}: .*asrtool features"):
        load_features(cut, "stored", BINS)
    store_features(corpus, out, BINS)
    with pytest.raises(InvalidEntry, match="20 bins are stored, .*num_bins=80"):
        load_features(next(iter(open_cuts(out))), "stored", 80)
    for archive in out.parent.rglob("*.lca"):
        archive.unlink()
    with pytest.raises(InvalidEntry, match="cannot read .*lca"):
        load_features(next(iter(open_cuts(out))), "stored", BINS)


def test_unreadable_audio_is_named(broken_corpus):
    manifest, paths = broken_corpus
    for cut, path in zip(list(open_cuts(manifest))[-2:], paths, strict=True):
        with pytest.raises(InvalidEntry, match=f"{cut.id}: cannot read {path}"):
            compute_features(cut, BINS)
