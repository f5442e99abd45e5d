"""Outputs depend on exactly the frames that latency() and receptive_field() name.

Changes of the input show that no frame beyond is used. Gradients show that the last frame within is used: they are not
lost in rounding however deep a model is.
"""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

EXPECTED = {  # feature frames: (right, chunk), from the figures in the papers and the layers' definitions
    "sliding layers add up": ({"mask": "sliding", "left_context": 9, "right_context": (1, 2)}, (4 * 3, 4)),
    "so do convolutions": (
        {"mask": "sliding", "left_context": 9, "right_context": 1, "convolution": {"kind": "residual", "kernel": 5}},
        (4 * (2 * 1 + 2 * 2), 4),
    ),
    "but not causal ones": (
        {"mask": "sliding", "left_context": 9, "right_context": 1, "convolution": {"kind": "residual", "causal": True}},
        (4 * 2, 4),
    ),
    "a chunk at any depth": ({"mask": "chunk", "chunk_size": 5, "memory": 9, "layers": 7}, (0, 20)),
    "convolutions stop at its end": (
        {"architecture": "transformer_xl", "chunk_size": 5, "memory": 9, "convolution": {"kind": "interleaved"}},
        (0, 20),
    ),
    "lc_blstm at any depth": ({"architecture": "lc_blstm", "chunk_size": 5, "look_ahead": 3, "layers": 4}, (12, 20)),
    "VGG": ({"mask": "chunk", "chunk_size": 5, "memory": 0, "subsampling": {"kind": "vgg"}}, (6, 20)),
    "causal VGG": (
        {"mask": "chunk", "chunk_size": 5, "memory": 0, "subsampling": {"kind": "vgg", "causal": True}},
        (0, 20),
    ),
    "VGG of 8": ({"mask": "chunk", "chunk_size": 1, "memory": 0, "subsampling": {"kind": "vgg", "factor": 8}}, (14, 8)),
    "whole utterance": ({}, (math.inf, 4)),
    "one layer over all that follows": ({"mask": "sliding", "left_context": 9}, (math.inf, 4)),
    "utterance mean": ({"mask": "chunk", "chunk_size": 5, "memory": 0, "normalise": "utterance"}, (math.inf, 20)),
}


def features(length):
    """A few utterances: what one does not show, another does, since ReLU and the maximum over pairs hide much."""
    return 2 * torch.randn(8, length, 7, generator=torch.Generator().manual_seed(length), dtype=torch.float64)


def log_probs(model, x):
    return model(x, torch.full((len(x),), x.shape[1]))[0]


def chunk_of(model, number):
    """First and last feature frame of the `number`-th chunk of outputs, and those outputs."""
    chunk, factor = model.latency().chunk, model.subsampling.factor
    return number * chunk, (number + 1) * chunk - 1, slice(number * chunk // factor, (number + 1) * chunk // factor)


def gradients(model, x, frames):
    """Of the outputs `frames`, by input frame (T,)."""
    x = x.clone().requires_grad_()
    y = log_probs(model, x)[:, frames]
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (gradient,) = torch.autograd.grad((y * weights).sum(), x)
    return gradient.abs().amax((0, 2))


def assert_untouched(model, x, frames, changed):
    """The outputs `frames` stay as they are when the inputs `changed` become something else altogether."""
    other = x.clone()
    other[:, changed] = -30 * other[:, changed] + 5
    with torch.no_grad():
        before, after = log_probs(model, x), log_probs(model, other)
    torch.testing.assert_close(after[:, frames], before[:, frames], rtol=0, atol=1e-11)


def assert_waits_exactly(model, number):
    """The `number`-th chunk of outputs depends on the last frame that latency() names, and on none after it."""
    _, end, frames = chunk_of(model, number)
    last = end + model.latency().right
    x = features(last + 9)
    assert_untouched(model, x, frames, slice(last + 1, None))
    needed = gradients(model, x, frames)
    assert needed[last] > 0
    assert needed[last + 1 :].max() == 0


@given(data=st.data(), number=st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_latency_is_exact_for_any_streaming_model(make_model, streaming_models, data, number):
    assert_waits_exactly(make_model(torch.float64, **data.draw(streaming_models)), number)


def test_latency_is_exact_for_the_presets(make_preset):
    model = make_preset(torch.float64)
    if math.isinf(model.latency().right):
        x = features(60)
        assert gradients(model, x, slice(0, 1))[-1] > 0
    else:
        assert_waits_exactly(model, 1)


@given(data=st.data(), number=st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_the_receptive_field_is_exact_for_any_streaming_model(make_model, streaming_models, data, number):
    settings = data.draw(streaming_models)
    model = make_model(torch.float64, **settings)
    left, right = model.receptive_field()
    assume(math.isfinite(left))
    number += math.ceil((left + 1) / model.latency().chunk)  # a frame before it is there
    first, end, frames = chunk_of(model, number)
    x = features(end + right + 1)
    assert_untouched(model, x, frames, slice(0, first - left))
    if settings.get("architecture") == "transformer_xl":  # into whose memory no gradient goes: the same with gradients
        model = make_model(torch.float64, **settings | {"architecture": "transformer", "mask": "chunk"})
    assert gradients(model, x, frames)[first - left] > 0


@pytest.mark.parametrize("settings, expected", EXPECTED.values(), ids=EXPECTED)
def test_latency_in_feature_frames(make_model, settings, expected):
    assert make_model(**settings).latency() == expected


@pytest.mark.parametrize(
    "settings", [{}, {"architecture": "blstm"}, {"architecture": "lc_blstm", "chunk_size": 2, "look_ahead": 1}]
)
def test_models_without_a_bounded_history_have_an_infinite_receptive_field(make_model, settings):
    model = make_model(torch.float64, **settings)
    assert math.isinf(model.receptive_field()[0])
    x = features(80)
    assert gradients(model, x, slice(18, 20))[0] > 0
