"""A training on a CPU without instructions for bf16."""

import torch

from asrtool.training.train import train


def test_training_with_bf16_on_a_cpu_without_it_is_training_with_fp32(monkeypatch, tiny_config, tmp_path, state, capfd):
    monkeypatch.setattr("asrtool.precision.lacks_bf16", lambda device: True)
    train(tiny_config(training={"precision": "bf16"}), tmp_path / "bf16", device="cpu")
    assert "precision bf16 falls back to fp32" in capfd.readouterr().err
    train(tiny_config(training={"precision": "fp32"}), tmp_path / "fp32", device="cpu")
    assert "falls back" not in capfd.readouterr().err
    weights, expected = state(tmp_path / "bf16")["model"], state(tmp_path / "fp32")["model"]
    assert all(torch.equal(weights[name], weight) for name, weight in expected.items())
