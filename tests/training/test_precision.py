"""bf16 where the device has instructions for it, and fp32 elsewhere."""

import pytest
import torch

from asrtool.training.precision import autocast, uses_bf16
from asrtool.training.train import train


@pytest.fixture
def cpu_without_bf16(monkeypatch):
    monkeypatch.setattr("asrtool.training.precision.lacks_bf16", lambda device: True)


@pytest.fixture
def cpu_with_bf16(monkeypatch):
    monkeypatch.setattr("asrtool.training.precision.lacks_bf16", lambda device: False)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "auto"])
def test_a_cpu_without_bf16_instructions_always_computes_in_fp32(cpu_without_bf16, precision):
    assert not uses_bf16(precision, torch.device("cpu"))


@pytest.mark.parametrize("precision, expected", [("fp32", False), ("bf16", True), ("auto", True)])
def test_with_bf16_instructions_bf16_and_auto_mean_bf16(cpu_with_bf16, precision, expected):
    assert uses_bf16(precision, torch.device("cpu")) == expected


def test_products_are_in_bf16_only_inside_autocast(cpu_with_bf16):
    a, b = torch.randn(7, 5), torch.randn(5, 3)
    with autocast("bf16", torch.device("cpu")):
        assert (a @ b).dtype == torch.bfloat16
    with autocast("fp32", torch.device("cpu")):
        assert torch.equal(a @ b, torch.matmul(a, b)) and (a @ b).dtype == torch.float32


def test_training_with_bf16_on_a_cpu_without_it_is_training_with_fp32(
    cpu_without_bf16, tiny_config, tmp_path, state, capfd
):
    train(tiny_config(training={"precision": "bf16"}), tmp_path / "bf16", device="cpu")
    assert "training.precision bf16 falls back to fp32" in capfd.readouterr().err
    train(tiny_config(training={"precision": "fp32"}), tmp_path / "fp32", device="cpu")
    assert "falls back" not in capfd.readouterr().err
    weights, expected = state(tmp_path / "bf16")["model"], state(tmp_path / "fp32")["model"]
    assert all(torch.equal(weights[name], weight) for name, weight in expected.items())
