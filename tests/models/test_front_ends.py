"""The front ends compared with plain torch code on one utterance, and their lengths."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import conv2d, linear, max_pool2d, pad

from asrtool.config import SubsamplingConfig
from asrtool.models.subsampling import make_front_end

DIM = 6
STRIDES = {2: [2], 3: [3], 4: [2, 2], 6: [2, 3], 8: [2, 2, 2], 9: [3, 3]}  # of the convolutions
ALL = [{"kind": "conv", "factor": factor} for factor in STRIDES]
ALL += [{"kind": "vgg", "factor": 2**i, "causal": causal} for i in (1, 2, 3) for causal in (False, True)]
ALL += [{"kind": "stack", "factor": factor} for factor in range(1, 9)]


def front_end(bins, **settings):
    torch.manual_seed(9)
    front = make_front_end(SubsamplingConfig(channels=3, **settings), bins, DIM).double()
    for parameter in front.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return front


def stack(front, x, factor):
    x = torch.cat([x, x.new_zeros(-len(x) % factor, x.shape[1])])
    return x.view(-1, factor * x.shape[1])


def conv(front, x, factor):
    x = x[None, None]
    for layer, stride in zip(front.convolutions, STRIDES[factor], strict=True):
        x = conv2d(x, layer.weight, layer.bias, stride=(stride, 2), padding=(stride - 1, 1)).relu()
    return torch.cat(list(x[0]), dim=1)


def vgg(front, x, causal):
    x = x[None, None]
    for block in front.blocks:
        for layer in block.convolutions:
            x = conv2d(pad(x, (1, 1, 2, 0) if causal else (1, 1, 1, 1)), layer.weight, layer.bias).relu()
        x = max_pool2d(x, 2, ceil_mode=True)
    return torch.cat(list(x[0]), dim=1)


def direct(front, x, kind, factor, causal=False):
    """(T, F) to (T', D)."""
    y = {
        "stack": lambda: stack(front, x, factor),
        "conv": lambda: conv(front, x, factor),
        "vgg": lambda: vgg(front, x, causal),
    }
    return linear(y[kind](), front.projection.weight, front.projection.bias)


@given(
    settings_=st.sampled_from(ALL), bins=st.integers(1, 9), lengths=st.lists(st.integers(1, 30), min_size=1, max_size=3)
)
@settings(max_examples=50, deadline=None)
@torch.no_grad()
def test_a_front_end_equals_its_plain_definition_on_each_utterance(settings_, bins, lengths):
    front, size = front_end(bins, **settings_), max(lengths) + 3
    x = torch.randn(len(lengths), size, bins, dtype=torch.float64)
    result = front(x, torch.tensor(lengths))
    for row, y, length in zip(x, result, lengths, strict=True):
        expected = direct(front, row[:length], **settings_)
        assert len(expected) == front.out_length(length)
        torch.testing.assert_close(y[: len(expected)], expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("settings", ALL, ids=lambda s: "-".join(map(str, s.values())))
@torch.no_grad()
def test_out_length_is_exact_and_rounds_up(settings):
    front, factor = front_end(2, **settings), settings["factor"]
    lengths = range(1, 201)
    for length in lengths:
        result = front(torch.zeros(1, length, 2, dtype=torch.float64), torch.tensor([length]))
        assert result.shape == (1, front.out_length(length), DIM)
        assert front.out_length(length) == -(-length // factor)
    assert front.out_length(torch.tensor(lengths)).tolist() == [front.out_length(length) for length in lengths]
    assert front.out_length(0) == 0
    assert front.factor == factor


@pytest.mark.parametrize("settings", ALL, ids=lambda s: "-".join(map(str, s.values())))
def test_an_output_depends_on_left_and_right_feature_frames(settings):
    """Frames whose change reaches output 8, by the gradients of several inputs."""
    front, factor = front_end(7, **settings), settings["factor"]
    x = torch.randn(16, 20 * factor, 7, dtype=torch.float64, requires_grad=True)
    front(x, torch.full((16,), 20 * factor))[:, 8].pow(2).sum().backward()
    (seen,) = torch.nonzero(x.grad.abs().amax((0, 2)), as_tuple=True)
    assert (seen[0], seen[-1]) == (8 * factor - front.left, 9 * factor - 1 + front.right)


@pytest.mark.parametrize("factor, right", [(2, 2), (4, 6), (8, 14)])
def test_only_a_symmetric_vgg_looks_ahead(factor, right):
    assert front_end(7, kind="vgg", factor=factor).right == right
    assert front_end(7, kind="vgg", factor=factor, causal=True).right == 0
    assert front_end(7, kind="conv", factor=factor).right == front_end(7, kind="stack", factor=factor).right == 0


def test_vgg_doubles_its_channels_with_each_halving():
    front = front_end(7, kind="vgg", factor=8)
    shapes = [(layer.in_channels, layer.out_channels) for block in front.blocks for layer in block.convolutions]
    assert shapes == [(1, 3), (3, 3), (3, 6), (6, 6), (6, 12), (12, 12)]
