"""Trainings on several corpora, with several dev sets and with exclusion lists."""

import json
import math

import pytest
from lhotse import CutSet

from asrtool.data.inspection import CutRequirements
from asrtool.data.mixing import measure_corpora
from asrtool.errors import UserError
from asrtool.text.tokenizer import load_tokenizer
from asrtool.training import train as loop
from asrtool.training.data_counts import corpus_factors, unit_counts
from asrtool.training.experiment_folder import scan_manifests
from asrtool.training.state import TrainingProgress
from asrtool.training.train import train

ROOM = {"probability": 0.5, "t60": [0.1, 0.3]}


@pytest.fixture(scope="module")
def parts(corpus, tmp_path_factory):
    """The tiny corpus in two manifests, of 16 and 8 cuts, and one of noise."""
    folder = tmp_path_factory.mktemp("parts")
    cuts = list(CutSet.from_file(corpus))
    CutSet.from_cuts(cuts[:16]).to_file(folder / "first.jsonl.gz")
    CutSet.from_cuts(cuts[16:]).to_file(folder / "second.jsonl.gz")
    return folder


@pytest.fixture
def make_config(tiny_config, parts):
    """make_config(**data) -> the two corpora, equally weighted, as training set and as dev sets"""

    def make(training=None, **data):
        train_sets = [{"manifest": str(parts / f"{name}.jsonl.gz"), "weight": 1.0} for name in ("first", "second")]
        dev_sets = {name: str(parts / f"{name}.jsonl.gz") for name in ("first", "second")}
        training = {"max_steps": 9, "validate_every": 3, "log_every": 2, "schedule": "none"} | (training or {})
        return tiny_config(data={"train": train_sets, "dev": dev_sets, **data}, training=training)

    return make


def every_augmentation(parts):
    noise = {"manifest": str(parts / "second.jsonl.gz"), "voices": [2, 3], "probability": 0.5, "snr": [5, 20]}
    return {
        "speeds": [0.9, 1.0, 1.1],
        "volume": [0.5, 2.0],
        "reverb": ROOM,
        "noise": [noise],
        "telephone_probability": 0.3,
        "lowpass": {"probability": 0.3},
        "codec": {"probability": 0.5, "codecs": ["gsm", "mulaw", "mp3", "vorbis"]},
        "vtlp": 0.1,
        "spec_augment": {"frequency_width": 5, "time_width": 10, "time_warp": 10},
    }


