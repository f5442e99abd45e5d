import pickle
from itertools import islice, takewhile

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet
from lhotse.shar import SharWriter

from asrtool.data.batch import Position
from asrtool.data.corpora import Utterance
from asrtool.data.feature_store import store_features
from asrtool.data.features import compute_features, count_frames
from asrtool.data.lhotse_sets import open_cuts
from asrtool.data.loading import SpeechDataset, load_batches
from asrtool.data.manifest import write_manifest
from asrtool.data.sampling import CutBatch, OrderedSampler, TrainingSampler
from asrtool.data.shards import entries
from asrtool.errors import AsrtoolError, DataError
from asrtool.text.tokenizer import load_tokenizer
from tests.tiny import make_manifest_without_audio


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    folder = tmp_path_factory.mktemp("noise")
    soundfile.write(folder / "noise.wav", np.random.default_rng(0).normal(0, 0.1, 24000), 16000)
    write_manifest([Utterance("n", str(folder / "noise.wav"), "noise")], folder / "noise.jsonl.gz")
    return folder / "noise.jsonl.gz"


@pytest.fixture(scope="module")
def on_audio(noise):
    return {"speeds": [0.9, 1.0, 1.1], "volume": [0.5, 2.0], "noise": str(noise)}


@pytest.fixture(scope="module")
def everything(on_audio):
    return on_audio | {"spec_augment": {"frequency_width": 5, "time_width": 20, "time_warp": 20}}


@pytest.fixture(scope="module")
def load_epochs(tokenizer_file):
    """load_epochs(config, last, ...) -> the training batches up to and with epoch `last`."""

    def load(config, last=0, workers=0, start=None, dropped=frozenset()):
        dataset = SpeechDataset(config, load_tokenizer(tokenizer_file), training=True)
        stream = load_batches(dataset, TrainingSampler(config.data, config.seed, dropped, start), workers)
        return list(takewhile(lambda batch: batch.position.epoch <= last, stream))

    return load


def assert_same(one, two):
    assert [batch.position for batch in one] == [batch.position for batch in two]
    for a, b in zip(one, two, strict=True):
        assert (a.ids, a.texts, a.seconds) == (b.ids, b.texts, b.seconds)
        assert torch.equal(a.features, b.features)
        assert torch.equal(a.feature_lens, b.feature_lens)
        assert torch.equal(a.targets, b.targets)


@pytest.mark.parametrize("workers", [1, 2])
def test_loader_processes_return_the_same_bits(tiny_config, everything, load_epochs, workers):
    config = tiny_config(data={"augment": everything, "batch_seconds": 6})
    assert_same(load_epochs(config, 1, workers), load_epochs(config, 1))


def test_the_same_seed_gives_the_same_epoch_and_another_seed_does_not(tiny_config, everything, load_epochs):
    data = {"augment": everything}
    one, two, other = (load_epochs(tiny_config(seed=seed, data=data)) for seed in (1, 1, 2))
    assert_same(one, two)
    assert [batch.ids for batch in one] != [batch.ids for batch in other]


def test_epochs_differ_in_their_speeds(tiny_config, load_epochs):
    drawn = {0: {}, 1: {}}
    config = tiny_config(data={"augment": {"speeds": [0.9, 1.0, 1.1]}})
    for batch in load_epochs(config, 1):
        drawn[batch.position.epoch].update(zip(batch.ids, batch.feature_lens.tolist(), strict=True))
    assert 8 < sum(drawn[0][name] != drawn[1][name] for name in drawn[0]) < 24  # two in three on average


@pytest.mark.parametrize("change", ["volume", "noise", "spec_augment"])
def test_epochs_differ_in_their_augmentation(tiny_config, everything, load_epochs, change):
    augment = {change: everything[change], "noise_probability": 1.0}
    loaded = load_epochs(tiny_config(data={"augment": augment}), last=1)
    one, two = (utterances(batch for batch in loaded if batch.position.epoch == epoch) for epoch in (0, 1))
    assert sum(not torch.equal(one[name], two[name]) for name in one) > 20


def test_masks_differ_between_batches(tiny_config, everything, corpus):
    augment = {"spec_augment": everything["spec_augment"] | {"probability": 1.0}}
    dataset = SpeechDataset(tiny_config(data={"augment": augment}), None, training=True)
    four = list(islice(entries(corpus), 4))

    def features(**at):
        return dataset[CutBatch(Position(**at), four, Position())].features

    assert torch.equal(features(), features())
    assert not any(torch.equal(features(**{name: 1}), features()) for name in ("epoch", "file", "line", "batch"))


def test_without_augmentation_training_features_are_unchanged(tiny_config, corpus, load_epochs):
    seen = utterances(load_epochs(tiny_config()))
    for cut in open_cuts(corpus):
        assert torch.equal(seen[cut.id], compute_features(cut, 20))


