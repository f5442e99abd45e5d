"""The convolution between blocks compared with its definition, one output frame at a time."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import silu

from asrtool.config import ConvolutionConfig
from asrtool.models.caches import Caches
from asrtool.models.convolution import InterleavedConvolution
from asrtool.models.masks import padding_mask

DIM = 4
KERNELS = st.one_of(
    st.tuples(st.sampled_from([3, 5, 7]), st.just(False)), st.tuples(st.integers(2, 6), st.just(True))
)  # and whether it is causal
NAMES = ["interleaved", "residual", "conformer"]
KINDS = st.sampled_from(NAMES)
CHUNKS = st.none() | st.integers(1, 5)


def make(kind, kernel, causal, chunk):
    torch.manual_seed(8)
    layer = InterleavedConvolution(ConvolutionConfig(kind=kind, kernel=kernel, causal=causal), DIM, 0.5, chunk).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    return layer.eval()


def direct(layer, x, kind, kernel, causal, chunk):
    """(T, D), one utterance: a loop over frames and over the kernel."""
    seen = x if kind == "interleaved" else layer.norm(x)
    if kind == "conformer":
        a, b = layer.gate[0](seen).chunk(2, -1)
        seen = a * b.sigmoid()
    left, outputs = kernel - 1 if causal else kernel // 2, []
    for t in range(len(x)):
        end = len(x) if chunk is None else min(len(x), (t // chunk + 1) * chunk)
        y = layer.convolution.bias
        for offset in range(kernel):
            if 0 <= t - left + offset < end:
                weight, frame = layer.convolution.weight[:, :, offset], seen[t - left + offset]
                y = y + (weight[:, 0] * frame if kind == "conformer" else weight @ frame)
        y = layer.after[2](silu(layer.after[0](y))) if kind == "conformer" else y.relu()
        outputs.append(y if kind == "interleaved" else x[t] + y)
    return torch.stack(outputs)


@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=3), kind=KINDS, kernel=KERNELS, chunk=CHUNKS)
@settings(max_examples=50, deadline=None)
@torch.no_grad()
def test_an_output_is_a_sum_over_the_kernel_within_the_utterance_and_the_chunk(lengths, kind, kernel, chunk):
    layer, size = make(kind, *kernel, chunk), max(lengths) + 1
    size += -size % (chunk or 1)
    x = torch.randn(len(lengths), size, DIM, dtype=torch.float64)
    result = layer(x, padding_mask(torch.tensor(lengths), size))
    assert result.shape == x.shape
    for row, y, length in zip(x, result, lengths, strict=True):
        expected = direct(layer, row[:length], kind, *kernel, chunk)
        torch.testing.assert_close(y[:length], expected, rtol=0, atol=1e-12)


@given(steps=st.integers(1, 4), kind=KINDS, kernel=KERNELS, chunk=CHUNKS, size=st.integers(1, 3))
@settings(max_examples=40, deadline=None)
@torch.no_grad()
def test_a_stream_is_delayed_by_its_look_ahead(steps, kind, kernel, chunk, size):
    layer, size = make(kind, *kernel, chunk), size * (chunk or 1)
    delay = 0 if chunk or kernel[1] else kernel[0] // 2
    assert layer.delay == delay
    x = torch.randn(1, steps * size + delay, DIM, dtype=torch.float64)
    lens, state, result = torch.tensor([steps * size]), layer.initial_state(1), []
    for first in range(0, x.shape[1], size):
        caches = Caches(state)
        result.append(layer.step(x[:, first : first + size], torch.tensor([first]), lens, caches))
        state = caches.new
    expected = direct(layer, x[0, : steps * size], kind, *kernel, chunk)
    torch.testing.assert_close(torch.cat(result, 1)[0, delay:], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", NAMES)
def test_dropout_is_on_the_residual_branch_only(kind):
    """As published there is none; around the residual connection the input stays."""
    layer, x = make(kind, 3, False, None), torch.randn(1, 50, DIM, dtype=torch.float64)
    mask = torch.ones(1, 50, dtype=torch.bool)
    whole = layer(x, mask)
    result = layer.train()(x, mask)
    if kind == "interleaved":
        assert torch.equal(result, whole)
    else:
        branch = (result - x) / (whole - x).masked_fill(whole == x, math.inf)
        dropped, doubled = (branch.abs() < 1e-9), (branch - 2).abs() < 1e-9
        assert (dropped | doubled).all() and doubled.any() and (dropped & (whole != x)).any()


def test_outputs_depend_on_the_frames_drawn_in_the_docstring():
    """Chunks of 3, a kernel of 3."""
    layer = make("interleaved", 3, False, 3)
    seen = []
    for frame in range(6):
        x = torch.randn(1, 6, DIM, dtype=torch.float64, requires_grad=True)
        layer(x, torch.ones(1, 6, dtype=torch.bool))[0, frame].sum().backward()
        seen.append((x.grad[0] != 0).any(-1).int().tolist())
    assert seen[1:4] == [[1, 1, 1, 0, 0, 0], [0, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 0]]
