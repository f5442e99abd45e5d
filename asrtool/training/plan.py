"""`asrtool plan`: steps, memory, time, communication and cost of a training, before it is started.

The size and the operations of the model come from asrtool/models/info.py, as in `asrtool info`. Everything that is
assumed is in `PlanOptions`, in the table of devices, and in the constants below; a plan lists it.
"""

import math
from dataclasses import dataclass

from asrtool.config import Config
from asrtool.errors import UserError
from asrtool.models.info import UTTERANCE_SECONDS, ModelInfo, model_info
from asrtool.training.devices import Device
from asrtool.training.plan_data import TrainingData

LOWEST_FILL = 0.5  # of a batch that has room for a single utterance
PADDING = 0.08  # of a batch (docs/benchmarks.md); sets of many hours have less
BACKWARD = 2.0  # operations of the backward pass, relative to the forward pass
VALIDATION = 0.03  # of the time of the steps: validations and checkpoints
OVERLAP = 0.6  # of a step's computation behind which ddp and fsdp hide what they send (tools/scaling.py)
LOADED_PER_WORKER = {"on_the_fly": 1000.0, "stored": 6000.0}  # s of audio a second and core (docs/benchmarks.md)
USABLE_MEMORY = 0.9  # of a device: fragmentation wastes some
GPU_RUNTIME = 1.0e9  # bytes: CUDA's context and libraries
CPU_RUNTIME = 0.45e9  # bytes of a process with torch and lhotse
UNCERTAINTY = 2.0  # a device may be as many times faster or slower than its assumed utilisation
WEIGHT = 4.0  # bytes
GPU_TRANSIENT, CPU_TRANSIENT = 0.2, 0.8  # of the activations: gradients of activations, and fragmentation


@dataclass(frozen=True)
class PlanOptions:
    """What is asked, besides the configuration."""

    hours: float  # of audio in the training set
    devices: int = 1
    steps: int | None = None  # None: training.max_steps, or `epochs`
    epochs: float | None = None
    network: float = 100e9 / 8  # bytes/s between machines, one way
    utilisation: float | None = None  # of the peak; None: the device's
    price: float | None = None  # USD for an hour of a device; None: the listed one
    data: TrainingData | None = None  # what the manifests say; None: they are not there


@dataclass(frozen=True)
class Memory:
    """Bytes that a device needs, by what needs them."""

    weights: float  # with gradients and the moments of Adam
    strategy: float  # copies that the parallel strategy and the running mean of the weights keep
    activations: float  # that the forward pass saves, as in `asrtool info`
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


@dataclass(frozen=True)
class Plan:
    """The predicted figures of a training."""

    info: ModelInfo
    device: Device
    options: PlanOptions
    precision: str  # fp32 or bf16
    utilisation: float
    steps: int
    step_audio: float  # s of audio of a step of all devices, without padding
    step_flops: float  # of a step of one device
    compute_seconds: float  # of a step
    loading_seconds: float  # of a step; the loader works while the device computes
    sent_bytes: float  # by a device in the mean step
    sending_seconds: float  # of the mean step, that computation does not hide
    memory: Memory
    largest_batch: float  # data.batch_seconds that fits
    step_range: tuple[float, float]  # seconds of a mean step at twice and at half the utilisation

    @property
    def step_seconds(self) -> float:
        """The time of a mean step: of the slower one of device and loader."""
        return max(self.compute_seconds + self.sending_seconds, self.loading_seconds)

    @property
    def hours(self) -> float:
        """The time of the training."""
        return self._hours(self.step_seconds)

    @property
    def hours_range(self) -> tuple[float, float]:
        """The time at twice and at half the utilisation."""
        low, high = self.step_range
        return self._hours(low), self._hours(high)

    def _hours(self, step_seconds: float) -> float:
        return self.steps * step_seconds * (1 + VALIDATION) / 3600

    @property
    def audio_hours(self) -> float:
        """The audio that the training reads, all epochs together."""
        return self.steps * self.step_audio / 3600

    @property
    def epochs(self) -> float:
        """The number of passes over the training set."""
        return self.audio_hours / self.options.hours

    @property
    def device_hours(self) -> float:
        """The time multiplied by the number of devices."""
        return self.hours * self.options.devices

    @property
    def kilowatt_hours(self) -> float:
        """The energy of the devices at their rated power."""
        return self.device_hours * self.device.watts / 1000

    @property
    def price(self) -> float | None:
        """USD for an hour of a device, or None if nobody named or listed one."""
        rate = self.device.rate
        return self.options.price if self.options.price is not None else rate.price if rate else None

    @property
    def fits(self) -> bool:
        """Returns True if the memory of a device is enough."""
        return self.memory.total <= USABLE_MEMORY * self.device.memory


