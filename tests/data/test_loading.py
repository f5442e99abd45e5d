import pickle
from collections import Counter
from itertools import islice, takewhile

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from lhotse.audio import AudioSource
from lhotse.shar import SharWriter

from asrtool.data import sampling
from asrtool.data.batch import Position
from asrtool.data.corpora import Utterance
from asrtool.data.feature_store import store_features
from asrtool.data.features import compute_features, count_frames
from asrtool.data.loading import SpeechDataset, load_batches
from asrtool.data.manifest import open_cuts, write_manifest
from asrtool.data.sampling import CutBatch, OrderedSampler, TrainingSampler
from asrtool.data.shards import entries, manifest_files, read_entries
from asrtool.distributed import Ranks
from asrtool.errors import AsrtoolError, DataError
from asrtool.text.tokenizer import load_tokenizer


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


def positions(sampler, count):
    return [(item.position, [entry.id for entry in item.entries]) for item in islice(sampler, count)]


def assert_same(one, two):
    assert [batch.position for batch in one] == [batch.position for batch in two]
    for a, b in zip(one, two, strict=True):
        assert (a.ids, a.texts, a.seconds) == (b.ids, b.texts, b.seconds)
        assert torch.equal(a.features, b.features)
        assert torch.equal(a.feature_lens, b.feature_lens)
        assert torch.equal(a.targets, b.targets)


@pytest.mark.parametrize("workers", [1, 2])
def test_loader_processes_give_the_same_bits(tiny_config, everything, load_epochs, workers):
    config = tiny_config(data={"augment": everything, "batch_seconds": 6})
    assert_same(load_epochs(config, 1, workers), load_epochs(config, 1))


def test_the_same_seed_gives_the_same_epoch_and_another_seed_does_not(tiny_config, everything, load_epochs):
    data = {"augment": everything}
    one, two, other = (load_epochs(tiny_config(seed=seed, data=data)) for seed in (1, 1, 2))
    assert_same(one, two)
    assert [batch.ids for batch in one] != [batch.ids for batch in other]


def test_epochs_differ_in_their_order(tiny_config):
    items = positions(TrainingSampler(tiny_config().data, seed=1), 20)
    first, second = ([names for position, names in items if position.epoch == epoch] for epoch in (0, 1))
    assert first != second


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


def test_masks_differ_from_batch_to_batch(tiny_config, everything, corpus):
    augment = {"spec_augment": everything["spec_augment"] | {"probability": 1.0}}
    dataset = SpeechDataset(tiny_config(data={"augment": augment}), None, training=True)
    four = list(islice(entries(corpus), 4))

    def features(**at):
        return dataset[CutBatch(Position(**at), four, Position())].features

    assert torch.equal(features(), features())
    assert not any(torch.equal(features(**{name: 1}), features()) for name in ("epoch", "file", "line", "batch"))


def test_without_augmentation_training_sees_the_features_as_they_are(tiny_config, corpus, load_epochs):
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


def test_batch_mates_do_not_change_a_cut(tiny_config, on_audio, load_epochs):
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


@pytest.mark.parametrize("buckets", [1, 3, 10, 1000])
def test_every_epoch_holds_each_cut_once(tiny_config, corpus, buckets):
    config = tiny_config(data={"num_buckets": buckets, "augment": {"speeds": [0.9, 1.1]}})
    epochs = {epoch: Counter() for epoch in range(3)}
    for item in takewhile(lambda item: item.position.epoch < 3, TrainingSampler(config.data, config.seed)):
        epochs[item.position.epoch].update(entry.id for entry in item.entries)
    once = Counter(cut.id for cut in open_cuts(corpus))
    assert all(found == once for found in epochs.values())


def test_batches_are_numbered_from_zero_in_every_epoch(tiny_config):
    found = list(islice(TrainingSampler(tiny_config().data, seed=1), 30))
    for before, after in zip(found, found[1:], strict=False):
        assert before.next_position == after.position
        epoch, batch = before.position.epoch, before.position.batch
        assert after.position in (Position(epoch, batch=batch + 1), Position(epoch + 1))


