"""Runs recipes with a configuration that takes seconds: as a user does, or with commands that start at once.

A recipe runs some twenty commands, each of which would import torch and lhotse again. The tests of what recipes do with
their options run them as forks of one process (tests/preloaded.py).
"""

import atexit
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
LINE = re.compile(r"^(\S+) WER (\d+\.\d\d) % \[\d+\.\d\d, \d+\.\d\d\]", re.MULTILINE)
TINY = {
    "data": {"batch_seconds": 20, "workers": 0},
    "model": {"subsampling": {"channels": 4}, "dim": 16, "layers": 1, "heads": 2, "ff_dim": 32},
    "training": {"warmup_steps": 1, "max_steps": 4, "validate_every": 2, "log_every": 1},
}


def environment() -> dict[str, str]:
    """Returns an environment with the Python that runs the tests first in PATH, so that local/path.sh uses it."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


# A python3 that hands `python3 -m asrtool ...` to preloaded.py, and everything else to the Python that runs the tests
SHIM = """#!/bin/sh
if [ "$1 $2" = "-m asrtool" ]; then
    shift 2
    exec "{python}" -S "{root}/tests/preloaded.py" run "{socket}" "$@"
fi
exec "{python}" "$@"
"""


@cache
def preloaded_environment() -> dict[str, str]:
    """Returns an environment whose `asrtool` is a fork of one process, which ends with this one."""
    folder = Path(tempfile.mkdtemp(prefix="asrtool-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    socket = folder / "socket"
    shim = folder / "python3"
    shim.write_text(SHIM.format(python=sys.executable, root=ROOT, socket=socket))
    shim.chmod(0o755)
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "tests.preloaded", "serve", str(socket)]
    process = subprocess.Popen(command, cwd=ROOT, env={**environment(), "PYTHONPATH": paths})
    atexit.register(process.terminate)
    while not socket.exists() and process.poll() is None:
        time.sleep(0.1)
    return {**environment(), "PATH": f"{folder}:{environment()['PATH']}"}


def run(recipe: str, *options: object, status: int = 0, root: Path = ROOT, env: dict[str, str] | None = None) -> str:
    """Runs a recipe of the checkout `root`; returns its output, stdout and stderr together.

    Its commands are forks of one process, unless `env` is another environment, such as `environment()`.
    """
    command = ["bash", str(root / "egs" / recipe / "run.sh"), *map(str, options)]
    env = env or preloaded_environment()
    done = subprocess.run(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == status, done.stdout
    return done.stdout


def tiny_config(folder: Path, recipe_config: Path) -> Path:
    """Writes the recipe's own configuration with a model and a training that take seconds; returns its path."""
    config = yaml.safe_load(recipe_config.read_text())
    config["data"] |= TINY["data"]
    config["model"] |= TINY["model"]
    config["training"] |= TINY["training"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config))
    return folder / "tiny.yaml"
