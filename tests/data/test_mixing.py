"""Several corpora are one stream: each has its share of the audio, and the stream resumes from any position."""

import math
from collections import Counter
from itertools import islice

import pytest
from lhotse import CutSet

from asrtool.data import sampling
from asrtool.data.batch import CorpusPosition, Position
from asrtool.data.mixing import CorpusSize, corpus_names, corpus_shares, measure_corpora, training_fingerprint
from asrtool.data.sampling import TrainingSampler
from asrtool.distributed import Ranks
from asrtool.errors import DataError
from tests.tiny import make_manifest_without_audio


@pytest.fixture(scope="module")
def manifests(tmp_path_factory):
    """Three corpora of 300, 60 and 20 cuts without audio, the first one in two files."""
    folder = tmp_path_factory.mktemp("corpora")
    (folder / "large").mkdir()
    for name, cuts in (("large/one", 200), ("large/two", 100), ("middle", 60), ("small", 20)):
        make_manifest_without_audio(folder / f"{name}.jsonl.gz", cuts)
        whole = [cut.with_id(f"{name}-{cut.id}") for cut in CutSet.from_file(folder / f"{name}.jsonl.gz")]
        CutSet.from_cuts(whole).to_file(folder / f"{name}.jsonl.gz")
    return [folder / "large", folder / "middle.jsonl.gz", folder / "small.jsonl.gz"]


@pytest.fixture
def mixed(tiny_config, manifests):
    """mixed(weights, **data) -> the configuration of the three corpora."""

    def make(weights=(None, None, None), **data):
        train = [{"manifest": str(path), "weight": w} for path, w in zip(manifests, weights, strict=True)]
        return tiny_config(data={"train": train, "batch_seconds": 100, "num_buckets": 4, **data}).data

    return make


def seconds_of_corpora(data, batches, **options):
    seconds = Counter()
    for item in islice(TrainingSampler(data, seed=1, **options), batches):
        for entry in item.entries:
            seconds[entry.corpus] += entry.duration
    return [seconds[number] / sum(seconds.values()) for number in range(3)]


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (5.0, 3.0, 2.0), (0.01, 0.0, 0.99), (1.0, 100.0, 1.0)])
def test_the_shares_of_the_audio_are_those_of_the_weights(mixed, weights):
    weights = [max(weight, 1e-3) for weight in weights]
    found = seconds_of_corpora(mixed(weights), 400)
    assert found == pytest.approx([weight / sum(weights) for weight in weights], abs=0.005)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 1000.0])
def test_the_shares_without_weights_are_those_of_hours_and_temperature(mixed, temperature):
    data = mixed(temperature=temperature)
    powers = [size.seconds ** (1 / temperature) for size in measure_corpora(data, frozenset())]
    assert seconds_of_corpora(data, 400) == pytest.approx([power / sum(powers) for power in powers], abs=0.005)


def test_shares_hold_in_small_blocks_too(mixed, monkeypatch):
    """A corpus of which a block takes less than a cut has its share on average over the blocks."""
    monkeypatch.setattr(sampling, "BLOCK_CUTS", 10)
    assert seconds_of_corpora(mixed([0.8, 0.18, 0.02]), 800) == pytest.approx([0.8, 0.18, 0.02], abs=0.01)


def test_at_temperature_one_an_epoch_has_every_cut_about_once(mixed):
    sampler = TrainingSampler(mixed(), seed=1)
    found = Counter()
    for item in sampler:
        if item.position.epoch:
            break
        found.update(entry.id for entry in item.entries)
    assert sum(found.values()) == sampler.mixture.epoch_cuts == 380
    assert max(found.values()) <= 2 and len(found) > 370


def test_each_pass_over_a_corpus_has_each_cut_once_and_its_own_epoch(mixed):
    passes = Counter()
    for item in islice(TrainingSampler(mixed([1.0, 1.0, 8.0]), seed=1), 300):
        passes.update((entry.epoch, entry.id) for entry in item.entries if entry.corpus == 2)
    assert max(epoch for epoch, _ in passes) > 20
    assert set(passes.values()) == {1}
    complete = Counter(epoch for epoch, _ in passes)
    assert all(complete[epoch] == 20 for epoch in range(20))


def stream(data, count, start=None, ranks=None):
    sampler = TrainingSampler(data, 1, frozenset(), start, ranks or Ranks())
    return [
        (item.position, [(e.id, e.corpus, e.epoch) for e in item.entries], item.next_position)
        for item in islice(sampler, count)
    ]


@pytest.mark.parametrize("block_cuts", [7, 100, 50_000])
def test_the_stream_resumes_from_any_position(mixed, monkeypatch, block_cuts):
    monkeypatch.setattr(sampling, "BLOCK_CUTS", block_cuts)
    data = mixed([3.0, 2.0, 2.0], augment={"speeds": [0.9, 1.0, 1.1]})
    whole = stream(data, 120)
    assert whole[-1][0].epoch >= 1
    for number in range(0, 112, 16):
        assert whole[number][2] == whole[number + 1][0]
        assert stream(data, 5, whole[number][0]) == whole[number : number + 5]