def planned_precision(config: Config, device: Device) -> str:
    """Returns "bf16" or "fp32", in which the device computes with this training.precision."""
    return "bf16" if config.training.precision != "fp32" and device.bf16 else "fp32"


def utterance_seconds(options: PlanOptions) -> float:
    """The mean length of an utterance, as the manifests have it, or as it is assumed."""
    return options.data.mean if options.data else UTTERANCE_SECONDS


def fill(batch_seconds: float, seconds: float = UTTERANCE_SECONDS) -> float:
    """The share of data.batch_seconds that a batch of utterances of `seconds` has, padding included.

    On average, half an utterance is missing.
    """
    return max(LOWEST_FILL, 1 - seconds / 2 / batch_seconds)


def make_plan(config: Config, num_units: int, device: Device, options: PlanOptions) -> Plan:
    """Predicts a training of a model with `num_units` outputs.

    Raises UserError for several devices with parallel.strategy none.
    """
    if options.devices > 1 and config.parallel.strategy == "none":
        raise UserError("parallel.strategy none trains on one device; give --set parallel.strategy=ddp, or --devices 1")
    precision = planned_precision(config, device)
    computed = config.model_copy(update={"training": config.training.model_copy(update={"precision": precision})})
    info = model_info(computed, num_units, utterance_seconds(options))
    utilisation = options.utilisation or (device.bf16_utilisation if precision == "bf16" else device.fp32_utilisation)
    peak = device.bf16 if precision == "bf16" and device.bf16 else device.fp32
    padded = (
        fill(config.data.batch_seconds, utterance_seconds(options))
        * config.data.batch_seconds
        * config.training.accumulate_grad_batches
    )
    step_audio = padded * (1 - PADDING) * options.devices
    flops = training_flops(config, info) * padded
    compute = flops / (peak * utilisation)
    sent, sending = communication(config, info, device, options, compute)
    loading = _loading_seconds(config, padded)

    def step_at(factor: float) -> float:
        of_device = compute / factor
        return max(of_device + communication(config, info, device, options, of_device)[1], loading)

    return Plan(
        info=info,
        device=device,
        options=options,
        precision=precision,
        utilisation=utilisation,
        steps=_steps(config, options, step_audio),
        step_audio=step_audio,
        step_flops=flops,
        compute_seconds=compute,
        loading_seconds=loading,
        sent_bytes=sent,
        sending_seconds=sending,
        memory=memory(config, info, device, options.devices),
        largest_batch=largest_batch(config, info, device, options.devices),
        step_range=(step_at(UNCERTAINTY), step_at(1 / UNCERTAINTY)),
    )


def _steps(config: Config, options: PlanOptions, step_audio: float) -> int:
    """Returns the number of steps that are asked for, by steps, by epochs, or by the configuration."""
    if options.epochs is not None:
        return math.ceil(options.epochs * options.hours * 3600 / step_audio)
    return options.steps or config.training.max_steps


def training_flops(config: Config, info: ModelInfo) -> float:
    """Operations of a training step for a second of audio."""
    return info.flops * forward_passes(config)


