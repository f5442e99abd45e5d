"""Dropout: what is dropped, how much, and what that does to the rest."""

import pytest
import torch

from asrtool.models.dropout import Dropout


@pytest.mark.parametrize("p", [0.0, 0.1, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_elements_are_dropped_with_probability_p_and_the_rest_scaled_up_forward_and_backward(p, dtype):
    torch.manual_seed(1)
    x = torch.full((7, 41, 301), 2.0, dtype=dtype, requires_grad=True)
    y = Dropout(p).train()(x)
    y.sum().backward()
    expected = 0.0 if p == 1 else 1 / (1 - p)
    assert y.dtype == dtype and set(y.unique().tolist()) <= {0.0, y.max().item()}
    assert y.max().item() == pytest.approx(2 * expected, rel=1e-4 if dtype != torch.bfloat16 else 4e-3)
    assert torch.equal(x.grad, y.detach() / 2)
    assert (y == 0).double().mean().item() == pytest.approx(p, abs=0.007)  # 4 standard deviations of a half


def test_elements_are_dropped_independently_of_their_neighbours():
    torch.manual_seed(2)
    kept = (Dropout(0.5).train()(torch.ones(1 << 18)) > 0).double() - 0.5
    for distance in range(1, 9):
        assert abs((kept[distance:] * kept[:-distance]).mean().item()) < 0.25 * 4 / 2**9  # 4 standard deviations


@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (0, 4), (2, 3, 7)])
def test_any_shape_and_the_same_mask_for_the_same_seed(shape):
    x, drop = torch.randn(shape), Dropout(0.5).train()
    torch.manual_seed(3)
    first = drop(x)
    torch.manual_seed(3)
    again, other = drop(x), drop(x)
    assert first.shape == x.shape and torch.equal(first, again)
    assert x.numel() < 40 or not torch.equal(first, other)


def test_nothing_is_dropped_outside_training():
    x = torch.randn(4, 5)
    assert torch.equal(Dropout(0.9).eval()(x), x)