@pytest.mark.parametrize("seconds", [3.5, 6, 20])
@pytest.mark.parametrize("buckets", [1, 4])
def test_padded_batches_stay_within_batch_seconds(tiny_config, seconds, buckets):
    config = tiny_config(data={"batch_seconds": seconds, "num_buckets": buckets, "augment": {"speeds": [0.9, 1.0]}})
    for item in islice(TrainingSampler(config.data, config.seed), 40):
        longest = max(SpeechDataset(config, None, True)._cut(e, item.position.epoch).duration for e in item.entries)
        assert longest * len(item.entries) <= seconds + 1e-3  # a changed speed is rounded to whole samples


def padded_seconds(item) -> float:
    return max(entry.duration for entry in item.entries) * len(item.entries)


def test_a_cut_longer_than_a_batch_comes_alone(tiny_config, corpus):
    config = tiny_config(data={"batch_seconds": 1.0})
    for item in takewhile(lambda item: item.position.epoch < 1, TrainingSampler(config.data, config.seed)):
        assert len(item.entries) == 1 or padded_seconds(item) <= 1.0


def test_buckets_keep_padding_small(tmp_path, tiny_config):
    manifest = synthetic(tmp_path / "many.jsonl.gz", 2000)
    config = tiny_config(data={"train": str(manifest), "batch_seconds": 100, "num_buckets": 10})
    items = list(takewhile(lambda item: item.position.epoch < 1, TrainingSampler(config.data, config.seed)))
    padded = sum(padded_seconds(item) for item in items)
    seconds = sum(entry.duration for item in items for entry in item.entries)
    assert seconds / padded > 0.85  # without buckets 0.55
    assert seconds / len(items) > 70  # and the batches are full


@pytest.mark.parametrize("sampler", ["training", "ordered"])
def test_dropped_cuts_never_come(tiny_config, corpus, sampler):
    dropped = frozenset(cut.id for cut in open_cuts(corpus).subset(first=9))
    config = tiny_config(data={"augment": {"speeds": [0.9, 1.0, 1.1]}})
    if sampler == "training":
        items = islice(TrainingSampler(config.data, config.seed, dropped), 30)
    else:
        items = OrderedSampler(corpus, 10.0, dropped)
    names = {entry.id for item in items for entry in item.entries}
    assert names == {cut.id for cut in open_cuts(corpus)} - dropped


def test_the_stream_goes_on_from_any_position(tiny_config):
    config = tiny_config(data={"augment": {"speeds": [0.9, 1.0, 1.1]}, "batch_seconds": 6})
    whole = positions(TrainingSampler(config.data, config.seed), 40)
    assert whole[-1][0].epoch >= 2
    for number, (position, _) in enumerate(whole):
        assert (
            positions(TrainingSampler(config.data, config.seed, start=position), 40 - number)[:6]
            == whole[number : number + 6]
        )


def test_a_position_at_the_end_of_an_epoch_goes_on_with_the_next(tiny_config):
    config = tiny_config()
    whole = positions(TrainingSampler(config.data, config.seed), 20)
    size = sum(position.epoch == 0 for position, _ in whole)
    assert (
        positions(TrainingSampler(config.data, config.seed, start=Position(0, batch=size)), 3) == whole[size : size + 3]
    )


def test_a_resumed_stream_is_the_same_bits(tiny_config, everything, load_epochs):
    config = tiny_config(data={"augment": everything, "batch_seconds": 6})
    whole = load_epochs(config, 1)
    half = len(whole) // 2
    assert_same(load_epochs(config, 1, start=whole[half].position), whole[half:])


@pytest.fixture(scope="module")
def parts(corpus, tmp_path_factory):
    """The corpus as a folder of four files, of 5, 1, 10 and 8 cuts."""
    folder, cuts = tmp_path_factory.mktemp("parts"), iter(open_cuts(corpus))
    for name, count in (("a", 5), ("b", 1), ("c", 10), ("d", 8)):
        CutSet.from_cuts(list(islice(cuts, count))).to_file(folder / f"{name}.jsonl.gz")
    return folder