def forward_passes(config: Config) -> float:
    """Operations of a training step relative to the forward pass, which activation checkpointing repeats."""
    return 1 + BACKWARD + (1.0 if config.model.activation_checkpointing else 0.0)


def _loading_seconds(config: Config, padded: float) -> float:
    """Time in which the loader processes of a device deliver the audio of a step."""
    return padded / (LOADED_PER_WORKER[config.features.source] * max(config.data.workers, 1))


def memory(config: Config, info: ModelInfo, device: Device, devices: int) -> Memory:
    """Bytes that training needs on each device."""
    parameters = sum(info.parameters.values())
    strategy = 0.0
    weights = info.weights
    if config.training.ema_decay is not None:
        strategy += WEIGHT * parameters
    if devices > 1 and config.parallel.strategy == "bmuf":  # two copies and the block momentum; two moments
        strategy += 5 * WEIGHT * parameters
    if devices > 1 and config.parallel.strategy == "fsdp":  # shards, and two whole blocks that are gathered
        weights, strategy = weights / devices, strategy / devices + 2 * WEIGHT * parameters / config.model.layers
    runtime = GPU_RUNTIME if device.is_gpu else CPU_RUNTIME
    outputs = _output_bytes(info, info.batch_seconds)
    transient = (info.activations + outputs) * (GPU_TRANSIENT if device.is_gpu else CPU_TRANSIENT)
    return Memory(weights, strategy, info.activations, outputs, transient, runtime)


def _output_bytes(info: ModelInfo, seconds: float) -> float:
    """Bytes of the log-probs' gradient, and of the copies in float32 that the objective works on."""
    return 2 * 4.0 * info.units * seconds * 100 / info.factor


def largest_batch(config: Config, info: ModelInfo, device: Device, devices: int) -> float:
    """The largest data.batch_seconds whose activations fit, in seconds; 0 if not even the weights do."""
    needs = memory(config, info, device, devices)
    free = USABLE_MEMORY * device.memory - (needs.total - needs.of_batch)
    return max(0.0, free / (needs.of_batch / info.batch_seconds))


def communication(
    config: Config, info: ModelInfo, device: Device, options: PlanOptions, compute: float
) -> tuple[float, float]:
    """Returns the bytes that a device sends in the mean step, and the seconds of it that computation does not hide.

    Sums go around a ring of all devices, as slow as its slowest link, which is the network if there are several
    machines. The workers of bmuf are machines, with ddp inside.
    """
    devices, parallel = options.devices, config.parallel
    size = WEIGHT * sum(info.parameters.values())
    if devices == 1:
        return 0.0, 0.0
    machines = math.ceil(devices / device.per_machine)
    link = device.link if machines == 1 else min(device.link, options.network)
    if parallel.strategy == "bmuf":
        return _bmuf_communication(config, size, device, options, compute)
    gradients = size / 2 if parallel.strategy == "ddp" and parallel.gradient_compression != "none" else size
    sent = ring_bytes(gradients, devices)
    if parallel.strategy == "fsdp":  # weights are gathered for the forward and the backward pass, gradients scattered
        sent = 1.5 * ring_bytes(size, devices)
    return sent, max(0.0, sent / link - OVERLAP * compute)


def _bmuf_communication(
    config: Config, size: float, device: Device, options: PlanOptions, compute: float
) -> tuple[float, float]:
    """As `communication`, of bmuf: gradients inside a worker, weights and two moments between workers once a block."""
    per_worker = min(config.parallel.ranks_per_worker or device.per_machine, options.devices)
    workers = math.ceil(options.devices / per_worker)
    link = min(device.link, options.network) if options.devices > device.per_machine else device.link
    inside = ring_bytes(size, per_worker)
    between = 3 * ring_bytes(size, workers) / config.parallel.block_steps
    return inside + between, max(0.0, inside / device.link - OVERLAP * compute) + between / link


def ring_bytes(size: float, workers: int) -> float:
    """Bytes that each worker of a ring sends to sum up `size` bytes."""
    return 2 * (workers - 1) / workers * size
