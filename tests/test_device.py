"""Copies to a device, as far as they can be tested without one."""

from dataclasses import dataclass, field

import pytest
import torch

from asrtool.data.batch import Batch
from asrtool.device import to_device, use_device
from asrtool.training.train import dry_run, train
from tests.tiny import feature_batch


@dataclass
class HostTensor:
    """A tensor on the host that notes what is done with it."""

    pinned: bool = False
    device: torch.device = torch.device("cpu")
    calls: list = field(default_factory=list)

    def is_pinned(self) -> bool:
        return self.pinned

    def pin_memory(self) -> "HostTensor":
        self.calls.append("pin")
        return HostTensor(pinned=True, calls=self.calls)

    def to(self, device: torch.device, non_blocking: bool = False) -> str:
        self.calls.append(("copy", self.pinned, non_blocking))
        return device.type


@pytest.mark.parametrize("pinned", [False, True])
def test_copies_to_a_gpu_come_from_pinned_memory_and_do_not_wait(pinned):
    tensor = HostTensor(pinned)
    assert to_device(tensor, torch.device("cuda")) == "cuda"
    assert tensor.calls == [*([] if pinned else ["pin"]), ("copy", True, True)]


def test_nothing_is_pinned_or_copied_for_a_cpu():
    tensor = torch.ones(2)
    assert to_device(tensor, torch.device("cpu")) is tensor


def test_all_tensors_of_a_batch_are_pinned_and_arrays_become_tensors(monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
    batch = feature_batch(torch.ones(2, 3, 4), torch.tensor([3, 2]), 0.05)
    batch.features = batch.features.numpy()  # as a loader process sends it
    result = batch.pin_memory()
    assert isinstance(result, Batch) and torch.equal(result.features, torch.ones(2, 3, 4))
    assert len(pinned) == 4 and result.ids == batch.ids and result.labels is None


@pytest.fixture
def current_gpu(monkeypatch):
    """The devices that were made current, on a machine that seems to have two GPUs."""
    current = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: current.append(str(device)))
    return current


def test_the_gpu_of_a_run_becomes_the_current_one(current_gpu):
    used = [str(use_device(name, rank)) for name, rank in [("auto", 1), ("cuda", 2), ("cuda:1", 0), ("cpu", 1)]]
    assert used == ["cuda:1", "cuda:0", "cuda:1", "cpu"] and current_gpu == used[:3]


@pytest.mark.parametrize("start", [train, dry_run])
def test_training_starts_on_its_gpu(current_gpu, monkeypatch, tiny_config, tmp_path, start):
    def started(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("asrtool.training.train.start_session", started)
    with pytest.raises(KeyboardInterrupt):
        start(tiny_config(), tmp_path / "exp", device="cuda:1")
    assert current_gpu == ["cuda:1"]
