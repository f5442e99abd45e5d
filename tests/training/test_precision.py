"""bf16 without bf16 instructions: the numbers of bf16, not only its speed."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from asrtool.config import Config
from asrtool.models.acoustic import AcousticModel
from asrtool.training.precision import RoundedProducts, products, uses_bf16

SIZES = {"subsampling": {"channels": 2}, "dim": 8, "layers": 2, "heads": 2, "ff_dim": 12}
MODELS = {
    "transformer": {"convolution": {"kind": "residual"}},
    "transformer_xl": {"positional_encoding": "relative", "chunk_size": 3, "memory": 4},
    "blstm": {},
    "lc_blstm": {"chunk_size": 3, "look_ahead": 2},
}


@pytest.mark.parametrize("shapes", [[(3, 4), (4, 5)], [(2, 3, 4), (2, 4, 5)]])
def test_a_product_is_that_of_the_rounded_operands_rounded_once(shapes):
    a, b = (torch.randn(shape, requires_grad=True) for shape in shapes)
    with RoundedProducts():
        made = a.bfloat16() @ b.bfloat16()
        made.sum().backward()
    assert made.dtype == torch.bfloat16
    assert torch.equal(made, (a.bfloat16().float() @ b.bfloat16().float()).bfloat16())
    assert torch.equal(a.grad, b.bfloat16().float().sum(-1).bfloat16().float().unsqueeze(-2).expand_as(a))


def test_fp32_is_left_alone():
    a, b = torch.randn(7, 5), torch.randn(5, 3)
    with RoundedProducts():
        made = a @ b
    assert torch.equal(made, a @ b)


def test_attention_is_that_of_the_rounded_operands():
    q, k, v = torch.randn(3, 2, 2, 6, 8).bfloat16()
    with RoundedProducts():
        made = scaled_dot_product_attention(q, k, v)
    expected = scaled_dot_product_attention(q.float(), k.float(), v.float())
    assert made.dtype == torch.bfloat16
    torch.testing.assert_close(made.float(), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("architecture", MODELS)
def test_every_architecture_trains_near_to_fp32(architecture, monkeypatch):
    monkeypatch.setattr("asrtool.training.precision.lacks_bf16", lambda device: True)
    torch.manual_seed(1)
    model = {"architecture": architecture, "dropout": 0.0, **SIZES, **MODELS[architecture]}
    model = AcousticModel(Config.model_validate({"features": {"num_bins": 7}, "model": model}), 5)
    batch = torch.randn(2, 30, 7), torch.tensor([30, 21])

    def gradients(bf16):
        model.zero_grad()
        with products("bf16" if bf16 else "fp32", torch.device("cpu")):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                log_probs, _ = model(*batch)
            log_probs[..., 1].mean().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    exact, rounded = gradients(False), gradients(True)
    assert not torch.equal(exact, rounded)
    assert (exact - rounded).norm() < 0.05 * exact.norm()


def test_only_bf16_on_such_a_processor_is_changed(monkeypatch):
    entered = []
    monkeypatch.setattr(RoundedProducts, "__enter__", lambda self: entered.append(self))
    monkeypatch.setattr(RoundedProducts, "__exit__", lambda self, *_: None)
    for lacks, precision in ((False, "bf16"), (True, "fp32"), (True, "bf16")):
        monkeypatch.setattr("asrtool.training.precision.lacks_bf16", lambda device, lacks=lacks: lacks)
        with products(precision, torch.device("cpu")):
            pass
    assert len(entered) == 1


@pytest.mark.parametrize(
    "precision, lacks, used",
    [("fp32", False, False), ("bf16", True, True), ("bf16", False, True), ("auto", True, False), ("auto", False, True)],
)
def test_auto_is_bf16_where_there_are_instructions_for_it(monkeypatch, precision, lacks, used):
    monkeypatch.setattr("asrtool.training.precision.lacks_bf16", lambda device: lacks)
    assert uses_bf16(precision, torch.device("cpu")) == used
