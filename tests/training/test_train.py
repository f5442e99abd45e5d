"""Training, from a configuration to an experiment folder."""

import json
import math
import random

import numpy as np
import pytest
import torch
from lhotse import CutSet
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from asrtool.config_file import load_config
from asrtool.errors import UserError
from asrtool.training import train as module
from asrtool.training.loss_plot import plot_losses
from asrtool.training.train import train


@pytest.fixture
def run(tmp_path, tiny_config):
    """run("name", resume=False, training={...}) -> the experiment folder, trained"""

    def run(name="exp", resume=False, **changes):
        train(tiny_config(**changes), tmp_path / name, resume, "cpu")
        return tmp_path / name

    return run


@pytest.fixture
def dev_losses(monkeypatch):
    """dev_losses(3.0, 1.0, ...): the results of the next validations."""

    def pretend(*losses):
        coming = iter(losses)
        # the last one is of the averaged weights
        monkeypatch.setattr(module, "validate", lambda *_: {"dev": next(coming, 0.0)})

    return pretend


def checkpoints(experiment):
    return sorted(path.name for path in (experiment / "checkpoints").iterdir())


def test_the_log_has_command_device_parameters_time_and_cost(tmp_path, tiny_config, train_process):
    config = tiny_config(training={"max_steps": 3, "validate_every": 2, "log_every": 2})
    code = "import sys; sys.argv[0] = 'asrtool'"
    for resume in ([], ["--resume", "--set", "training.max_steps=5"]):
        done = train_process(config, tmp_path / "exp", code, "--threads", "1", *resume)
        assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in (tmp_path / "exp" / "log.jsonl").read_text().splitlines()]
    starts = [row for row in events if row["event"] == "start"]
    assert [(row["step"], row["ranks"]) for row in starts] == [(0, 1), (3, 1)]
    longest = max(cut.duration for cut in CutSet.from_file(config.data.train))
    assert all(row["longest_seconds"] == longest for row in starts)
    assert all(row["device"].endswith(", 1 threads") and {"version", "git"} <= row.keys() for row in starts)
    assert starts[0]["command"].startswith("asrtool train ") and starts[1]["command"].endswith("training.max_steps=5")
    last = events[-1]
    assert (last["event"], last["step"]) == ("finished", 5)
    assert last["hours"] > max(row["hours"] for row in events if row["event"] == "train")  # which was at step 4
    assert last["peak_memory_gb"] > 0.1 and last["device_hours"] > 0  # torch alone takes more


def test_training_learns_the_tiny_corpus(run, rows):
    fast = {"lr": 1e-2, "warmup_steps": 10, "max_steps": 120, "validate_every": 60, "log_every": 20}
    experiment = run(model={"dim": 32, "convolution": {"kind": "residual"}}, training=fast)
    losses = [row["loss"] for row in rows(experiment, "train")]
    assert losses[-1] < losses[0] / 2 and losses[-1] < math.log(4)  # below a guess of words without listening
    assert rows(experiment, "dev")[-1]["loss"] < math.log(4)


def test_training_writes_all_files_of_an_experiment(run, rows, state, tiny_config):
    experiment = run()
    files = {"config.yaml", "tokenizer.json", "checkpoints", "log.jsonl", "tensorboard", "dropped.txt", ".lock"}
    assert {path.name for path in experiment.iterdir()} == files
    assert load_config(experiment / "config.yaml") == tiny_config()
    assert checkpoints(experiment) == ["averaged.pt", "best.pt", "step-00000004.pt", "step-00000008.pt"]
    assert [row["step"] for row in rows(experiment, "train")] == [2, 4, 6, 8]
    assert [row["step"] for row in rows(experiment, "dev")] == [4, 8]
    assert {"model", "optimizer", "progress", "ranks", "config", "versions"} <= state(experiment).keys()


@pytest.mark.parametrize("normalise", ["global", "utterance", "none"])
def test_feature_statistics_are_measured_as_configured(run, state, normalise):
    buffers = state(run(model={"normalise": normalise}))["model"]
    has_mean = bool((buffers["normalise.mean"] != 0).all())
    has_deviation = bool((buffers["normalise.inverse_deviation"] != 1).all())
    assert has_deviation == (normalise != "none")
    if normalise != "utterance":  # its mean is 0 up to rounding errors
        assert has_mean == (normalise == "global")


def test_the_same_command_twice_gives_the_same_bits(run, same_training):
    changes = {"model": {"dropout": 0.2}, "data": {"augment": {"speeds": [0.9, 1.1], "spec_augment": {}}}}
    one = run("one", **changes)
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(77)  # another process starts from anywhere
    same_training(one, run("two", **changes))


def test_another_seed_gives_other_weights(run, state):
    weights = [state(run(str(seed), seed=seed))["model"]["output.weight"] for seed in (1, 2)]
    assert not torch.equal(*weights)


def test_bf16_trains_with_weights_in_fp32(run, rows, state):
    experiment = run(training={"precision": "bf16"})
    assert all(weight.dtype == torch.float32 for weight in state(experiment)["model"].values())
    assert all(math.isfinite(row["loss"]) for row in rows(experiment, "train", "dev"))


