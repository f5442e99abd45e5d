"""The benchmarks run and report their figures; speed is not tested."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

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
]
NEEDS = {
    "features": ("kaldi_native_fbank", "kaldi-native-fbank"),
    "other_toolkits": ("espnet", "espnet, --no-deps"),
    "transcribe": ("sherpa_onnx", "sherpa-onnx"),
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
