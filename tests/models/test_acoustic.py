"""The interface of every acoustic model: lengths, precision, latency, size."""

import math
from pathlib import Path

import pytest
import torch

from asrtool.config import load_config
from asrtool.models.acoustic import AcousticModel
from asrtool.models.info import model_info

PRESETS = sorted((Path(__file__).parents[2] / "egs").glob("*/conf/*.yaml"))


@torch.no_grad()
def test_out_length_is_the_length_that_comes_out(make_model):
    model = make_model()
    lengths = range(1, 201)
    for length in lengths:
        log_probs, out_lens = model(torch.zeros(1, length, 7), torch.tensor([length]))
        assert log_probs.shape == (1, model.out_length(length), 5) and out_lens.tolist() == [model.out_length(length)]
    assert model.out_length(torch.tensor(lengths)).tolist() == [model.out_length(length) for length in lengths]


@pytest.mark.parametrize("bf16", [False, True])
def test_log_probs_are_normalised_float32_also_under_autocast(make_model, bf16):
    model = make_model(convolution={"kind": "residual"})
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        log_probs, out_lens = model(torch.randn(3, 50, 7), torch.tensor([50, 20, 1]))
    assert log_probs.dtype == torch.float32 and out_lens.dtype == torch.int64
    torch.testing.assert_close(log_probs.logsumexp(-1), torch.zeros(log_probs.shape[:2]), rtol=0, atol=1e-5)


def test_the_same_input_gives_the_same_bits_in_evaluation_mode(make_model):
    model, batch = make_model(dropout=0.5), (torch.randn(2, 30, 7), torch.tensor([30, 9]))
    assert torch.equal(model(*batch)[0], model(*batch)[0])


def test_dropout_is_drawn_in_training_mode(make_model):
    model, batch = make_model(dropout=0.5).train(), (torch.randn(2, 30, 7), torch.tensor([30, 9]))
    assert not torch.equal(model(*batch)[0], model(*batch)[0])


def test_latency_of_full_attention_is_the_whole_utterance(make_model, tiny_config):
    assert make_model().latency() == (math.inf, 4)
    info = model_info(tiny_config(), 5)
    assert info["right context"] == info["latency"] == "the whole utterance"


def test_info_counts_every_parameter(tiny_config):
    config = tiny_config(model={"convolution": {"kind": "residual"}})
    count = sum(p.numel() for p in AcousticModel(config, 37).parameters())
    total, *parts = model_info(config, 37)["parameters"].replace(",", "").split(" (")
    assert int(total) == count == sum(int(word) for word in parts[0].rstrip(")").split() if word.isdigit())
    assert model_info(config, 37)["output frame"].startswith("40 ms")


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: "/".join(path.parts[-3::2]))
def test_every_preset_of_the_recipes_builds(preset):
    config = load_config(preset)
    with torch.device("meta"):  # shapes without memory: some are large
        model = AcousticModel(config, 500)
        log_probs, _ = model(torch.zeros(2, 90, config.features.num_bins), torch.tensor([90, 90]))
    assert log_probs.shape == (2, model.out_length(90), 500)