def test_mixing_with_every_augmentation_resumes_to_the_same_bits(
    make_config, parts, tmp_path, same_training, monkeypatch
):
    config = make_config(training={"max_steps": 6}, augment=every_augmentation(parts))
    train(config, tmp_path / "whole", device="cpu")
    real, calls = loop.training_step, []

    def interrupted(*args):
        result = real(*args)
        calls.append(1)
        if len(calls) in (2, 4):  # the second time after a resume
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(loop, "training_step", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "resumed", resume=True, device="cpu")
    train(config, tmp_path / "resumed", resume=True, device="cpu")
    same_training(tmp_path / "whole", tmp_path / "resumed")
    rows = [json.loads(line) for line in (tmp_path / "resumed/log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["event"] == "corpora"] == [2, 4, 6]


def test_corpora_and_dev_sets_are_reported_by_name(make_config, tmp_path, rows, capfd):
    train(make_config(training={"log_every": 9}), tmp_path / "exp", device="cpu")
    (row,) = rows(tmp_path / "exp", "corpora")
    assert row["share"].keys() == row["loss"].keys() == row["epoch"].keys() == {"first", "second"}
    assert row["share"]["first"] == pytest.approx(0.5, abs=0.2) and sum(row["share"].values()) == pytest.approx(1)
    assert row["epoch"]["second"] > row["epoch"]["first"] and all(map(math.isfinite, row["loss"].values()))
    for dev in [*rows(tmp_path / "exp", "dev"), *rows(tmp_path / "exp", "finished")]:
        assert dev["losses"].keys() == {"first", "second"} and dev["loss"] == dev["losses"]["first"]
    output = capfd.readouterr().err
    assert "second: 50.0% of the audio" in output and "(first " in output


def sums_of_a_rank(config, experiment):
    """Trains, and returns the values of the steps of this rank before its only report."""
    found = {}

    class Meter(loop.Meter):
        def take(self):
            summary = super().take()
            found.update(summary.sums)
            return summary

    loop.Meter = Meter  # in a process of its own
    train(config, experiment, device="cpu")
    return found


def test_shares_and_losses_of_corpora_are_those_of_all_ranks(make_config, tmp_path, on_ranks, rows):
    config = make_config(training={"max_steps": 2, "validate_every": 2, "log_every": 2}, batch_seconds=4)
    ranks = on_ranks(2, sums_of_a_rank, config, tmp_path / "exp")
    (row,) = rows(tmp_path / "exp", "corpora")
    seconds, units, loss = (
        [sum(rank[f"{name} of corpus {n}"] for rank in ranks) for n in (0, 1)] for name in ("seconds", "units", "loss")
    )
    assert list(row["share"].values()) == pytest.approx([part / sum(seconds) for part in seconds])
    assert list(row["loss"].values()) == pytest.approx([nats / of for nats, of in zip(loss, units, strict=True)])
    first = ranks[0]["seconds of corpus 0"] / (ranks[0]["seconds of corpus 0"] + ranks[0]["seconds of corpus 1"])
    assert row["share"]["first"] != pytest.approx(first)  # the ranks differ, so that the test can fail


def test_the_named_dev_set_chooses_the_best_checkpoint_and_stops_early(make_config, tmp_path, monkeypatch):
    coming = iter([{"first": 3.0, "second": 1.0}, {"first": 2.0, "second": 2.0}, {"first": 1.0, "second": 3.0}])
    monkeypatch.setattr(loop, "validate", lambda *_: next(coming, {"first": 0.0, "second": 0.0}))
    training = {"patience": 2, "max_steps": 30, "keep_best": 1, "keep_last": 1}
    train(make_config(training, early_stopping="second"), tmp_path / "exp", device="cpu")
    names = {path.name for path in (tmp_path / "exp/checkpoints").iterdir()}
    assert names == {"step-00000003.pt", "step-00000009.pt", "best.pt", "averaged.pt"}


def test_excluded_cuts_are_left_out_even_if_they_could_not_be_trained_on(
    make_config, corpus, parts, tmp_path, capfd, state
):
    cuts = list(CutSet.from_file(parts / "first.jsonl.gz"))
    cuts[3].supervisions[0].text = "unknown words"
    CutSet.from_cuts(cuts).to_file(tmp_path / "broken.jsonl.gz")
    (tmp_path / "bad.txt").write_text(f"{cuts[3].id}\tother language\n{cuts[5].id}\nnowhere\n")
    data = {"train": str(tmp_path / "broken.jsonl.gz"), "dev": str(corpus), "exclude": str(tmp_path / "bad.txt")}
    train(make_config(**data), tmp_path / "exp", device="cpu")
    dropped = (tmp_path / "exp/dropped.txt").read_text().splitlines()
    assert dropped[0] == f"train {cuts[3].id}: excluded by data.exclude: other language"
    assert [line.split(":")[0] for line in dropped] == [f"{s} {cuts[n].id}" for s in ("train", "dev") for n in (3, 5)]
    assert "data.exclude: 1 of 3 ids are in no manifest: nowhere" in capfd.readouterr().err
    (tmp_path / "bad.txt").write_text(f"{cuts[3].id}\n")
    with pytest.raises(UserError, match=r"broken\.jsonl\.gz, .*bad\.txt was changed"):
        train(make_config(training={"max_steps": 12}, **data), tmp_path / "exp", resume=True, device="cpu")


def test_ids_that_another_corpus_drops_are_left_out_of_the_sizes_with_a_warning(make_config, parts, tmp_path, capfd):
    cuts = list(CutSet.from_file(parts / "first.jsonl.gz"))
    shortened = [cut.truncate(duration=0.05, preserve_id=True) for cut in cuts[:2]]
    CutSet.from_cuts([*shortened, *cuts[2:]]).to_file(tmp_path / "short.jsonl.gz")
    manifests = [str(tmp_path / "short.jsonl.gz"), str(parts / "first.jsonl.gz")]
    config = make_config(train=manifests)
    requirements = CutRequirements(
        config.data, 16000, load_tokenizer(config.data.tokenizer), len, lambda frames: frames
    )
    dropped = scan_manifests(config.data, requirements, tmp_path)
    assert dropped.sizes == measure_corpora(config.data, dropped.train)
    assert [size.cuts for size in dropped.sizes] == [14, 14]
    assert "first.jsonl.gz: 2 cuts have the ids of cuts that another corpus drops" in capfd.readouterr().err


def test_a_noise_manifest_that_is_missing_stops_the_start(make_config, tmp_path):
    augment = {"noise": [{"manifest": "none.jsonl.gz", "probability": 0.001}]}
    with pytest.raises(UserError, match=r"data\.augment\.noise not found: none"):
        train(make_config(augment=augment), tmp_path / "exp", device="cpu")


@pytest.mark.parametrize("position", [[1, 2, 3, 4], [1, 0, 3, 4, [[0, 1, 2], [3, 0, 5]]]])
def test_a_position_in_a_checkpoint_comes_back_as_it_was(position):
    progress = TrainingProgress.from_dict({"position": position})
    assert progress.to_dict()["position"] == position
    assert TrainingProgress.from_dict(progress.to_dict()).position == progress.position


@pytest.mark.parametrize("position", [[1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 3, 4, [[1, 2]]], [1, 2, 3, 4, [[1, 2, -3]]]])
def test_a_position_of_another_shape_is_refused(position):
    with pytest.raises(ValueError, match="validation error"):
        TrainingProgress.from_dict({"position": position})


def test_corpora_count_by_their_shares(make_config, parts, tmp_path):
    """As if a corpus that has twice its share of the hours had been written twice."""
    sizes = measure_corpora(make_config().data, frozenset())
    seconds = [size.seconds for size in sizes]
    weights = [{"manifest": str(parts / "first.jsonl.gz"), "weight": seconds[0]}]
    weights += [{"manifest": str(parts / "second.jsonl.gz"), "weight": 2 * seconds[1]}]
    config = make_config(train=weights)
    factors = corpus_factors(config.data, seconds)
    assert factors[1] == pytest.approx(2 * factors[0])
    assert sum(factor * own for factor, own in zip(factors, seconds, strict=True)) == pytest.approx(sum(seconds))
    tokenizer = load_tokenizer(config.data.tokenizer)
    objective = config.objective.model_copy(update={"min_count": 0})
    counts = [
        unit_counts(each.data, objective, tokenizer, tmp_path / f"{number}.json")
        for number, each in enumerate(
            [
                config,
                make_config(train=str(parts / "first.jsonl.gz")),
                make_config(train=str(parts / "second.jsonl.gz")),
            ]
        )
    ]
    mixed, first, second = ({(*history, unit): n for history, row in one for unit, n in row} for one in counts)
    assert mixed.keys() == first.keys() | second.keys()
    for units, number in mixed.items():
        expected = factors[0] * (first.get(units, 0) + 2 * second.get(units, 0))
        assert number == pytest.approx(expected, abs=1e-5)


def test_corpora_without_weights_count_alike(make_config, parts, tmp_path):
    both = [str(parts / "first.jsonl.gz"), str(parts / "second.jsonl.gz")]
    config = make_config(train=both)
    assert corpus_factors(config.data, [100.0, 30.0]) == pytest.approx([1.0, 1.0])
    assert corpus_factors(make_config(train=both[0]).data, [100.0]) == [1.0]
    assert corpus_factors(make_config(train=both, temperature=1e6).data, [100.0, 300.0]) == pytest.approx([2, 2 / 3])