def test_ranks_divide_the_stream_and_may_change_their_number(mixed):
    data = mixed()
    one = [names for _, names, _ in stream(data, 40)]
    two = [stream(data, 10, ranks=Ranks(rank, 2)) for rank in range(2)]
    three = [stream(data, 6, two[0][-1][2], Ranks(rank, 3)) for rank in range(3)]
    found = [item[1] for group in (two, three) for items in zip(*group, strict=True) for item in items]
    assert found == one[: len(found)]


def test_dropped_cuts_are_never_drawn_and_do_not_count(mixed, manifests):
    dropped = frozenset(cut.id for cut in CutSet.from_file(manifests[1]).subset(first=30))
    data = mixed([1.0, 1.0, 1.0])
    assert measure_corpora(data, dropped)[1].cuts == 30
    sampler = TrainingSampler(data, 1, dropped)
    assert not dropped & {entry.id for item in islice(sampler, 100) for entry in item.entries}


def test_a_corpus_of_which_nothing_is_left_is_named(mixed, manifests):
    dropped = frozenset(cut.id for cut in CutSet.from_file(manifests[2]))
    with pytest.raises(DataError, match=r"nothing of .*small\.jsonl\.gz is left"):
        TrainingSampler(mixed(), 1, dropped)
    wrong_size = [CorpusSize(10, 100.0)] * 3  # as if the manifest had been changed since
    with pytest.raises(DataError, match=r"nothing of .*small\.jsonl\.gz is left"):
        list(islice(TrainingSampler(mixed(), 1, dropped, sizes=wrong_size), 100))


def test_positions_name_the_next_line_of_each_corpus(mixed):
    position = stream(mixed([1.0, 1.0, 1.0]), 80)[-1][2]
    assert position.epoch >= 1 and len(position.corpora) == 3
    assert all(isinstance(corpus, CorpusPosition) for corpus in position.corpora)
    assert Position() != position


@pytest.mark.parametrize("weights", [(1e9, 1e-9, 1e9), (1e-9, 1e-9, 1e-9)])
def test_weights_at_the_limits_have_finite_shares(mixed, weights):
    shares = corpus_shares(mixed(weights), [CorpusSize(10, 100.0)] * 3)
    assert sum(shares) == pytest.approx(1) and min(shares) > 0
    assert len(list(islice(TrainingSampler(mixed(weights), seed=1), 5))) == 5


@pytest.mark.parametrize("weight", [0.0, 1e-300, 1e300, math.nan, math.inf, "1"])
def test_weights_beyond_the_limits_are_refused(mixed, weight):
    with pytest.raises(ValueError, match="weight"):
        mixed((1.0, weight, 1.0))


def test_a_corpus_of_one_short_cut_fills_batches(mixed, manifests, tmp_path):
    """It is read again and again, each time as another epoch, even within a batch."""
    one = CutSet.from_file(manifests[2]).subset(first=1)
    one.to_file(tmp_path / "one.jsonl.gz")
    data = mixed((1e-9, 1e-9, 1.0))
    small = data.train[2].model_copy(update={"manifest": tmp_path / "one.jsonl.gz"})
    data = data.model_copy(update={"train": (*data.train[:2], small)})
    first = next(iter(TrainingSampler(data, seed=1)))
    assert len(first.entries) > 5
    assert len({(entry.id, entry.epoch) for entry in first.entries}) == len(first.entries)


def test_shares_of_huge_corpora_are_finite(mixed):
    sizes = [CorpusSize(10**9, 1e12), CorpusSize(10**6, 1e9), CorpusSize(1, 1.0)]
    shares = corpus_shares(mixed(temperature=2.0), sizes)
    assert sum(shares) == pytest.approx(1) and shares[0] / shares[1] == pytest.approx(1000**0.5)


def test_names_of_corpora_are_short_and_differ(tmp_path):
    paths = [tmp_path / "a/train.jsonl.gz", tmp_path / "b/train.jsonl.gz", tmp_path / "c.jsonl.gz"]
    assert corpus_names(paths) == ["a/train", "b/train", "c"]
    assert corpus_names([paths[0], paths[0]]) == ["a/train", "a/train#2"]
    assert corpus_names([tmp_path / "a/b/../train.jsonl.gz", paths[1]]) == ["a/train", "b/train"]


def test_the_fingerprint_changes_with_any_manifest_and_exclusion_list(mixed, tmp_path):
    (tmp_path / "bad.txt").write_text("x\n")
    data = mixed(exclude=str(tmp_path / "bad.txt"))
    before = training_fingerprint(data)
    assert before != training_fingerprint(mixed()) and before == training_fingerprint(data)
    (tmp_path / "bad.txt").write_text("y\n")
    assert training_fingerprint(data) != before
