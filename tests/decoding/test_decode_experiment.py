"""Decoding a manifest with an experiment folder."""

import json
import shutil

import pytest
import torch
from lhotse import CutSet

from asrtool import checkpoint
from asrtool.config_file import save_config
from asrtool.data.lhotse_sets import open_cuts
from asrtool.decoding import decode as decoding
from asrtool.decoding import partial_results
from asrtool.decoding.decode import decode
from asrtool.decoding.search_setup import open_search
from asrtool.errors import UserError
from asrtool.experiment import open_experiment


def run(experiment, corpus, out, method="greedy", batch_seconds=200.0, **options):
    opened = open_experiment(experiment, device="cpu")
    search, settings, _ = open_search(method, opened.tokenizer, options)
    facts = decode(opened, corpus, out, "test", method, search, settings, batch_seconds=batch_seconds, workers=0)
    rows = [json.loads(line) for line in (out / "hyps.jsonl").read_text(encoding="utf-8").splitlines()]
    return facts, rows


def visible(folder):
    """The names in a folder, but for the lock of the processes that write into it."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


@pytest.mark.parametrize("method", ["greedy", "prefix"])
def test_every_utterance_gets_a_row_in_the_order_of_their_ids(experiment, corpus, tmp_path, method):
    facts, rows = run(experiment, corpus, tmp_path, method=method)
    assert [row["id"] for row in rows] == sorted(row["id"] for row in rows) and len(rows) == 24
    assert all(row["ref"] for row in rows) and any(row["hyp"] for row in rows)
    for row in rows:
        assert row["speaker"] == row["id"][0]
        assert [unit for unit, _ in row["units"]] == row["hyp"].split()
        times = [at for _, at in row["units"]]
        assert times == sorted(times) and all(0 <= at < 5 for at in times)
    assert facts == json.loads((tmp_path / "decode.json").read_text(encoding="utf-8"))
    assert (facts["set"], facts["method"], facts["utterances"], facts["ranks"]) == ("test", method, 24, 1)
    assert visible(tmp_path) == ["decode.json", "hyps.jsonl"]


def test_the_real_time_factor_comes_with_what_it_was_measured_on(experiment, corpus, tmp_path):
    facts, _ = run(experiment, corpus, tmp_path, batch_seconds=20)
    assert facts["rtf"] >= facts["rtf_model"] + facts["rtf_search"] - 2e-5 and facts["rtf_model"] > 0
    assert facts["device"].endswith(f"{torch.get_num_threads()} threads") and facts["batch_seconds"] == 20
    assert facts["checkpoint"] == "best.pt" and facts["cuts"] == str(corpus) and facts["audio_seconds"] > 20
    assert {"command", "version", "git"} <= facts.keys()


@pytest.mark.parametrize("method", ["greedy", "prefix"])
def test_the_size_of_the_batches_does_not_change_the_words(experiment, corpus, tmp_path, method):
    one, many = (
        run(experiment, corpus, tmp_path / str(seconds), method=method, batch_seconds=seconds)[1]
        for seconds in (0.1, 1000.0)
    )
    for alone, together in zip(one, many, strict=True):
        assert together == alone | {"score": pytest.approx(alone["score"], abs=1e-3)}


@pytest.fixture
def log(monkeypatch):
    """The numbers of the batches that a model has seen; log.limit: before which of them it is interrupted."""

    class Log(list):
        limit = None

    log, real = Log(), decoding.Experiment.log_probs

    def log_probs(self, batch):
        if len(log) == log.limit:
            raise KeyboardInterrupt
        log.append(batch.position.batch)
        return real(self, batch)

    monkeypatch.setattr(decoding.Experiment, "log_probs", log_probs)
    monkeypatch.setattr(decoding, "FILE_SECONDS", 0.0)  # a part a batch
    return log


@pytest.fixture
def interrupted(experiment, corpus, tmp_path, log):
    """The folder of a decoding that was interrupted after four batches."""
    log.limit = 4
    with pytest.raises(KeyboardInterrupt):
        run(experiment, corpus, tmp_path / "out", batch_seconds=4)
    log.limit = None
    assert visible(tmp_path / "out") == ["parts"]
    return tmp_path / "out"


def test_an_interrupted_run_resumes_and_writes_the_same_files(experiment, corpus, tmp_path, log, interrupted, capsys):
    facts, rows = run(experiment, corpus, interrupted, batch_seconds=4)
    assert log == list(range(len(log))) and "resuming after 4 batches of an interrupted run" in capsys.readouterr().err
    whole, expected = run(experiment, corpus, tmp_path / "whole", batch_seconds=4)
    assert rows == expected and facts["audio_seconds"] == whole["audio_seconds"]
    assert visible(interrupted) == ["decode.json", "hyps.jsonl"]


@pytest.mark.parametrize("change", ["weights", "manifest", "batches", "method"])
def test_partial_results_of_other_settings_are_not_used(experiment, corpus, tmp_path, log, interrupted, change):
    folder, options = tmp_path / "exp", {"batch_seconds": 4}
    shutil.copytree(experiment, folder)
    if change == "weights":
        state = checkpoint.load_checkpoint(folder / "checkpoints" / "best.pt")
        state["model"]["output.weight"] *= 2
        checkpoint.save_checkpoint(folder / "checkpoints" / "best.pt", state)
    elif change == "manifest":
        corpus = shutil.copy(corpus, tmp_path / "cuts.jsonl.gz")
        CutSet.from_cuts(list(open_cuts(corpus))[1:]).to_file(corpus)
    else:
        options |= {"batch_seconds": 5} if change == "batches" else {"method": "prefix"}
    log.clear()
    _, rows = run(folder, corpus, interrupted, **options)
    assert log == list(range(len(log))) and len(rows) == 24 - (change == "manifest")
    assert visible(interrupted) == ["decode.json", "hyps.jsonl"]


def test_a_single_process_decodes_again_when_the_command_is_repeated(experiment, corpus, tmp_path, log):
    assert run(experiment, corpus, tmp_path)[1] == run(experiment, corpus, tmp_path)[1]
    assert log == 2 * list(range(len(log) // 2))


def test_half_deleted_partial_results_are_not_resumed(experiment, corpus, tmp_path, log, monkeypatch):
    def half(folder, **_):
        ends = [path for path in folder.rglob("*-000000.jsonl")] if folder.is_dir() else []
        if ends:
            ends[0].unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(partial_results.shutil, "rmtree", half)
        run(experiment, corpus, tmp_path)
    assert len(run(experiment, corpus, tmp_path)[1]) == 24
    assert visible(tmp_path) == ["decode.json", "hyps.jsonl"]


def test_a_wider_beam_finds_no_worse_hypothesis(experiment, corpus, tmp_path):
    narrow, wide = (run(experiment, corpus, tmp_path / str(b), method="prefix", beam=b)[1] for b in (1, 8))
    assert sum(row["score"] for row in wide) >= sum(row["score"] for row in narrow)


def test_a_folder_without_configuration_is_not_an_experiment(tmp_path):
    with pytest.raises(UserError, match="is not an experiment: it has no config.yaml"):
        open_experiment(tmp_path)


@pytest.mark.parametrize("which", ["last", "some/where.pt"])
def test_a_missing_checkpoint_is_named(experiment, which):
    with pytest.raises(UserError, match=f"checkpoint not found: .*{which}"):
        open_experiment(experiment, which)


def test_a_checkpoint_of_another_model_is_refused(experiment, tiny_config, tmp_path):
    save_config(tiny_config(model={"dim": 32}), tmp_path / "config.yaml")
    (tmp_path / "tokenizer.json").write_bytes((experiment / "tokenizer.json").read_bytes())
    with pytest.raises(UserError, match=r"best\.pt does not fit the configuration: .* is \(.*\) in the model and"):
        open_experiment(tmp_path, str(experiment / "checkpoints" / "best.pt"))


def test_a_folder_without_its_tokenizer_is_refused(experiment, tmp_path):
    (tmp_path / "config.yaml").write_bytes((experiment / "config.yaml").read_bytes())
    with pytest.raises(UserError, match=r"tokenizer not found: .*tokenizer\.json"):
        open_experiment(tmp_path)


def test_a_missing_manifest_leaves_nothing_behind(experiment, tmp_path):
    with pytest.raises(UserError, match="manifest not found"):
        run(experiment, tmp_path / "none.jsonl.gz", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_gpu_is_an_error_before_anything_is_decoded(experiment):
    count = torch.cuda.device_count()
    with pytest.raises(UserError, match=f"this machine has {count} GPUs"):
        open_experiment(experiment, device=f"cuda:{count}")
    with pytest.raises(UserError, match="is not a device"):
        open_experiment(experiment, device="abacus")
