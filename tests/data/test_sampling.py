"""Samplers yield each cut once an epoch, in batches of similar lengths, and resume from any position."""

from collections import Counter
from itertools import islice, takewhile

import pytest
from lhotse import CutSet

from asrtool.data import corpus_lines, sampling
from asrtool.data.batch import Position
from asrtool.data.batch_cost import UtteranceCost
from asrtool.data.lhotse_sets import open_cuts
from asrtool.data.loading import SpeechDataset
from asrtool.data.sampling import OrderedSampler, TrainingSampler
from asrtool.data.shards import manifest_files, read_entries
from asrtool.distributed import SINGLE_PROCESS, Ranks
from tests.tiny import make_manifest_without_audio


def positions(sampler, count):
    return [(item.position, [entry.id for entry in item.entries]) for item in islice(sampler, count)]


def test_epochs_differ_in_their_order(tiny_config):
    items = positions(TrainingSampler(tiny_config().data, seed=1), 20)
    first, second = ([names for position, names in items if position.epoch == epoch] for epoch in (0, 1))
    assert first != second


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
    manifest = make_manifest_without_audio(tmp_path / "many.jsonl.gz", 2000)
    config = tiny_config(data={"train": str(manifest), "batch_seconds": 100, "num_buckets": 10})
    items = list(takewhile(lambda item: item.position.epoch < 1, TrainingSampler(config.data, config.seed)))
    padded = sum(padded_seconds(item) for item in items)
    seconds = sum(entry.duration for item in items for entry in item.entries)
    assert seconds / padded > 0.85  # without buckets 0.55
    assert seconds / len(items) > 70  # and the batches are full


@pytest.mark.parametrize("sampler", ["training", "ordered"])
def test_dropped_cuts_are_in_no_batch(tiny_config, corpus, sampler):
    dropped = frozenset(cut.id for cut in open_cuts(corpus).subset(first=9))
    config = tiny_config(data={"augment": {"speeds": [0.9, 1.0, 1.1]}})
    if sampler == "training":
        items = islice(TrainingSampler(config.data, config.seed, dropped), 30)
    else:
        items = OrderedSampler(corpus, 10.0, dropped)
    names = {entry.id for item in items for entry in item.entries}
    assert names == {cut.id for cut in open_cuts(corpus)} - dropped


def test_the_stream_resumes_from_any_position(tiny_config):
    config = tiny_config(data={"augment": {"speeds": [0.9, 1.0, 1.1]}, "batch_seconds": 6})
    whole = positions(TrainingSampler(config.data, config.seed), 40)
    assert whole[-1][0].epoch >= 2
    for number, (position, _) in enumerate(whole):
        assert (
            positions(TrainingSampler(config.data, config.seed, start=position), 40 - number)[:6]
            == whole[number : number + 6]
        )


def test_a_position_at_the_end_of_an_epoch_resumes_with_the_next_epoch(tiny_config):
    config = tiny_config()
    whole = positions(TrainingSampler(config.data, config.seed), 20)
    size = sum(position.epoch == 0 for position, _ in whole)
    assert (
        positions(TrainingSampler(config.data, config.seed, start=Position(0, batch=size)), 3) == whole[size : size + 3]
    )


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


def test_the_order_of_files_changes_each_epoch(monkeypatch, tiny_config, parts):
    monkeypatch.setattr(sampling, "BLOCK_CUTS", 1)
    files = {entry.id: file for file in manifest_files(parts) for entry in read_entries(file)}
    orders = [{} for _ in range(6)]
    sampler = TrainingSampler(tiny_config(data={"train": str(parts)}).data, seed=1)
    for item in takewhile(lambda item: item.position.epoch < 6, sampler):
        orders[item.position.epoch] |= {files[entry.id]: None for entry in item.entries}
    assert all(set(order) == set(files.values()) for order in orders)
    assert len({tuple(order) for order in orders}) > 2


def test_a_folder_in_blocks_resumes_from_any_position(in_blocks):
    found = list(takewhile(lambda item: item.position.epoch < 3, TrainingSampler(in_blocks.data, in_blocks.seed)))
    whole = positions(found, len(found))
    for number, (before, after) in enumerate(zip(found, found[1:], strict=False)):
        assert before.next_position == after.position
        resumed = TrainingSampler(in_blocks.data, in_blocks.seed, start=before.position)
        assert positions(resumed, min(9, len(whole) - number)) == whole[number : number + 9]


def test_a_file_is_opened_once_an_epoch_even_if_it_has_many_blocks(monkeypatch, in_blocks):
    batches_of_epoch = sum(
        1 for _ in takewhile(lambda item: item.position.epoch < 1, TrainingSampler(in_blocks.data, in_blocks.seed))
    )
    opened = Counter()

    def counted(file, first):
        opened[file.name] += 1
        return read_entries(file, first)

    monkeypatch.setattr(corpus_lines, "read_entries", counted)
    list(
        islice(TrainingSampler(in_blocks.data, in_blocks.seed), batches_of_epoch - 1)
    )  # to find `next_position` of the last, the next epoch begins
    assert opened == Counter(["a.jsonl.gz", "b.jsonl.gz", "c.jsonl.gz", "d.jsonl.gz"])


@pytest.mark.parametrize("size", [1, 2, 3])
def test_ranks_divide_the_stream_of_one_process(in_blocks, size):
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
def test_resuming_with_another_number_of_ranks_keeps_the_stream(in_blocks, sizes):
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


@pytest.mark.parametrize("seconds", [3.0, 10.0, 1000.0])
def test_the_ordered_sampler_yields_every_cut_once_within_batch_seconds(corpus, seconds):
    items = list(OrderedSampler(corpus, seconds))
    assert Counter(e.id for item in items for e in item.entries) == Counter(c.id for c in open_cuts(corpus))
    assert [item.position for item in items] == [Position(batch=number) for number in range(len(items))]
    assert all(padded_seconds(item) <= seconds for item in items)


def test_a_stream_balanced_by_cost_resumes_and_is_shared_and_its_pairs_cost_the_same(tmp_path, tiny_config):
    cost = UtteranceCost(4.0)
    manifest = make_manifest_without_audio(tmp_path / "many.jsonl.gz", 500)
    data = tiny_config(data={"train": str(manifest), "batch_seconds": 40, "num_buckets": 5}).data

    def sampler(start=None, ranks=SINGLE_PROCESS):
        return TrainingSampler(data, 1, start=start, ranks=ranks, cost=cost)

    items = list(takewhile(lambda item: item.position.epoch < 1, sampler()))
    whole = positions(items, len(items))
    for begin in (1, 7, len(items) - 2):
        assert positions(sampler(items[begin].position), len(items) - begin) == whole[begin:]
    ranks = [positions(sampler(ranks=Ranks(rank, 2)), len(items) // 2) for rank in range(2)]
    assert [item for pair in zip(*ranks, strict=True) for item in pair] == whole
    costs = [len(item.entries) * max(cost(entry.duration) for entry in item.entries) for item in items]
    assert max(costs) <= 40
    waiting = sum(abs(a - b) / 2 for a, b in zip(costs[::2], costs[1::2], strict=True))
    assert waiting < 0.01 * sum(costs)
