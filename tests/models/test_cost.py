"""The formulas of a model's cost agree with the operations that are counted when it runs."""

import math

import pytest

from asrtool.config import Config
from asrtool.models import cost, info
from asrtool.models.acoustic import AcousticModel

UNITS = 40
SIZES = {"dim": 32, "heads": 2, "layers": 2, "ff_dim": 64, "subsampling": {"channels": 4}}
LENGTHS = (6.0, 12.0)  # seconds


def counted(config):
    """Operations of a second of audio, and what each further second of an utterance adds to them."""
    shallow = config.model
    flops = [
        info._flops(lambda model: AcousticModel(model, config.features.num_bins, UNITS, False), shallow, seconds)
        / seconds
        for seconds in LENGTHS
    ]
    slope = (flops[1] - flops[0]) / (LENGTHS[1] - LENGTHS[0])
    return flops[0] - slope * LENGTHS[0], slope


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"positional_encoding": "relative"},
        {"convolution": {"kind": "conformer", "kernel": 5}},
        {"convolution": {"kind": "residual"}},
        {"subsampling": {"kind": "vgg", "channels": 4}},
        {"subsampling": {"kind": "vgg", "channels": 4, "factor": 8}},
        {"subsampling": {"kind": "stack", "factor": 3}},
        {"subsampling": {"kind": "conv", "channels": 4, "factor": 6}},
        {"mask": "sliding", "left_context": None, "right_context": [2, 2]},
    ],
    ids=str,
)
def test_unlimited_attention(model):
    config = Config.model_validate({"model": SIZES | model})
    linear, slope = counted(config)
    frames_a_second = 1 / (cost.FRAME_SECONDS * config.model.subsampling.factor)
    assert cost.linear_flops(config, UNITS) * frames_a_second == pytest.approx(linear, rel=0.05)
    assert cost.attention_flops_per_key(config.model) * frames_a_second**2 == pytest.approx(slope, rel=0.05)
    assert cost.attention_seconds(config, UNITS) == pytest.approx(linear / slope, rel=0.1)


@pytest.mark.parametrize(
    "model",
    [
        {"architecture": "blstm"},
        {"mask": "chunk", "chunk_size": 4, "memory": 8},
        {"mask": "sliding", "left_context": 4, "right_context": 2},
        {
            "architecture": "transformer_xl",
            "positional_encoding": "relative",
            "chunk_size": 4,
            "memory": 8,
        },
    ],
    ids=str,
)
def test_bounded_attention(model):
    config = Config.model_validate({"model": SIZES | model})
    linear, slope = counted(config)
    assert slope * LENGTHS[1] < 0.02 * linear
    assert math.isinf(cost.attention_seconds(config, UNITS))
