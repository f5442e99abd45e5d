"""The benchmarks run and report their figures; speed is not tested."""

import importlib
import importlib.util
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = [
    "startup",
    "features",
    "loader",
    "augmentation",
    "training_step",
    "engine",
    "other_toolkits",
    "streaming",
    "decoding",
    "lm",
    "graphs",
    "graph_decoding",
    "objectives",
    "transcribe",
    "hotwords",
    "serving",
]
NEEDS = {
    "features": ("kaldi_native_fbank", "kaldi-native-fbank"),
    "other_toolkits": ("espnet", "espnet, --no-deps"),
    "transcribe": ("sherpa_onnx", "sherpa-onnx"),
    "serving": ("psutil", "psutil"),
}


def run(name: str, folder: Path, *options: str) -> subprocess.CompletedProcess:
    """Runs the benchmark `name` with tiny sizes in `folder`."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, str(ROOT / "tools" / "bench" / f"{name}.py"), "--quick", *options]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env={**os.environ, "PYTHONPATH": paths})


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[dict, str]]:
    """figures(name) returns the figures and the output of a benchmark, which runs once."""

    @cache
    def measure(name: str) -> tuple[dict, str]:
        folder = tmp_path_factory.mktemp(name)
        result = run(name, folder, "--json", "figures.json")
        assert result.returncode == 0, result.stderr
        return json.loads((folder / "figures.json").read_text()), result.stdout

    return measure


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_quick_run_reports_its_figures_with_a_baseline(name: str, figures: Callable) -> None:
    module, package = NEEDS.get(name, ("asrtool", ""))
    if not importlib.util.find_spec(module):
        pytest.skip(f"its baseline is missing: pip install {package}")
    report, printed = figures(name)
    assert report["device"] and report["threads"] and report["sizes"] and report["versions"]["asrtool"]
    assert report["rows"]
    for case in {row["case"] for row in report["rows"]}:
        rows = [row for row in report["rows"] if row["case"] == case]
        assert [row["baseline"] for row in rows] == [False] * (len(rows) - 1) + [True] and len(rows) >= 2
        assert all(row["ratio"] > 0 and row["seconds"] > 0 for row in rows)
        assert case in printed


def test_training_step_reports_time_by_operation_and_memory(figures: Callable) -> None:
    facts = figures("training_step")[0]["facts"]
    assert any("matrix products" in str(value) for name, value in facts.items() if name.startswith("time of asrtool"))
    assert all(value > 0 for name, value in facts.items() if name.startswith(("share of the matrix rate", "MB at")))
    assert facts["largest difference of the outputs"] < 1e-4


def test_engine_agrees_with_the_bare_loop_and_reports_checkpoints_padding_and_ranks(figures: Callable) -> None:
    report = figures("engine")[0]
    assert report["facts"]["largest difference of the weights"] < 1e-6
    assert all(value > 0 for name, value in report["facts"].items() if name.startswith(("MB of", "efficiency of ddp")))
    assert {"padding share", "efficiency of ddp at 2 ranks"} < report["facts"].keys()
    parts = {row["case"].split(",")[0] for row in report["rows"]}
    assert parts == {"steps", "checkpoint"} and len(report["aims"]) == 3  # one for the steps, one for each size


@pytest.mark.slow
def test_a_plan_is_compared_with_a_training_of_two_processes(figures: Callable) -> None:
    """Its arithmetic is tested in tests/planning/test_operation.py; on a busy machine times mean nothing."""
    report, printed = figures("planned_training")
    names = ("speed", "checkpoint_bytes", "checkpoint_seconds", "resume_seconds", "memory_gb")
    ratios = [report["facts"][f"predicted / measured, {name}"] for name in names]
    assert all(ratio > 0 for ratio in ratios)
    assert "predicted / measured, speed" in printed and len(report["aims"]) == 1
    assert 0.2 < ratios[1] <= 1.0  # bytes: a tiny model's checkpoint has more than its weights


@pytest.mark.slow
def test_the_parts_of_a_training_add_up_to_its_wall_time_and_have_products_in_the_steps(figures: Callable) -> None:
    report = figures("training_time")[0]
    facts, parts = report["facts"], report["parts"]
    assert sum(part["wall"] for part in parts.values()) == pytest.approx(facts["wall time of the training, s"])
    steps = report["sizes"]["steps"]
    for name in ("copy to the device", "normalisation", "front end", "encoder", "loss", "backward pass", "optimiser"):
        assert parts[f"step: {name}"]["wall"] > 0 and parts[f"step: {name}"]["calls"] >= steps, name
    assert parts["step: rest"]["calls"] == steps
    assert parts["validation"]["calls"] == 2  # of the last step, and of the averaged weights
    assert {"loader", "loader: sampler", "checkpoints", "logging", "loss curves", "start-up", "rest"} < parts.keys()
    assert facts["CPU seconds of loader processes, loader"] > 0
    of_step, of_all = facts["share of a step, matrix products"], facts["share of the wall time, matrix products"]
    assert of_all == pytest.approx(of_step * facts["share of the wall time, all of step"], rel=1e-6)
    assert 0 < of_all < of_step < 1
    assert 0 < facts["share of loading, all augmentation"] < 1


def test_time_counts_for_the_innermost_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools" / "bench"))
    part_times = importlib.import_module("part_times")
    clock = part_times.PartClock(torch.device("cpu"), whole=("sealed",))
    seconds = itertools.count()  # the clocks advance by a second whenever they are read
    monkeypatch.setattr(clock, "_now", lambda: (next(seconds), 0.0, 0.0))
    inner = clock.timed("inner", lambda: None)
    with clock.running():
        clock.timed("outer", inner)()  # a second of the rest, of outer, of inner and of outer
        clock.timed("sealed", inner)()  # the same of the rest and of sealed
        assert list(clock.timed_items("items", "ab")) == ["a", "b"]
    walls = {name: part.wall for name, part in clock.parts.items()}
    assert walls == {"rest": 7.0, "outer": 2.0, "inner": 1.0, "sealed": 1.0, "items": 4.0}
    assert {name: part.calls for name, part in clock.parts.items()}["inner"] == 1
    assert clock.wall() == next(seconds) - 1


def test_operations_of_the_loss_are_a_kind_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools" / "bench"))
    profiling = importlib.import_module("profiling")
    matrix = torch.ones(64, 64)
    device = torch.device("cpu")
    assert set(profiling.seconds_by_kind(lambda: matrix @ matrix, device)) == {"matrix products"}
    assert set(profiling.seconds_by_kind(profiling.record_loss(lambda: matrix @ matrix), device)) == {profiling.LOSS}


def test_objectives_report_the_share_of_the_loss_in_a_step_and_memory_per_frame(figures: Callable) -> None:
    facts = figures("objectives")[0]["facts"]
    assert facts["share of the loss in a step"] > 0
    assert facts.get("largest difference from k2, nats", 0.0) < 1e-3
    assert "MB a further frame" in facts


def test_hotwords_are_recognised_more_often_than_without_and_other_words_as_well(figures: Callable) -> None:
    facts = figures("hotwords")[0]["facts"]
    with_hotwords, without = facts["weight 5"], facts["no hotwords"]
    assert with_hotwords["known_spoken"] == without["known_spoken"] > 0
    assert with_hotwords["new_spoken"] == without["new_spoken"] > 0
    assert with_hotwords["known_recognised"] > without["known_recognised"]
    assert with_hotwords["new_recognised"] > without["new_recognised"] == 0
    assert with_hotwords["errors"] < without["errors"] <= without["length"]
    assert with_hotwords["rest_errors"] <= without["rest_errors"] + 2  # of a hundred words


@pytest.mark.slow
def test_servers_hold_all_streams_of_a_tiny_load_and_short_connections_end_without_errors(figures: Callable) -> None:
    if not importlib.util.find_spec("psutil"):
        pytest.skip("psutil is missing: pip install psutil")
    report = figures("serving")[0]
    assert [load["reason"] for load in report["loads"]] == [""] * len(report["rows"])
    assert all(row["held"] == 2 and row["figures"]["chunks"] > 0 for row in report["rows"])
    connections = [value for name, value in report["facts"].items() if "short connections" in name]
    assert connections and all(value["errors"] == 0 < value["connections"] for value in connections)


def test_hotwords_of_a_system_need_manifests_and_a_language_model(tmp_path: Path) -> None:
    result = run("hotwords", tmp_path, "exp/mine")
    assert result.returncode == 2
    assert "needs manifests and --lm" in result.stderr and len(result.stderr.splitlines()) == 1


@pytest.mark.skipif(bool(importlib.util.find_spec("espnet")), reason="espnet is installed")
def test_a_missing_toolkit_prints_one_line_that_names_what_to_install(tmp_path: Path) -> None:
    result = run("other_toolkits", tmp_path)
    assert result.returncode == 2
    assert "pip install" in result.stderr and len(result.stderr.splitlines()) == 1


def test_streaming_refuses_models_without_steps(tmp_path: Path) -> None:
    result = run("streaming", tmp_path, str(ROOT / "egs" / "librispeech" / "conf" / "small" / "transformer_12l.yaml"))
    assert result.returncode == 2
    assert "no configuration has steps" in result.stderr and len(result.stderr.splitlines()) == 1
