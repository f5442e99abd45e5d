"""The benchmarks for a GPU run on a CPU with tiny sizes, leave out what is missing, and name it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


def run(*options: str, folder: Path) -> subprocess.CompletedProcess:
    """Runs gpu.sh with the Python of the tests."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = ["bash", str(ROOT / "tools" / "bench" / "gpu.sh"), *options]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env={**os.environ, "PATH": path})


def test_a_quick_run_writes_the_figures_of_each_part_and_a_summary(tmp_path):
    done = run("out", "--quick", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    out = tmp_path / "out"
    summary = {row["part"]: row for row in json.loads((out / "summary.json").read_text())}
    ran = {name for name, row in summary.items() if row["state"] == "done"}
    assert ran == {"steps", "depth", "objectives", "decoding", "streaming"}
    assert {summary[name]["state"] for name in summary.keys() - ran} == {"left out"}
    assert all(summary[name]["reason"] for name in summary.keys() - ran)
    for name in ran:
        report = json.loads((out / f"{name}.json").read_text())
        assert report["rows"] and all(row["seconds"] > 0 for row in report["rows"])
    facts = json.loads((out / "steps.json").read_text())["facts"]
    assert {"compiled", "not compiled"} <= {name.split(", ")[-1] for name in facts}
    assert all(value > 0 for name, value in facts.items() if name.startswith("MFU"))
    losses = json.loads((out / "depth.json").read_text())["facts"]
    assert {name.split(", ")[-1] for name in losses} == {"depth_scaled", "default"}
    assert "summary: " in (out / "report.txt").read_text()


def test_a_missing_folder_is_named(tmp_path):
    done = run("--quick", folder=tmp_path)
    assert done.returncode == 2
    assert "give the folder" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_only_a_quick_run_starts(tmp_path):
    done = run("out", folder=tmp_path)
    assert done.returncode == 2
    assert "no GPU" in done.stdout and len(done.stdout.splitlines()) == 1
