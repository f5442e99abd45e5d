"""The choice of the device that runs a model, and its description next to a measurement."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from asrtool.errors import UserError
from asrtool.machine import cpu_name


def pick_device(name: str = "auto", local_rank: int = 0) -> torch.device:
    """Returns the device for "auto" (this rank's GPU, else the CPU), "cpu", "cuda" or "cuda:1". UserError otherwise."""
    if name in ("auto", "cuda") and torch.cuda.is_available():
        return torch.device("cuda", local_rank % torch.cuda.device_count())
    if name == "auto":
        return torch.device("cpu")
    if not re.fullmatch(r"cpu|cuda(:[0-9]{1,3})?", name):
        raise UserError(f"--device {name[:50]} is not a device of asrtool; give auto, cpu, cuda or cuda:N")
    device = torch.device(name)
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise UserError(f"--device {name}: this machine has {torch.cuda.device_count()} GPUs; give cpu or auto")
    return device


def use_device(name: str = "auto", local_rank: int = 0) -> torch.device:
    """Returns the device of a run, as `pick_device`, and makes a GPU the current one of this thread.

    torch puts the shards of FSDP on the current GPU, records CUDA graphs there, and counts its memory.
    """
    device = pick_device(name, local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Returns a tensor on `device`. The copy from the host to a GPU does not wait for the work that the GPU has.

    Such copies need pinned memory; a tensor that is not in it is copied there first.
    """
    if device.type == "cuda" and tensor.device.type == "cpu" and not tensor.is_pinned():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def describe_device(device: torch.device) -> str:
    """Returns the name of the GPU, or the model and number of threads of the CPU: "AMD EPYC, 2 threads"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{cpu_name()}, {torch.get_num_threads()} threads"


def is_out_of_memory(error: BaseException) -> bool:
    """Returns True if an error says that the device has no memory left."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def lacks_bf16(device: torch.device) -> bool:
    """Returns True for a CPU without bf16 instructions, on which bf16 is many times slower than fp32."""
    return device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported()


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Lets torch use `number` threads on the CPU within a `with` block, and as many as before after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
