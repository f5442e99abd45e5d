import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def environment():
    """The environment with the interpreter that runs the tests as python3, and asrtool importable from anywhere."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def bash(tmp_path, environment):
    """bash(script, "--option", ...) returns the finished process; `script` becomes egs/mine/run.sh."""
    egs = tmp_path / "egs" / "mine"
    egs.mkdir(parents=True)
    (tmp_path / "local").mkdir()
    for helper in ("parse_options.sh", "stages.sh", "path.sh", "config_values.py"):
        (tmp_path / "local" / helper).write_bytes((ROOT / "local" / helper).read_bytes())

    def run(script, *options, cwd=tmp_path):
        (egs / "run.sh").write_text(script, encoding="utf-8")
        command = ["bash", str(egs / "run.sh"), *options]
        return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=60)

    return run
