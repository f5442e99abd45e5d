"""Shared fixtures: the tiny corpus of tests/tiny.py, its tokenizer and configuration, the command line, a browser."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; child processes inherit it

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import settings

from asrtool.cli import main
from asrtool.config import Config
from asrtool.logs import log_to_stderr
from tests.pages.browser import open_browser
from tests.tiny import RATE, make_config, make_corpus, make_tokenizer, tone

settings.register_profile("asrtool", deadline=None)  # a machine may stand still for a moment
settings.load_profile("asrtool")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds --all, which also runs the tests marked `slow` and `fuzz`."""
    parser.addoption("--all", action="store_true", help="also run the tests marked slow or fuzz")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips slow and fuzz tests without --all. A test that is named on the command line (file::test) always runs."""
    if config.getoption("--all") or any("::" in argument for argument in config.args):
        return
    for item in items:
        for mark in ("slow", "fuzz"):
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=f"{mark}: runs with --all"))


@pytest.fixture(autouse=True)
def log_lines() -> None:
    """Shows log lines on stderr, as the command line does, where pytest captures them."""
    log_to_stderr()


@pytest.fixture(scope="session")
def write_audio() -> Callable[..., Path]:
    """write_audio(path, seconds=1.0, rate=16000, frequency=500, channels=1) writes a tone and returns the path."""

    def write(path, seconds=1.0, rate=RATE, frequency=500.0, channels=1) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = tone(frequency, seconds, seed=len(path.name), rate=rate)
        soundfile.write(path, samples if channels == 1 else np.stack([samples] * channels, 1), rate)
        return path

    return write


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """Returns the manifest of the tiny corpus."""
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory) -> Path:
    """Returns the tokenizer file of the tiny corpus."""
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


@pytest.fixture(scope="module")
def browser():
    """Chromium of playwright, of which a process can have only one; tests that use it are skipped without.

    It is closed after each file: while it is open, an event loop runs in the thread of the tests, and no test can start
    one of its own with asyncio.run.
    """
    with open_browser() as opened:
        yield opened
