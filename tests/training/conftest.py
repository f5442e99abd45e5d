import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import asrtool
from asrtool.config_file import save_config
from tests.tiny import equal, log_rows
from tests.training import ranks


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Statistics of the features need no hour of a corpus of 40 seconds, and few tests look at the picture."""
    monkeypatch.setattr("asrtool.data.statistics.STATISTICS_SECONDS", 30.0)
    monkeypatch.setattr("asrtool.training.train.plot_losses", lambda *_: None)


@pytest.fixture
def rows():
    """rows(experiment, "train") -> the rows of its log.jsonl of that event, without what the clock says."""
    return log_rows


@pytest.fixture
def state():
    """state(experiment, "last") -> that checkpoint, loaded as anybody could load it."""

    def read(experiment, which="last"):
        folder = experiment / "checkpoints"
        path = max(folder.glob("step-*.pt")) if which == "last" else folder / f"{which}.pt"
        return copy.deepcopy(torch.load(path, weights_only=True))

    return read


@pytest.fixture
def same_training(rows, state):
    """same_training(one, other): their weights, optimisers, averages and losses are the same to the last bit."""

    def check(one, other):
        for which in ("last", "best", "averaged"):
            assert equal(state(one, which)["model"], state(other, which)["model"]), which
        first, second = state(one), state(other)
        assert equal(first["optimizer"], second["optimizer"])
        assert equal(first["ranks"], second["ranks"])  # random states, and the order of all cuts
        assert first["progress"] == second["progress"]
        assert rows(one, "train", "dev") == rows(other, "train", "dev")

    return check


@pytest.fixture
def train_process(tmp_path):
    """train_process(config, experiment, code, *options) -> `asrtool train` in a process that first runs `code`."""

    def run(config, experiment, code, *options):
        save_config(config, tmp_path / "config.yaml")
        script = f"{code}\nfrom asrtool.cli import main\nmain()"
        arguments = ["train", str(tmp_path / "config.yaml"), "--exp", str(experiment), "--device", "cpu", *options]
        root = str(Path(asrtool.__file__).parents[1])
        return subprocess.run(
            [sys.executable, "-c", script, *arguments],
            env=os.environ | {"PYTHONPATH": root},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


@pytest.fixture
def on_ranks():
    """on_ranks(2, work, *arguments): `work` in so many processes that know their rank; what each returns."""
    return ranks.run_on_ranks
