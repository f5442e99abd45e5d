import pytest

from tests.tiny import make_experiment


@pytest.fixture(scope="module")
def experiment(tiny_config, tokenizer_file, tmp_path_factory):
    """An experiment with random weights: it hears nonsense, but plenty of it."""
    return make_experiment(tmp_path_factory.mktemp("exp"), tiny_config(), tokenizer_file)


@pytest.fixture(scope="module")
def stream_experiment(tiny_config, tokenizer_file, tmp_path_factory):
    """One that can stream, with chunks of 80 ms and convolution across their borders."""
    model = {"mask": "chunk", "chunk_size": 2, "memory": 4, "convolution": {"kind": "residual"}}
    return make_experiment(tmp_path_factory.mktemp("stream"), tiny_config(model=model), tokenizer_file, bias=1.0)