@pytest.fixture(params=[5, 7, 24])
def in_blocks(monkeypatch, parts, tiny_config, request):
    """A configuration for that folder, which is read in blocks of 5, 7, or 24 cuts: of some files or parts of one."""
    monkeypatch.setattr(sampling, "BLOCK_CUTS", request.param)
    augment = {"speeds": [0.9, 1.0, 1.1]}
    return tiny_config(data={"train": str(parts), "batch_seconds": 4, "num_buckets": 2, "augment": augment})


def test_every_epoch_of_a_folder_in_blocks_holds_each_cut_once(in_blocks, corpus):
    epochs = {epoch: Counter() for epoch in range(4)}
    for item in takewhile(lambda item: item.position.epoch < 4, TrainingSampler(in_blocks.data, in_blocks.seed)):
        epochs[item.position.epoch].update(entry.id for entry in item.entries)
    once = Counter(cut.id for cut in open_cuts(corpus))
    assert all(found == once for found in epochs.values())


def test_files_come_in_another_order_each_epoch(monkeypatch, tiny_config, parts):
    monkeypatch.setattr(sampling, "BLOCK_CUTS", 1)
    files = {entry.id: file for file in manifest_files(parts) for entry in read_entries(file)}
    orders = [{} for _ in range(6)]
    sampler = TrainingSampler(tiny_config(data={"train": str(parts)}).data, seed=1)
    for item in takewhile(lambda item: item.position.epoch < 6, sampler):
        orders[item.position.epoch] |= {files[entry.id]: None for entry in item.entries}
    assert all(set(order) == set(files.values()) for order in orders)
    assert len({tuple(order) for order in orders}) > 2


def test_a_folder_in_blocks_goes_on_from_any_position(in_blocks):
    found = list(takewhile(lambda item: item.position.epoch < 3, TrainingSampler(in_blocks.data, in_blocks.seed)))
    whole = positions(found, len(found))
    for number, (before, after) in enumerate(zip(found, found[1:], strict=False)):
        assert before.next_position == after.position
        resumed = TrainingSampler(in_blocks.data, in_blocks.seed, start=before.position)
        assert positions(resumed, min(9, len(whole) - number)) == whole[number : number + 9]


def test_a_file_is_opened_once_an_epoch_however_many_blocks_it_has(monkeypatch, in_blocks):
    batches_of_epoch = sum(
        1 for _ in takewhile(lambda item: item.position.epoch < 1, TrainingSampler(in_blocks.data, in_blocks.seed))
    )
    opened = Counter()

    def counted(file, first):
        opened[file.name] += 1
        return read_entries(file, first)

    monkeypatch.setattr(sampling, "read_entries", counted)
    list(
        islice(TrainingSampler(in_blocks.data, in_blocks.seed), batches_of_epoch - 1)
    )  # to find `next_position` of the last, the next epoch begins
    assert opened == Counter(["a.jsonl.gz", "b.jsonl.gz", "c.jsonl.gz", "d.jsonl.gz"])


