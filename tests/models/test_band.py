"""Attention within a band, computed in blocks, equals attention with all scores and a mask, and has fewer of them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from asrtool.models import attention
from asrtool.models.attention import AttentionContext, SelfAttention
from asrtool.models.masks import band_mask, padding_mask, sliding_mask, windows

DIM = 8


@pytest.fixture
def in_blocks(monkeypatch):
    """in_blocks(block) -> bands are computed in blocks of so many queries; in_blocks(None) -> with all scores"""

    def choose(block):
        monkeypatch.setattr(attention, "BAND_BLOCK", block or 1)
        monkeypatch.setattr(SelfAttention, "_band_has_fewer_scores", lambda self, lens: block is not None)

    return choose


def outcome(layer, x, mask):
    """The output of valid frames, and the gradients of the input and of all weights."""
    x = x.clone().requires_grad_()
    y = layer(x, mask)
    if not isinstance(mask, list):
        y = y[mask]
    weights = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view_as(y)
    layer.zero_grad()
    (y.double() * weights).sum().backward()
    return [y.detach(), x.grad, *(p.grad for p in layer.parameters())]


def make_layer(left, right, relative):
    torch.manual_seed(3)
    layer = SelfAttention(DIM, 2, AttentionContext(left, right), relative).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return layer


@pytest.mark.parametrize("packed", [True, False])
@given(
    left=st.integers(0, 9),
    right=st.integers(0, 4),
    block=st.integers(1, 7),
    lens=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    relative=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_blocks_equal_all_scores_in_both_directions(left, right, block, lens, relative, packed):
    layer = make_layer(left, right, relative)
    mask = lens if packed else padding_mask(torch.tensor(lens), max(lens) + 2)
    x = torch.randn(sum(lens), DIM) if packed else torch.randn(*mask.shape, DIM)
    results = []
    for choice in (block, None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(attention, "BAND_BLOCK", block)
            patch.setattr(SelfAttention, "_band_has_fewer_scores", lambda *_, choice=choice: choice is not None)
            results.append(outcome(layer, x.double(), mask))
    for ours, dense in zip(*results, strict=True):
        torch.testing.assert_close(ours, dense, rtol=0, atol=1e-12)


def test_blocks_in_bf16_are_as_exact_as_all_scores(in_blocks):
    layer = make_layer(5, 2, relative=True).float()
    x = torch.randn(90, DIM)
    in_blocks(None)
    exact = outcome(layer, x, [50, 40])
    errors = []
    for block in (16, None):
        in_blocks(block)
        with torch.autocast("cpu", torch.bfloat16):
            result = outcome(layer, x, [50, 40])
        errors.append(max(float((a.float() - b).norm() / b.norm()) for a, b in zip(result, exact, strict=True)))
    assert errors[0] < 1.3 * errors[1] < 0.05


class LargestSoftmax(TorchDispatchMode):
    """Notes the most scores of a softmax, or of a fused attention."""

    def __init__(self):
        super().__init__()
        self.scores = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "softmax" in str(func):
            self.scores = max(self.scores, args[0].numel())
        if "scaled_dot_product" in str(func):
            q, k = args[:2]
            self.scores = max(self.scores, q.shape[:-1].numel() * k.shape[2])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("convolution", ["none", "conformer"])
@pytest.mark.parametrize("grad", [True, False])
def test_a_sliding_model_has_no_scores_of_all_pairs_of_frames(make_model, convolution, grad):
    model = make_model(
        mask="sliding",
        left_context=10,
        right_context=2,
        positional_encoding="relative",
        subsampling={"kind": "stack", "factor": 1},
        convolution={"kind": convolution},
    )
    frames = 1200
    with torch.set_grad_enabled(grad), LargestSoftmax() as noted:
        model(torch.randn(2, frames, 7), torch.tensor([frames, frames - 100]))
    heads = 2
    padded = 2 * frames + attention.BAND_BLOCK
    assert 0 < noted.scores <= heads * padded * (10 + attention.BAND_BLOCK + 2)


@pytest.mark.parametrize("length, in_band", [(70, False), (200, True)])
def test_all_scores_are_computed_where_that_is_less(length, in_band):
    layer = SelfAttention(DIM, 2, AttentionContext(40, 3))
    assert layer._band_has_fewer_scores([length] * 3) == in_band
    assert not SelfAttention(DIM, 2, AttentionContext(40, None))._band_has_fewer_scores([10_000])


def test_the_band_mask_as_drawn():
    drawn = [
        [". 1 1 . .", ". 1 1 . .", ". . . 1 1"],
        ["1 1 1 . .", ". 1 1 . .", ". . . 1 1"],
    ]
    expected = [[[mark == "1" for mark in row.split()] for row in block] for block in drawn]
    assert band_mask(torch.tensor([0, 0, 1, 1, 1, -1]), 3, 1, 1).tolist() == expected


@given(
    lens=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    block=st.integers(1, 6),
    left=st.integers(0, 7),
    right=st.integers(0, 3),
)
@settings(max_examples=50, deadline=None)
def test_the_band_mask_is_the_sliding_mask_of_each_utterance(lens, block, left, right):
    utterances = torch.cat([torch.full((length,), number) for number, length in enumerate(lens)])
    size = len(utterances)
    padded = torch.nn.functional.pad(utterances, (0, -size % block), value=-1)
    result = band_mask(padded, block, left, right)
    assert result.any(-1).all()
    dense = torch.block_diag(*[sliding_mask(n, n, 0, left, right) for n in lens]).bool()
    dense = torch.nn.functional.pad(dense, (left, right + -size % block))
    whole = windows(dense[..., None], block, left + right)[..., 0]  # (size, M, W): of all queries
    for query in range(size):
        assert torch.equal(result[query // block, query % block], whole[query, query // block])
