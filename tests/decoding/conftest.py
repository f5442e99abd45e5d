import pytest
import torch

from asrtool.config import save_config
from asrtool.models.acoustic import AcousticModel
from asrtool.text.tokenizer import load_tokenizer, save_tokenizer
from asrtool.training import checkpoint


@pytest.fixture(scope="module")
def experiment(tiny_config, tokenizer_file, tmp_path_factory):
    """An experiment with random weights: it hears nonsense, but plenty of it."""
    return make_experiment(tmp_path_factory.mktemp("exp"), tiny_config(), tokenizer_file)


@pytest.fixture(scope="module")
def stream_experiment(tiny_config, tokenizer_file, tmp_path_factory):
    """One that can stream, with chunks of 80 ms and convolution across their borders."""
    model = {"mask": "chunk", "chunk": 2, "memory": 4, "convolution": {"kind": "residual"}}
    return make_experiment(tmp_path_factory.mktemp("stream"), tiny_config(model=model), tokenizer_file, bias=1.0)


def make_experiment(folder, config, tokenizer_file, bias=None):
    """An experiment folder with random weights; `bias`: of the blank, which has most of the frames by default."""
    save_config(config, folder / "config.yaml")
    save_tokenizer(load_tokenizer(tokenizer_file), folder / "tokenizer.json")
    torch.manual_seed(3)
    model = AcousticModel(config, 5)
    model.normalise.set_statistics(torch.full((20,), -5.0), torch.full((20,), 3.0))
    torch.nn.init.normal_(model.output.weight)
    if bias is not None:
        model.output.bias.data[0] = bias
    state = {"model": model.state_dict(), "config": config.model_dump(mode="json")}
    checkpoint.save(folder / "checkpoints" / "best.pt", state)
    return folder
