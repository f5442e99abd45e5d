"""What the tests of the models share: small models of every kind with random weights, and the recipes' presets."""

from pathlib import Path

import pytest
import torch
from hypothesis import strategies as st

from asrtool.config import Config
from asrtool.config_file import load_config
from asrtool.models.acoustic import AcousticModel

SMALL = {"subsampling": {"channels": 3}, "dim": 8, "layers": 2, "heads": 2, "ff_dim": 12}
BINS, UNITS = 7, 5  # an odd number of bins, which a front end must handle
PRESETS = sorted((Path(__file__).parents[2] / "egs").glob("*/conf/*.yaml"))
CHUNKED = {"architecture": "transformer", "mask": "chunk", "chunk_size": 3, "memory": 4}
SLIDING = {"architecture": "transformer", "mask": "sliding", "left_context": 3, "right_context": (1, 2)}
XL = {"architecture": "transformer_xl", "chunk_size": 3, "memory": 4, "positional_encoding": "relative"}
LC = {"architecture": "lc_blstm", "chunk_size": 3, "look_ahead": 2}
KINDS = {  # one of each that matters to the layers
    "blstm": {"architecture": "blstm"},
    "lc_blstm": LC,
    "full_pre": {"convolution": {"kind": "residual"}},
    "full_post": {"norm": "post", "positional_encoding": "relative", "convolution": {"kind": "interleaved"}},
    "sliding": SLIDING | {"convolution": {"kind": "interleaved"}, "positional_encoding": "relative"},
    "sliding_vgg": SLIDING | {"norm": "post", "subsampling": {"kind": "vgg", "channels": 3}},
    "chunk_size": CHUNKED | {"convolution": {"kind": "residual", "kernel": 5}},
    "xl_pre": XL,
    "chunk_conformer": CHUNKED | {"convolution": {"kind": "conformer", "kernel": 3}},
    "sliding_conformer": SLIDING | {"convolution": {"kind": "conformer", "kernel": 3}},
    "xl_post": XL | {"norm": "post", "convolution": {"kind": "interleaved"}, "subsampling": {"kind": "stack"}},
}
WHOLE = ("blstm", "full_pre", "full_post")  # need the whole utterance


@pytest.fixture(scope="session")
def make_model():
    """make_model(dtype, normalise="utterance", ...) -> a model in evaluation mode with random weights and statistics"""

    def make(dtype=torch.float32, **model):
        return random_weights(
            Config.model_validate({"features": {"num_bins": BINS}, "model": {**SMALL, **model}}), dtype
        )

    return make


@torch.no_grad()
def random_weights(config, dtype):
    """No bias is zero and no norm is neutral, so that nothing can be left out unnoticed."""
    torch.manual_seed(1)
    model = AcousticModel(config.model, config.features.num_bins, UNITS)
    model.normalise.set_statistics(torch.randn(BINS), torch.rand(BINS) + 0.5)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return model.to(dtype).eval()


@pytest.fixture(params=KINDS.values(), ids=KINDS, scope="session")
def kind(request):
    """Settings of a model, one of each kind."""
    return request.param


@pytest.fixture(params=[name for name in KINDS if name not in WHOLE], scope="session")
def streaming_kind(request):
    """Settings of a model that can stream, one of each kind."""
    return KINDS[request.param]


@pytest.fixture(params=[name for name in KINDS if "blstm" not in name], scope="session")
def transformer_kind(request):
    """Settings of a Transformer, one of each kind."""
    return KINDS[request.param]


@pytest.fixture(params=PRESETS, ids=lambda path: "/".join(path.parts[-3::2]), scope="session")
def preset(request):
    """A preset of a recipe: its path."""
    return request.param


@pytest.fixture(params=[path for path in PRESETS if "librispeech" in path.parts], ids=lambda path: path.stem)
def make_preset(request):
    """make_preset(dtype) -> a preset's model as deep as it is, with its masks, norms and convolutions, but narrow."""

    def make(dtype):
        tree = load_config(request.param).model_dump()
        tree["features"]["num_bins"] = BINS
        tree["model"] |= {"dim": 8, "heads": 2, "ff_dim": 12, "dropout": 0.0}
        tree["model"]["subsampling"]["channels"] = 3
        return random_weights(Config.model_validate(tree), dtype)

    return make


@st.composite
def _convolutions(draw):
    kind, causal = draw(st.sampled_from(["none", "interleaved", "residual", "conformer"])), draw(st.booleans())
    return {"kind": kind, "causal": causal, "kernel": draw(st.sampled_from([2, 3, 4] if causal else [3, 5]))}


@st.composite
def _front_ends(draw):
    kind = draw(st.sampled_from(["conv", "vgg", "stack"]))
    factors = {"conv": [2, 3, 4, 6, 8], "vgg": [2, 4, 8], "stack": [1, 2, 3, 4, 5]}
    factor = draw(st.sampled_from(factors[kind]))
    return {"kind": kind, "factor": factor, "channels": 4, "causal": kind == "vgg" and draw(st.booleans())}


def _per_layer(most):
    return st.integers(0, most) | st.tuples(st.integers(0, most), st.integers(0, most))


def _sees(streams):
    """What a frame sees, for a model of two layers."""
    chunk, memory = st.integers(1, 4), st.integers(0, 6)
    dictionaries = [
        {"architecture": st.just("lc_blstm"), "chunk_size": chunk, "look_ahead": st.integers(0, 4)},
        {"architecture": st.just("transformer_xl"), "chunk_size": chunk, "memory": memory},
        {"mask": st.just("chunk"), "chunk_size": chunk, "memory": memory},
        {"mask": st.just("sliding"), "left_context": _per_layer(4), "right_context": _per_layer(2)},
    ]
    if not streams:
        dictionaries += [{"architecture": st.just("blstm")}, {"mask": st.just("full")}]
        dictionaries += [
            {"mask": st.just("sliding"), "left_context": st.none() | _per_layer(2), "right_context": st.none()}
        ]
    return st.one_of(*map(st.fixed_dictionaries, dictionaries))


@st.composite
def _models(draw, streams):
    model = {"subsampling": draw(_front_ends()), **draw(_sees(streams))}
    model["normalise"] = draw(st.sampled_from(["global", "none"] if streams else ["global", "utterance", "none"]))
    if "blstm" not in model.get("architecture", "transformer"):
        model["norm"] = draw(st.sampled_from(["pre", "post"]))
        model["positional_encoding"] = draw(st.sampled_from(["sinusoidal", "relative", "none"]))
        model["convolution"] = draw(_convolutions())
    return model


@pytest.fixture(scope="session")
def models():
    """Strategy: settings of any model."""
    return _models(streams=False)


@pytest.fixture(scope="session")
def streaming_models():
    """Strategy: settings of any model that can stream."""
    return _models(streams=True)
