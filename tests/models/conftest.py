import pytest
import torch

from asrtool.config import Config
from asrtool.models.acoustic import AcousticModel

SMALL = {"subsampling": {"channels": 3}, "dim": 8, "layers": 2, "heads": 2, "ff_dim": 12}
BINS, UNITS = 7, 5  # an odd number of bins, as a front end must bear it


@pytest.fixture(scope="session")
def make_model():
    """make_model(dtype, normalise="utterance", ...) -> a model in evaluation mode with random weights and statistics"""

    def make(dtype=torch.float32, **model):
        torch.manual_seed(1)
        config = Config.model_validate({"features": {"num_bins": BINS}, "model": {**SMALL, **model}})
        made = AcousticModel(config, UNITS)
        made.normalise.set_statistics(torch.randn(BINS), torch.rand(BINS) + 0.5)
        return made.to(dtype).eval()

    return make
