"""What the tests share: the tiny corpus of tests/tiny.py, its tokenizer, and a configuration for it."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch comes in; child processes inherit it

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asrtool.cli import main
from asrtool.config import Config
from asrtool.logs import log_to_stderr
from tests.tiny import RATE, make_config, make_corpus, make_tokenizer, tone


def pytest_addoption(parser: pytest.Parser) -> None:
    """--all: also the tests marked `slow` and `fuzz`, which a default run skips."""
    parser.addoption("--all", action="store_true", help="also run the tests marked slow or fuzz")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip slow and fuzz tests without --all. A test that is named on the command line (file::test) always runs."""
    if config.getoption("--all") or any("::" in argument for argument in config.args):
        return
    for item in items:
        for mark in ("slow", "fuzz"):
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=f"{mark}: runs with --all"))


@pytest.fixture(autouse=True)
def log_lines() -> None:
    """Log lines go to stderr, as on the command line, and to the stderr that pytest captures."""
    log_to_stderr()


@pytest.fixture(scope="session")
def write_audio() -> Callable[..., Path]:
    """write_audio(path, seconds=1.0, rate=16000, frequency=500, channels=1) -> path; the format is its suffix."""

    def write(path, seconds=1.0, rate=RATE, frequency=500.0, channels=1) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = tone(frequency, seconds, seed=len(path.name), rate=rate)
        soundfile.write(path, samples if channels == 1 else np.stack([samples] * channels, 1), rate)
        return path

    return write


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """The manifest of the tiny corpus."""
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory) -> Path:
    """The file of its tokenizer."""
    return make_tokenizer(tmp_path_factory.mktemp("lang"))


@pytest.fixture(scope="session")
def tiny_config(corpus, tokenizer_file) -> Callable[..., Config]:
    """tiny_config(seed=2, training={"max_steps": 4}, data={"augment": {...}}) -> TINY for the corpus, so changed."""
    return partial(make_config, corpus, tokenizer_file)


@pytest.fixture
def asr(monkeypatch, capsys) -> Callable[..., tuple]:
    """asr("train", "--help") -> exit status, stdout, stderr of the command in this process"""

    def run(*arguments) -> tuple:
        monkeypatch.setattr(sys, "argv", ["asrtool", *map(str, arguments)])
        try:
            main()
            status = 0
        except SystemExit as stop:
            status = stop.code or 0
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run
