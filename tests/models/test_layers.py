"""The layers compared with the formulas of their papers."""

import math

import pytest
import torch

from asrtool.models.dot_product import dot_product_attention
from asrtool.models.masks import padding_mask
from asrtool.models.normalise import Normalise
from asrtool.models.relative_positions import sinusoids


@pytest.mark.parametrize("length, dim", [(1, 2), (50, 8), (300, 16), (7, 5)])
def test_sinusoids_follow_the_formula_of_the_paper(length, dim):
    """PE(pos, 2i) = sin(pos / 10000^(2i/dim)), PE(pos, 2i+1) its cosine; here all sines stand before all cosines."""
    angles = [[pos / 10000 ** (2 * i / dim) for i in range(math.ceil(dim / 2))] for pos in range(length)]
    expected = torch.tensor([[f(a) for f in (math.sin, math.cos) for a in row][:dim] for row in angles])
    result = sinusoids(torch.arange(length), dim)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-4)


def test_global_normalisation_uses_the_statistics_and_utterance_normalisation_its_own_mean():
    x, lens = torch.randn(2, 6, 3) * 5 + 2, torch.tensor([6, 4])
    mean, deviation = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 0.5, 4.0])
    for kind in ("global", "utterance", "none"):
        layer = Normalise(kind, 3)
        layer.set_statistics(mean, deviation)
        for row, length in enumerate(lens):
            own = x[row, :length]
            centre = mean if kind == "global" else own.mean(0)
            expected = own if kind == "none" else (own - centre) / deviation
            torch.testing.assert_close(layer(x, padding_mask(lens, 6))[row, :length], expected)
            assert (layer(x, padding_mask(lens, 6))[row, length:] == 0).all()


def test_a_bin_that_never_changes_stays_finite():
    layer = Normalise("global", 2)
    layer.set_statistics(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0]))
    assert layer(torch.zeros(1, 3, 2), torch.ones(1, 3, dtype=torch.bool)).isfinite().all()


@pytest.mark.parametrize("mask", ["none", "seen or not", "scores"])
def test_attention_trained_in_bf16_is_near_to_fp32_and_so_are_its_gradients(mask):
    torch.manual_seed(1)
    q, k, v, upstream = torch.randn(4, 3, 2, 40, 16).bfloat16()
    seen = (torch.rand(3, 1, 40, 40) < 0.7).index_fill(3, torch.tensor(0), True)
    scores = torch.where(seen, torch.randn(3, 2, 40, 40), -math.inf)
    mask = {"none": None, "seen or not": seen, "scores": scores}[mask]

    def outcome(attend, dtype):
        inputs = [x.to(dtype, copy=True).requires_grad_() for x in (q, k, v)]
        means = attend(*inputs, mask if mask is None or mask.dtype == torch.bool else mask.to(dtype), 0.0)
        means.backward(upstream.to(dtype))
        return [means.detach(), *(x.grad for x in inputs)]

    result = outcome(dot_product_attention, torch.bfloat16)
    exact = outcome(torch.nn.functional.scaled_dot_product_attention, torch.float32)
    for ours, theirs in zip(result, exact, strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours.float() - theirs).norm() < 0.01 * theirs.norm()