def test_the_best_checkpoints_are_kept_and_averaged(run, state, rows, dev_losses):
    dev_losses(5.0, 2.0, 3.0, 4.0)
    experiment = run(training={"validate_every": 2})
    kept = ["step-00000004.pt", "step-00000006.pt", "step-00000008.pt"]  # the two best, and the last
    assert checkpoints(experiment) == ["averaged.pt", "best.pt", *kept]
    four, six = (state(experiment, name.removesuffix(".pt"))["model"] for name in kept[:2])
    assert torch.equal(state(experiment, "best")["model"]["output.weight"], four["output.weight"])
    for name, weight in state(experiment, "averaged")["model"].items():
        torch.testing.assert_close(weight, (four[name] + six[name]) / 2)
    assert rows(experiment, "finished")[0]["averaged"] == [4, 6]


def test_patience_stops_a_training_that_no_longer_improves(run, rows, dev_losses):
    dev_losses(3.0, 2.0, 2.5, 2.0)
    experiment = run(training={"validate_every": 1, "patience": 2, "max_steps": 8})
    assert [row["step"] for row in rows(experiment, "dev")] == [1, 2, 3, 4]
    assert "averaged.pt" in checkpoints(experiment)


def test_resuming_after_patience_is_over_takes_no_step(run, rows, dev_losses):
    dev_losses(1.0, 2.0)
    settings = {"validate_every": 1, "patience": 1}
    run(training=settings)
    assert rows(run(resume=True, training=settings), "dev")[-1]["step"] == 2


def test_a_second_training_into_the_same_folder_is_refused(run, state):
    experiment = run()
    before = state(experiment)["model"]["output.weight"]
    with pytest.raises(UserError, match="already holds a training; give --resume"):
        run(seed=2)
    assert torch.equal(state(experiment)["model"]["output.weight"], before)
    assert load_config(experiment / "config.yaml").seed == 1


def test_resume_refuses_changed_settings_and_names_them(run, tmp_path):
    run()
    with pytest.raises(UserError, match="training.lr: 0.003 -> 0.5") as caught:
        run(resume=True, training={"lr": 0.5, "max_steps": 12})
    assert "max_steps" not in str(caught.value)
    assert load_config(tmp_path / "exp/config.yaml").training.lr == 3e-3


def test_resume_may_go_on_for_longer(run, rows):
    run()
    experiment = run(resume=True, training={"max_steps": 12})
    assert [row["step"] for row in rows(experiment, "train")] == [2, 4, 6, 8, 10, 12]
    assert load_config(experiment / "config.yaml").training.max_steps == 12


def test_resume_refuses_a_manifest_that_was_changed(run, corpus, tmp_path):
    changed = tmp_path / "cuts.jsonl.gz"
    changed.write_bytes(corpus.read_bytes())
    run(data={"train": str(changed)})
    CutSet.from_file(corpus).subset(first=20).to_file(changed)
    with pytest.raises(UserError, match="cuts.jsonl.gz was changed since .* was written; give another --exp"):
        run(resume=True, data={"train": str(changed)}, training={"max_steps": 12})


AUGMENT = [{"noise": "other.jsonl.gz"}, {"reverb": {"manifest": "other.jsonl.gz"}}]


@pytest.mark.parametrize("data", [{"dev": "other.jsonl.gz"}, *({"augment": augment} for augment in AUGMENT)])
def test_resume_refuses_a_manifest_of_dev_cuts_or_noise_that_was_changed(run, corpus, tmp_path, monkeypatch, data):
    """Dev losses of two sets cannot be compared. The configuration in the folder stays as in the checkpoint."""
    monkeypatch.chdir(tmp_path)
    CutSet.from_file(corpus).subset(first=4).to_file("other.jsonl.gz")
    experiment = run(data=data, training={"max_steps": 4})
    CutSet.from_file(corpus).subset(first=3).to_file("other.jsonl.gz")
    with pytest.raises(UserError, match=r"^data\..* other.jsonl.gz was changed since .* give another --exp"):
        run(resume=True, data=data, training={"max_steps": 12})
    assert load_config(experiment / "config.yaml").training.max_steps == 4


def test_resume_without_a_checkpoint_starts_training(run):
    assert "averaged.pt" in checkpoints(run(resume=True))


def test_a_limit_on_file_sizes_is_one_line_and_status_2(train_process, tiny_config, run, state):
    experiment = run()
    before = checkpoints(experiment)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (40000, resource.RLIM_INFINITY))"
    assert (experiment / "checkpoints" / before[-1]).stat().st_size > 40000
    done = train_process(tiny_config(training={"max_steps": 12}), experiment, limit, "--resume")
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if "error" in line]
    assert line.startswith("asrtool: error: no space left to write ") and "Traceback" not in done.stderr
    assert checkpoints(experiment) == before
    assert state(experiment)["progress"]["step"] == 8


def test_dropped_cuts_are_listed(run, rows):
    experiment = run(data={"max_seconds": 2.0})
    dropped = (experiment / "dropped.txt").read_text(encoding="utf-8").splitlines()
    assert 0 < len(dropped) < 24 and all("outside data.min_seconds and max_seconds" in line for line in dropped)


def test_log_and_tensorboard_agree_on_the_losses(run, rows):
    experiment = run()
    board = EventAccumulator(str(experiment / "tensorboard")).Reload()
    for kind in ("train", "dev"):
        shown = [(event.step, event.value) for event in board.Scalars(f"{kind}/loss")]
        logged = [(row["step"], row["loss"]) for row in rows(experiment, kind)]
        assert shown == [(step, pytest.approx(loss, rel=1e-6)) for step, loss in logged]


def test_loss_curves_are_drawn(run, tmp_path):
    plot_losses(run() / "log.jsonl", tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_loss_curves_are_drawn_from_a_log_without_losses(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"event": "finished", "step": 0}\n', encoding="utf-8")
    plot_losses(tmp_path / "log.jsonl", tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
