"""Intermediate CTC: a loss on the lower half of the blocks, added in training."""

import pytest
import torch

from asrtool.data.loading import SpeechDataset
from asrtool.data.sampling import OrderedSampler
from asrtool.distributed import SINGLE_PROCESS
from asrtool.errors import UserError
from asrtool.models.acoustic import AcousticModel
from asrtool.objectives.ctc import Ctc
from asrtool.text.tokenizer import load_tokenizer
from asrtool.training.objective import create_objective
from asrtool.training.step import batch_loss
from asrtool.training.train import train
from tests.tiny import log_rows

CPU = torch.device("cpu")


@pytest.mark.parametrize("kind", ["ctc", "mmi"])
def test_the_loss_in_training_includes_intermediate_ctc_with_its_weight(tiny_config, tmp_path, kind):
    config = tiny_config(objective={"kind": kind, "intermediate_ctc": 0.3}, model={"layers": 2, "dropout": 0.0})
    tokenizer = load_tokenizer(config.data.tokenizer)
    item = next(iter(OrderedSampler(config.data.train, 20.0)))
    batch = SpeechDataset(config, tokenizer, training=False)[item]
    model = AcousticModel(config.model, config.features.num_bins, tokenizer.size).train()
    objective = create_objective(config, tokenizer, tmp_path, SINGLE_PROCESS, CPU)
    log_probs, lens, intermediate = model(batch.features, batch.feature_lens, with_intermediate=True)
    end = objective(log_probs, lens, batch)
    expected = 0.7 * end + 0.3 * Ctc()(intermediate, lens, batch)
    assert torch.allclose(batch_loss(model, batch, CPU, "fp32", objective), expected)
    assert torch.allclose(batch_loss(model.eval(), batch, CPU, "fp32", objective), end)


def test_training_with_intermediate_ctc_lowers_the_loss(tiny_config, tmp_path):
    train(tiny_config(objective={"intermediate_ctc": 0.5}, model={"layers": 2}), tmp_path / "exp", device="cpu")
    losses = [row["loss"] for row in log_rows(tmp_path / "exp", "train")]
    assert losses[-1] < losses[0]


def test_intermediate_ctc_is_refused_for_other_models_than_transformers(tiny_config):
    with pytest.raises((UserError, ValueError), match="objective.intermediate_ctc is for Transformers, not for blstm"):
        tiny_config(objective={"intermediate_ctc": 0.3}, model={"architecture": "blstm"})