@pytest.mark.parametrize("size", [1, 2, 3])
def test_ranks_share_the_stream_of_one(in_blocks, size):
    one = positions(TrainingSampler(in_blocks.data, in_blocks.seed), 60)
    ranks = [
        list(islice(TrainingSampler(in_blocks.data, in_blocks.seed, ranks=Ranks(r, size)), 60 // size))
        for r in range(size)
    ]
    rounds = list(zip(*ranks, strict=True))
    assert positions((item for items in rounds for item in items), 60) == one
    for items, following in zip(rounds, rounds[1:], strict=False):
        assert {item.next_position for item in items} == {following[0].position}


@pytest.mark.parametrize("sizes", [(1, 2, 3), (3, 1, 2), (2, 3, 1)])
def test_going_on_with_another_number_of_ranks_keeps_the_stream(in_blocks, sizes):
    at, found = Position(), []
    for size, rounds in zip(sizes, (3, 7, 5), strict=True):
        ranks = [
            list(islice(TrainingSampler(in_blocks.data, in_blocks.seed, frozenset(), at, Ranks(r, size)), rounds))
            for r in range(size)
        ]
        found += [item for items in zip(*ranks, strict=True) for item in items]
        at = found[-1].next_position
    assert positions(found, len(found)) == positions(TrainingSampler(in_blocks.data, in_blocks.seed), len(found))


def test_ranks_decode_each_cut_once(in_blocks, corpus, parts):
    names = [
        entry.id for r in range(3) for item in OrderedSampler(parts, 4.0, ranks=Ranks(r, 3)) for entry in item.entries
    ]
    assert Counter(names) == Counter(cut.id for cut in open_cuts(corpus))


def test_shar_trains_like_the_manifest_it_was_made_of(tiny_config, on_audio, corpus, tmp_path, load_epochs):
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


def test_loading_leaves_the_random_states_of_training_alone(tiny_config, everything, load_epochs):
    torch.manual_seed(5)
    expected = torch.rand(3)
    for workers in (0, 1):
        torch.manual_seed(5)
        load_epochs(tiny_config(data={"augment": everything}), workers=workers)
        assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("seconds", [3.0, 10.0, 1000.0])
def test_the_ordered_sampler_gives_every_cut_once_within_batch_seconds(corpus, seconds):
    items = list(OrderedSampler(corpus, seconds))
    assert Counter(e.id for item in items for e in item.entries) == Counter(c.id for c in open_cuts(corpus))
    assert [item.position for item in items] == [Position(batch=number) for number in range(len(items))]
    assert all(padded_seconds(item) <= seconds for item in items)


def test_decoding_sees_no_augmentation_and_no_targets(tiny_config, everything, corpus):
    dataset = SpeechDataset(tiny_config(data={"augment": everything}), None, training=False)
    loaded = list(load_batches(dataset, OrderedSampler(corpus, 10.0), 0))
    seen = utterances(loaded)
    for cut in open_cuts(corpus):
        assert torch.equal(seen[cut.id], compute_features(cut, 20))
    assert all(batch.targets.shape == (len(batch.ids), 0) for batch in loaded)


def test_stored_features_train_like_computed_ones(tiny_config, corpus, tmp_path, load_epochs):
    stored = tmp_path / "stored.jsonl.gz"
    store_features(corpus, stored, 20)
    one = load_epochs(tiny_config(features={"source": "stored"}, data={"train": str(stored)}))
    two = load_epochs(tiny_config())
    assert [batch.ids for batch in one] == [batch.ids for batch in two]
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a.features, b.features, rtol=0, atol=2.0**-8)


def synthetic(path, cuts):
    """A manifest of `cuts` cuts of 1 to 20 s whose audio does not exist."""
    seconds = np.random.default_rng(0).uniform(1, 20, cuts).round(2)

    def cut(number):
        source = AudioSource("file", [0], f"/none/{number}.flac")
        duration = float(seconds[number])
        recording = Recording(f"r{number}", [source], 16000, round(duration * 16000), duration)
        supervision = SupervisionSegment(f"u{number}", f"r{number}", 0, duration, text="one two")
        return MonoCut(f"u{number}", 0, duration, 0, [supervision], recording=recording)

    CutSet.from_cuts(map(cut, range(cuts))).to_file(path)
    return path


def test_what_goes_to_a_loader_process_holds_no_manifest(tiny_config, tmp_path, tokenizer_file):
    manifest = synthetic(tmp_path / "many.jsonl.gz", 2000)
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


def test_lengths_of_a_batch_are_those_the_manifest_promises(tiny_config, corpus, load_epochs):
    promised = {cut.id: count_frames(cut.num_samples, cut.sampling_rate) for cut in open_cuts(corpus)}
    for batch in load_epochs(tiny_config()):
        assert batch.feature_lens.tolist() == [promised[name] for name in batch.ids]
