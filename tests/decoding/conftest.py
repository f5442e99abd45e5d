import pytest
import torch

from asrtool.config import save_config
from asrtool.models.acoustic import AcousticModel
from asrtool.text.tokenizer import load_tokenizer, save_tokenizer
from asrtool.training import checkpoint


@pytest.fixture(scope="module")
def experiment(tiny_config, tokenizer_file, tmp_path_factory):
    """An experiment with random weights: it hears nonsense, but plenty of it."""
    folder, config = tmp_path_factory.mktemp("exp"), tiny_config()
    save_config(config, folder / "config.yaml")
    save_tokenizer(load_tokenizer(tokenizer_file), folder / "tokenizer.json")
    torch.manual_seed(3)
    model = AcousticModel(config, 5)
    model.normalise.set_statistics(torch.full((20,), -5.0), torch.full((20,), 3.0))
    torch.nn.init.normal_(model.output.weight)
    state = {"model": model.state_dict(), "config": config.model_dump(mode="json")}
    checkpoint.save(folder / "checkpoints" / "best.pt", state)
    return folder
