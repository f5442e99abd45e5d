"""The memory of a device in a planned training, and the largest batch that fits into it."""

from dataclasses import dataclass

from asrtool.config import Config
from asrtool.models.info import ModelInfo
from asrtool.planning.devices import Device

USABLE_MEMORY = 0.9  # of a device: fragmentation wastes some
GPU_RUNTIME = 1.0e9  # bytes: CUDA's context and libraries
CPU_RUNTIME = 0.45e9  # bytes of a process with torch and lhotse
WEIGHT = 4.0  # bytes
GPU_TRANSIENT, CPU_TRANSIENT = 0.2, 0.8  # of the activations: gradients of activations, and fragmentation


@dataclass(frozen=True)
class Memory:
    """Bytes that a device needs, by what needs them."""

    weights: float  # with gradients and what the optimizer keeps
    strategy: float  # copies that the parallel strategy and the running mean of the weights keep
    activations: float  # that the forward pass saves, as in `asrtool info`, for the batch that needs most
    outputs: float  # log-probs in float32 with their gradient, on which the objective works
    transient: float  # what the backward pass needs besides, and fragmentation
    runtime: float  # of libraries

    @property
    def total(self) -> float:
        """The sum."""
        return self.weights + self.strategy + self.of_batch + self.runtime

    @property
    def of_batch(self) -> float:
        """The part that grows with data.batch_seconds."""
        return self.activations + self.outputs + self.transient


def memory(config: Config, info: ModelInfo, device: Device, devices: int) -> Memory:
    """Bytes that training needs on each device; `info` is of the batch that needs most."""
    parameters = sum(info.parameters.values())
    strategy = 0.0
    weights = info.weights
    if config.training.ema_decay is not None:
        strategy += WEIGHT * parameters
    if devices > 1 and config.parallel.strategy == "bmuf":  # two copies, the block momentum, and the optimizer's values
        strategy += WEIGHT * (3 * parameters + info.optimizer_values)
    if devices > 1 and config.parallel.strategy == "fsdp":  # shards, and two whole blocks that are gathered
        weights, strategy = weights / devices, strategy / devices + 2 * WEIGHT * parameters / config.model.layers
    runtime = GPU_RUNTIME if device.is_gpu else CPU_RUNTIME
    outputs = _output_bytes(info, info.batch_seconds)
    transient = (info.activations + outputs) * (GPU_TRANSIENT if device.is_gpu else CPU_TRANSIENT)
    return Memory(weights, strategy, info.activations, outputs, transient, runtime)


def _output_bytes(info: ModelInfo, seconds: float) -> float:
    """Bytes of the log-probs' gradient, and of the copies in float32 that the objective works on."""
    return 2 * 4.0 * info.outputs * seconds * 100 / info.factor


def largest_batch(config: Config, info: ModelInfo, device: Device, devices: int) -> float:
    """The most audio of such a batch whose activations fit, in seconds; 0 if not even the weights do."""
    needs = memory(config, info, device, devices)
    free = USABLE_MEMORY * device.memory - (needs.total - needs.of_batch)
    return max(0.0, free / (needs.of_batch / info.batch_seconds))