def utterances(loaded) -> dict[str, torch.Tensor]:
    """The features of each cut, without padding."""
    return {
        name: features[:length]
        for batch in loaded
        for name, features, length in zip(batch.ids, batch.features, batch.feature_lens, strict=True)
    }


def test_features_of_a_cut_do_not_depend_on_its_batch(tiny_config, on_audio, load_epochs):
    one, two = (
        utterances(load_epochs(tiny_config(data={"augment": on_audio, "batch_seconds": seconds})))
        for seconds in (4, 15)
    )
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("masked", [False, True])
def test_a_batch_is_well_formed(tiny_config, everything, load_epochs, tokenizer_file, masked):
    tokenizer = load_tokenizer(tokenizer_file)
    for batch in load_epochs(tiny_config(data={"augment": everything if masked else {}})):
        assert batch.features.dtype == torch.float32
        assert batch.features.shape == (len(batch.ids), max(batch.feature_lens), 20)
        assert batch.feature_lens.dtype == batch.target_lens.dtype == batch.targets.dtype == torch.int64
        for row, length in zip(batch.features, batch.feature_lens, strict=True):
            assert (row[length:] == 0).all()
        for text, row, length in zip(batch.texts, batch.targets, batch.target_lens, strict=True):
            assert tokenizer.decode(row[:length].tolist()) == text


def test_texts_belong_to_their_cuts(tiny_config, corpus, load_epochs):
    texts = {cut.id: cut.supervisions[0].text for cut in open_cuts(corpus)}
    for batch in load_epochs(tiny_config()):
        assert batch.texts == [texts[name] for name in batch.ids]


def test_a_resumed_stream_has_the_same_bits(tiny_config, everything, load_epochs):
    config = tiny_config(data={"augment": everything, "batch_seconds": 6})
    whole = load_epochs(config, 1)
    half = len(whole) // 2
    assert_same(load_epochs(config, 1, start=whole[half].position), whole[half:])


def test_shar_gives_the_batches_of_its_original_manifest(tiny_config, on_audio, corpus, tmp_path, load_epochs):
    with SharWriter(tmp_path, {"recording": "flac"}, shard_size=10) as writer:
        for cut in open_cuts(corpus):
            writer.write(cut)
    shar = utterances(load_epochs(tiny_config(data={"train": str(tmp_path), "augment": on_audio})))
    plain = utterances(load_epochs(tiny_config(data={"augment": on_audio})))
    assert shar.keys() == plain.keys()
    assert all(torch.equal(shar[name], plain[name]) for name in shar)


def test_cuts_without_units_or_with_unknown_ones_have_no_targets(tiny_config, corpus, tmp_path, tokenizer_file):
    cuts = list(open_cuts(corpus).subset(first=6))
    texts = dict(zip((cut.id for cut in cuts), ["two one", "", "  ", None, "five", "one five"], strict=True))
    for cut in cuts:
        cut.supervisions[0].text = texts[cut.id]
    CutSet.from_cuts([*cuts, cuts[0].with_id("bare").drop_supervisions()]).to_file(tmp_path / "odd.jsonl.gz")
    dataset = SpeechDataset(tiny_config(), load_tokenizer(tokenizer_file), training=True)
    for few in ([0, 1, 2, 3, 4, 5, 6], [1, 4], [6]):
        found = list(entries(tmp_path / "odd.jsonl.gz"))
        batch = dataset[CutBatch(Position(), [found[number] for number in few], Position())]
        lens = dict(zip(batch.ids, batch.target_lens.tolist(), strict=True))
        assert lens == {found[number].id: 2 if number == 0 else 0 for number in few}
        assert batch.targets.shape == (len(few), max(lens.values()))
        assert batch.texts == [texts.get(name) or "" for name in batch.ids]


def test_loading_does_not_change_the_random_states_of_training(tiny_config, everything, load_epochs):
    torch.manual_seed(5)
    expected = torch.rand(3)
    for workers in (0, 1):
        torch.manual_seed(5)
        load_epochs(tiny_config(data={"augment": everything}), workers=workers)
        assert torch.equal(torch.rand(3), expected)


def test_decoding_batches_have_no_augmentation_and_no_targets(tiny_config, everything, corpus):
    dataset = SpeechDataset(tiny_config(data={"augment": everything}), None, training=False)
    loaded = list(load_batches(dataset, OrderedSampler(corpus, 10.0), 0))
    seen = utterances(loaded)
    for cut in open_cuts(corpus):
        assert torch.equal(seen[cut.id], compute_features(cut, 20))
    assert all(batch.targets.shape == (len(batch.ids), 0) for batch in loaded)


