"""How often a training step reads values from the device, for which the host waits until all work so far is done.

On a CPU nothing waits; what would be on a device is followed instead: all weights, what `to_device` returns, and what
is computed from them.
"""

import sys

import pytest
import torch
from lhotse import CutSet
from lhotse.supervision import AlignmentItem
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from asrtool import device
from asrtool.models.transformer import TransformerEncoder
from asrtool.training import train as module
from asrtool.training.train import train

READING_METHODS = (torch.Tensor.tolist, torch.Tensor.numpy)  # which on a CPU do not go through the dispatcher


class DeviceTensors(TorchDispatchMode):
    """Follows the tensors on the device, and lists the operations by which the host reads their values."""

    def __init__(self):
        super().__init__()
        self.reads: list[str] = []
        self._keys: set[int] = set()
        self._alive: list[torch.Tensor] = []  # so that no other tensor gets the key of one that is gone

    def mark(self, tensor: torch.Tensor) -> None:
        """Notes that a tensor is on the device."""
        self._keys.add(storage_key(tensor))
        self._alive.append(tensor)

    def holds(self, values: object) -> bool:
        """Returns True if one of the tensors among `values` is on the device."""
        return any(storage_key(leaf) in self._keys for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor))

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if self.holds((args, kwargs)):
            if function is torch.ops.aten._local_scalar_dense.default:
                self.reads.append("_local_scalar_dense")
            for leaf in tree_leaves(result):
                if isinstance(leaf, torch.Tensor):
                    self.mark(leaf)
        return result


class ReadingMethods(TorchFunctionMode):
    """Lists calls of READING_METHODS on tensors that `followed` has on the device."""

    def __init__(self, followed: DeviceTensors):
        super().__init__()
        self.followed = followed

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in READING_METHODS and self.followed.holds(args[0]):
            self.followed.reads.append(function.__name__)
        return function(*args, **(kwargs or {}))


def storage_key(tensor: torch.Tensor) -> int:
    """The same number for all views of a tensor."""
    return id(tensor) if tensor.layout != torch.strided else tensor.untyped_storage()._cdata


@pytest.fixture
def reads_of_steps(monkeypatch, tmp_path):
    """reads_of_steps(config) -> the reads of each step of a training and of its row in the log."""

    def run(config):
        followed = DeviceTensors()
        counts: list[list[str]] = []

        def to_device(tensor, _):
            copy = tensor.clone()
            followed.mark(copy)
            return copy

        for loaded in list(sys.modules.values()):
            if loaded is not device and getattr(loaded, "to_device", None) is device.to_device:
                monkeypatch.setattr(loaded, "to_device", to_device)

        def followed_call(function, is_step):
            def call(session, *rest):
                for weight in session.model.parameters():
                    followed.mark(weight)
                followed.reads = []
                with followed, ReadingMethods(followed):
                    result = function(session, *rest)
                if is_step:
                    counts.append([])
                counts[-1] += followed.reads
                return result

            return call

        # Frames are padded, as on a GPU: a CPU reads the lengths to leave padding out
        never = property(lambda _: False, lambda *_: None)
        monkeypatch.setattr(TransformerEncoder, "pack_frames", never, raising=False)
        monkeypatch.setattr(module, "training_step", followed_call(module.training_step, is_step=True))
        monkeypatch.setattr(module, "report_progress", followed_call(module.report_progress, is_step=False))
        train(config, tmp_path / "exp", device="cpu")
        return counts

    return run


@pytest.fixture
def aligned(corpus, tmp_path):
    """The tiny corpus with the words of each cut aligned evenly."""
    cuts = list(CutSet.from_file(corpus))
    for cut in cuts:
        words = cut.supervisions[0].text.split()
        each = cut.duration / len(words)
        items = [AlignmentItem(word, number * each, each) for number, word in enumerate(words)]
        cut.supervisions[0].alignment = {"unit": items}
    CutSet.from_cuts(cuts).to_file(tmp_path / "aligned.jsonl.gz")
    return str(tmp_path / "aligned.jsonl.gz")


@pytest.mark.parametrize(
    "objective, most",
    [
        ({"kind": "ctc"}, 1),
        ({"kind": "ctc", "intermediate_ctc": 0.3}, 1),
        ({"kind": "ce"}, 1),
        ({"kind": "mmi", "ce_weight": 0.1}, 2),
        ({"kind": "mmi", "topology": "hmm"}, 2),
    ],
)
def test_the_host_reads_from_the_device_once_in_a_step_and_once_for_mmi(
    tiny_config, aligned, reads_of_steps, objective, most
):
    """The losses and the gradient norm, for the guards; whether the sums of MMI are exact."""
    settings = {"max_steps": 3, "validate_every": 3, "log_every": 1, "warmup_steps": 1, "ema_decay": 0.9}
    config = tiny_config(objective=objective, data={"train": aligned, "dev": aligned}, training=settings)
    reads = reads_of_steps(config)
    assert [len(step) for step in reads] == [most] * 3, reads


def test_a_row_of_the_log_with_the_norms_of_all_layers_reads_them_at_once(tiny_config, reads_of_steps):
    settings = {"max_steps": 2, "validate_every": 2, "log_every": 1, "warmup_steps": 1, "log_layers": True}
    assert [len(step) for step in reads_of_steps(tiny_config(training=settings))] == [2, 2]


def test_reads_are_counted():
    followed = DeviceTensors()
    weight = torch.ones(2)
    followed.mark(weight)
    with followed, ReadingMethods(followed):
        float((weight * 2).sum())
        bool((weight.view(2, 1) > 3).any())
        (weight + 1).tolist()
        torch.ones(3).sum().item()
    assert followed.reads == ["_local_scalar_dense", "_local_scalar_dense", "tolist"]
