"""Copies to a device, as far as they can be tested without one."""

from dataclasses import dataclass, field

import pytest
import torch

from asrtool.data.batch import Batch
from asrtool.device import to_device
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
