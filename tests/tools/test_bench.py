"""The benchmarks run and report what they must; how fast anything is, is not a test's business."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ["startup", "features", "loader", "training_step", "decoding"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_quick_run_reports_its_figures_beside_a_baseline(name: str, tmp_path: Path) -> None:
    if name == "features" and not importlib.util.find_spec("kaldi_native_fbank"):
        pytest.skip("its baseline is missing: pip install kaldi-native-fbank")
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, str(ROOT / "tools" / "bench" / f"{name}.py"), "--quick", "--json", "figures.json"]
    result = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths}
    )
    assert result.returncode == 0, result.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["device"] and figures["threads"] and figures["sizes"] and figures["versions"]["asrtool"]
    assert figures["rows"]
    for case in {row["case"] for row in figures["rows"]}:
        rows = [row for row in figures["rows"] if row["case"] == case]
        assert [row["baseline"] for row in rows] == [False] * (len(rows) - 1) + [True] and len(rows) >= 2
        assert all(row["ratio"] > 0 and row["seconds"] > 0 for row in rows)
        assert case in result.stdout
