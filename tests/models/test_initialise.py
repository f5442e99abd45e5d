"""The matrices of a block are drawn from the stated distribution, layer by layer."""

import math

import pytest
import torch
from torch import nn

from asrtool.config import ModelConfig
from asrtool.models.transformer import TransformerEncoder
from asrtool.models.transformer_xl import TransformerXl

DIM, FF, KERNEL, LAYERS = 32, 48, 3, 6
FANS = {  # d_i + d_o, and the number of rows of a matrix
    "attention.qkv": (DIM + DIM, DIM),
    "attention.out": (DIM + DIM, DIM),
    "attention.relative.projection": (DIM + DIM, DIM),
    "feed_forward.0": (DIM + FF, FF),
    "feed_forward.2": (DIM + FF, DIM),
    "convolution.convolution": (KERNEL * (DIM + DIM), DIM),
}
DEPTH_SCALED = [{}, {"alpha": 0.3}, {"exponent": 0.25}, {"exponent": 0.0}, {"alpha": 0.5, "exponent": 1.0}]


def encoder(**init):
    torch.manual_seed(7)
    names = {
        "architecture": "transformer_xl",
        "chunk_size": 4,
        "memory": 4,
        "positional_encoding": "relative",
        "init": init,
    }
    sizes = {"dim": DIM, "heads": 4, "ff_dim": FF, "layers": LAYERS, "convolution": {"kind": "residual"}}
    return TransformerXl(ModelConfig.model_validate({**names, **sizes}))


def matrices(module, rows):
    return module.weight.detach().split(rows)


def assert_uniform(matrix, bound):
    """Within the bound and evenly spread: Kolmogorov and Smirnov's distance, which exceeds 1.95 once in 1000 draws."""
    values = matrix.flatten().sort().values / bound
    assert values.abs().max() <= 1 + 1e-6
    expected = torch.linspace(-1, 1, len(values))
    assert (values - expected).abs().max() / 2 * math.sqrt(len(values)) < 1.95


def named(block):
    layers = {n: m for n, m in block.named_modules() if isinstance(m, nn.Linear | nn.Conv1d)}
    assert layers.keys() == FANS.keys()
    return layers.items()


@pytest.mark.parametrize("init", DEPTH_SCALED)
def test_every_matrix_of_a_layer_is_uniform_within_its_bound(init):
    for number, block in enumerate(encoder(scheme="depth_scaled", **init).blocks, 1):
        for name, module in named(block):
            total, rows = FANS[name]
            bound = init.get("alpha", 1.0) * math.sqrt(6 / total) / number ** init.get("exponent", 0.5)
            for matrix in matrices(module, rows):
                assert_uniform(matrix, bound)


def test_queries_keys_and_values_are_three_matrices():
    block = encoder(scheme="depth_scaled").blocks[0]
    bound = math.sqrt(6 / (DIM + DIM))  # as one matrix: sqrt(6 / (DIM + 3 * DIM))
    assert all(0.98 * bound < m.abs().max() <= bound for m in matrices(block.attention.qkv, DIM))
    assert len(matrices(block.attention.qkv, DIM)) == 3


@pytest.mark.parametrize("scope", ["all", "qkv"])
def test_the_scope_selects_the_matrices_that_are_initialised(scope):
    """The others stay as torch draws them, within 1 / sqrt(d_i)."""
    for number, block in enumerate(encoder(scheme="depth_scaled", scope=scope).blocks, 1):
        for name, module in named(block):
            total, rows = FANS[name]
            inside = scope == "all" or name == "attention.qkv"
            fan_in = module.weight[0].numel()
            bound = math.sqrt(6 / total / number) if inside else 1 / math.sqrt(fan_in)
            for matrix in matrices(module, rows):
                assert_uniform(matrix, bound)
            assert module.bias is None or inside == (module.bias == 0).all()


def test_the_default_is_the_initialisation_of_torch():
    for block in encoder().blocks:
        for name, module in named(block):
            for matrix in matrices(module, FANS[name][1]):
                assert_uniform(matrix, 1 / math.sqrt(module.weight[0].numel()))


def test_norms_and_position_biases_are_neutral_at_first():
    for scheme in ("default", "depth_scaled"):
        for block in encoder(scheme=scheme).blocks:
            for norm in (block.attention_norm, block.ff_norm, block.convolution.norm):
                assert (norm.weight == 1).all() and (norm.bias == 0).all()
            relative = block.attention.relative
            assert (relative.content_bias == 0).all() and (relative.position_bias == 0).all()


def test_transformer_and_transformer_xl_are_initialised_alike():
    names = {"dim": DIM, "ff_dim": FF, "layers": LAYERS, "init": {"scheme": "depth_scaled"}}
    torch.manual_seed(7)
    model = TransformerEncoder(ModelConfig.model_validate(names))
    for number, block in enumerate(model.blocks, 1):
        for matrix in matrices(block.attention.qkv, DIM):
            assert_uniform(matrix, math.sqrt(6 / (2 * DIM * number)))
