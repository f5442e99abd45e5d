from pathlib import Path

import pytest
import torch

from tests.doctor.systems import copy_system


@pytest.fixture(scope="session")
def trained(tiny_config, corpus, tmp_path_factory) -> Path:
    """Returns an experiment that was trained, decoded and scored."""
    from asrtool.decoding.decode import decode
    from asrtool.decoding.search_setup import open_search
    from asrtool.experiment import open_experiment
    from asrtool.scoring.folder import score_folder
    from asrtool.training.train import train

    folder = tmp_path_factory.mktemp("doctor") / "exp"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asrtool.data.statistics.STATISTICS_SECONDS", 30.0)
        patch.setattr("asrtool.training.train.plot_losses", lambda *_: None)
        train(tiny_config(), folder, device="cpu")
    experiment = open_experiment(folder, device="cpu")
    setup = open_search("greedy", experiment.tokenizer, {})
    result = folder / "decode/test/greedy"
    decode(experiment, corpus, result, "test", "greedy", setup.search, setup.settings, workers=0)
    score_folder(result)
    return folder


@pytest.fixture
def system(trained, tmp_path) -> Path:
    """Returns a copy of the trained system, for one fault."""
    torch.set_num_threads(1)
    return copy_system(trained, tmp_path)
