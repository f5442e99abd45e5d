"""Servers that the tests of a file share, and the audio that they recognise."""

import numpy as np
import pytest

import asrtool
from tests.decoding.conftest import experiment
from tests.serve.running import NO_UPLOADS, served
from tests.tiny import RATE, make_experiment, tone

__all__ = ["experiment"]


@pytest.fixture(scope="module")
def stream_experiment(tiny_config, tokenizer_file, tmp_path_factory):
    """A system that can stream, with random weights that make words of any sound."""
    changes = {"mask": "chunk", "chunk_size": 2, "memory": 4}
    folder = tmp_path_factory.mktemp("stream")
    return make_experiment(folder, tiny_config(model=changes), tokenizer_file, bias=-2.0)


@pytest.fixture(scope="module")
def server(stream_experiment):
    """A server of streams, without uploads."""
    with served(stream_experiment, limits=NO_UPLOADS) as running:
        yield running


@pytest.fixture(scope="module")
def upload_server(stream_experiment):
    """A server of streams and uploads."""
    with served(stream_experiment) as running:
        yield running


@pytest.fixture(scope="module")
def model(stream_experiment):
    return asrtool.load(stream_experiment, method="greedy", device="cpu", vad="none")


@pytest.fixture(scope="session")
def sound():
    """sound(seconds=3.0, rate=16000) -> tones of changing height, of which random weights make many words"""

    def make(seconds=3.0, rate=RATE, seed=1):
        draw = np.random.default_rng(seed)
        heights = draw.uniform(200, 3900, round(seconds / 0.2))
        return np.concatenate([tone(height, 0.2, number, rate) for number, height in enumerate(heights)])

    return make
