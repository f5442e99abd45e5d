"""What the devices of a planned training send, and how long that takes."""

import math

from asrtool.config import Config
from asrtool.models.info import ModelInfo
from asrtool.planning.devices import Device
from asrtool.planning.memory import WEIGHT

OVERLAP = 0.6  # of a step's computation behind which ddp and fsdp hide what they send (tools/scaling.py), on GPUs


def communication(
    config: Config, info: ModelInfo, device: Device, devices: int, network: float, compute: float
) -> tuple[float, float]:
    """Returns the bytes that a device sends in the mean step, and the seconds of it that computation does not hide.

    Sums go around a ring of all devices, as slow as its slowest link, which is the network (bytes/s) if there are
    several machines. The workers of bmuf are machines, with ddp inside. A CPU computes what it sends and hides nothing.
    """
    parallel = config.parallel
    size = WEIGHT * sum(info.parameters.values())
    if devices == 1:
        return 0.0, 0.0
    hidden = OVERLAP * compute if device.is_gpu else 0.0
    updates = _update_bytes(info, device)
    machines = math.ceil(devices / device.per_machine)
    link = device.link if machines == 1 else min(device.link, network)
    if parallel.strategy == "bmuf":
        per_worker = averaging_devices(config, device, devices)
        inside = ring_bytes(size, per_worker)
        shared = share_bytes(updates, per_worker)
        between = 3 * ring_bytes(size, math.ceil(devices / per_worker)) / parallel.block_steps
        seconds = max(0.0, inside / device.link - hidden) + shared / device.link + between / link
        return inside + shared + between, seconds
    gradients = size / 2 if parallel.strategy == "ddp" and parallel.gradient_compression != "none" else size
    if parallel.strategy == "fsdp":  # weights are gathered for the forward and the backward pass, gradients scattered
        sent = 1.5 * ring_bytes(size, devices)
        return sent, max(0.0, sent / link - hidden)
    sent, shared = ring_bytes(gradients, devices), share_bytes(updates, devices)
    return sent + shared, max(0.0, sent / link - hidden) + shared / link


def _update_bytes(info: ModelInfo, device: Device) -> float:
    """Bytes of the updates of Muon's matrices, which ranks compute in shares and send after the backward pass."""
    num_weights = 2 * sum(info.parameters.values()) - info.optimizer_values  # Muon keeps one number for each, AdamW two
    return (WEIGHT / 2 if device.is_gpu else WEIGHT) * num_weights


def averaging_devices(config: Config, device: Device, devices: int) -> int:
    """Returns how many devices average their gradients in each step, and so wait for each other."""
    if config.parallel.strategy == "bmuf":
        return min(config.parallel.ranks_per_worker or device.per_machine, devices)
    return devices


def ring_bytes(size: float, workers: int) -> float:
    """Bytes that each worker of a ring sends to sum up `size` bytes."""
    return 2 * (workers - 1) / workers * size


def share_bytes(size: float, workers: int) -> float:
    """Bytes that each worker of a ring sends until all have the shares of all, `size` bytes together."""
    return (workers - 1) / workers * size
