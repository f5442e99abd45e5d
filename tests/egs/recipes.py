"""Runs recipes as a user does, with a configuration that takes seconds."""

import os
import re
import subprocess
import sys
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


def run(recipe: str, *options: object, status: int = 0, root: Path = ROOT) -> str:
    """Runs a recipe of the checkout `root`; returns its output, stdout and stderr together."""
    command = ["bash", str(root / "egs" / recipe / "run.sh"), *map(str, options)]
    done = subprocess.run(command, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
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