def test_stored_features_equal_computed_ones_in_training(tiny_config, corpus, tmp_path, load_epochs):
    stored = tmp_path / "stored.jsonl.gz"
    store_features(corpus, stored, 20)
    one = load_epochs(tiny_config(features={"source": "stored"}, data={"train": str(stored)}))
    two = load_epochs(tiny_config())
    assert [batch.ids for batch in one] == [batch.ids for batch in two]
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a.features, b.features, rtol=0, atol=2.0**-8)


def test_a_loader_process_receives_no_manifest(tiny_config, tmp_path, tokenizer_file):
    manifest = make_manifest_without_audio(tmp_path / "many.jsonl.gz", 2000)
    config = tiny_config(data={"train": str(manifest), "batch_seconds": 60})
    dataset = SpeechDataset(config, load_tokenizer(tokenizer_file), training=True)
    item = next(iter(TrainingSampler(config.data, config.seed)))
    assert len(pickle.dumps(dataset)) < 100_000
    assert len(pickle.dumps(item)) < 100_000
    assert len(pickle.dumps(pickle.loads(pickle.dumps(dataset)))) < 100_000


def refused(config, tokenizer_file, workers) -> AsrtoolError:
    dataset = SpeechDataset(config, load_tokenizer(tokenizer_file), training=True)
    with pytest.raises(AsrtoolError) as caught:
        list(islice(load_batches(dataset, TrainingSampler(config.data, config.seed), workers), 40))
    assert "Traceback" not in str(caught.value)
    return caught.value


@pytest.fixture
def gone(tmp_path, write_audio):
    """A manifest of two cuts, the audio of one of which is gone since; returns both paths."""
    paths = [write_audio(tmp_path / f"{name}.flac", 1.0) for name in ("here", "gone")]
    write_manifest([Utterance(path.stem, str(path), "one") for path in paths], tmp_path / "gone.jsonl.gz")
    paths[1].unlink()
    return tmp_path / "gone.jsonl.gz", paths[1]


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_audio_stops_training_and_is_named(tiny_config, tokenizer_file, gone, workers):
    manifest, path = gone
    error = refused(tiny_config(data={"train": str(manifest)}), tokenizer_file, workers)
    assert isinstance(error, DataError)
    assert error.problems[0].startswith("gone: ")
    assert str(path) in error.problems[0]


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_noise_stops_training_and_is_named(tiny_config, tokenizer_file, gone, workers):
    manifest, path = gone
    augment = {"noise": str(manifest), "noise_probability": 1.0}
    assert str(path) in str(refused(tiny_config(data={"augment": augment}), tokenizer_file, workers))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_missing_noise_manifest_is_named(tiny_config, tokenizer_file, workers):
    augment = {"noise": "/none/noise.jsonl.gz", "noise_probability": 1.0}
    assert "/none/noise.jsonl.gz" in str(refused(tiny_config(data={"augment": augment}), tokenizer_file, workers))


def test_noise_at_another_rate_is_refused(tiny_config, tokenizer_file, tmp_path, write_audio):
    path = write_audio(tmp_path / "noise.wav", 1.0, rate=8000)
    write_manifest([Utterance("n", str(path), "noise")], tmp_path / "noise.jsonl.gz", sampling_rate=8000)
    augment = {"noise": str(tmp_path / "noise.jsonl.gz"), "noise_probability": 1.0}
    assert "8000 Hz" in str(refused(tiny_config(data={"augment": augment}), tokenizer_file, 0))


def test_speech_at_another_rate_is_refused(tiny_config, tokenizer_file):
    error = refused(tiny_config(features={"sampling_rate": 8000}), tokenizer_file, 0)
    assert "16000 Hz" in str(error)
    assert "sampling_rate=8000" in str(error)


def test_very_short_cuts_train_too(tiny_config, everything, tmp_path, write_audio, tokenizer_file, load_epochs):
    paths = [write_audio(tmp_path / f"u{n}.wav", seconds) for n, seconds in enumerate((0.03, 0.05, 0.1, 0.9))]
    write_manifest([Utterance(path.stem, str(path), "one") for path in paths], tmp_path / "short.jsonl.gz")
    data = {"train": str(tmp_path / "short.jsonl.gz"), "augment": everything, "batch_seconds": 9, "min_seconds": 0.01}
    config = tiny_config(data=data)
    loaded = load_epochs(config, last=9)
    assert all(batch.features.isfinite().all() for batch in loaded)
    assert sum(len(batch.ids) for batch in loaded) == 40


def test_lengths_of_a_batch_are_those_of_the_manifest(tiny_config, corpus, load_epochs):
    promised = {cut.id: count_frames(cut.num_samples, cut.sampling_rate) for cut in open_cuts(corpus)}
    for batch in load_epochs(tiny_config()):
        assert batch.feature_lens.tolist() == [promised[name] for name in batch.ids]
