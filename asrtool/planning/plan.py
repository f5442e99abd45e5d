"""`asrtool plan`: steps, memory, time, communication and cost of a training, before it is started.

The size and the operations of the model come from asrtool/models/info.py, as in `asrtool info`. Everything that is
assumed is in `PlanOptions`, in the table of devices, and in the constants below; a plan lists it.
"""

import math
from dataclasses import dataclass

from asrtool.config import Config
from asrtool.data.batch_cost import UtteranceCost
from asrtool.errors import UserError
from asrtool.models.cost import attention_seconds
from asrtool.models.info import UTTERANCE_SECONDS, ModelInfo, model_info
from asrtool.planning.batch_fill import PADDING, fill
from asrtool.planning.communication import averaging_devices, communication
from asrtool.planning.devices import Device
from asrtool.planning.memory import USABLE_MEMORY, Memory, largest_batch, memory
from asrtool.planning.training_data import TrainingData

BACKWARD = 2.0  # operations of the backward pass, relative to the forward pass
VALIDATION = 0.03  # of the time of the steps: validations and checkpoints
LOADED_PER_WORKER = {"on_the_fly": 1000.0, "stored": 6000.0}  # s of audio a second and core (docs/benchmarks.md)
UNCERTAINTY = 2.0  # a device may be as many times faster or slower than its assumed utilisation


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
    memory_utterance: float  # s of the utterances of the batch that needs most memory
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


def longest_seconds(config: Config, options: PlanOptions) -> float:
    """The length of the longest utterance in seconds, by the manifests or the configuration, at the slowest speed."""
    longest = options.data.longest if options.data else config.data.max_seconds
    return longest / min(config.data.augment.speeds)


def make_plan(config: Config, num_outputs: int, device: Device, options: PlanOptions) -> Plan:
    """Predicts a training of a model with `num_outputs` outputs.

    Raises UserError for several devices with parallel.strategy none.
    """
    devices = options.devices
    if devices > 1 and config.parallel.strategy == "none":
        raise UserError("parallel.strategy none trains on one device; give --set parallel.strategy=ddp, or --devices 1")
    precision = planned_precision(config, device)
    computed = config.model_copy(update={"training": config.training.model_copy(update={"precision": precision})})
    info = model_info(computed, num_outputs, utterance_seconds(options))
    utilisation = options.utilisation or (device.bf16_utilisation if precision == "bf16" else device.fp32_utilisation)
    peak = device.bf16 if precision == "bf16" and device.bf16 else device.fp32
    cost = UtteranceCost(attention_seconds(config, num_outputs))
    averaging = averaging_devices(config, device, devices)
    mean, fullest = (_step_audio(config, options, cost, waiting) for waiting in (1, averaging))
    loading = fullest / (LOADED_PER_WORKER[config.features.source] * max(config.data.workers, 1))
    compute = training_flops(config, info) * fullest / (peak * utilisation)
    if device.keeps_all_cores_busy(devices):
        compute += fullest / LOADED_PER_WORKER[config.features.source]  # the loader takes its time from the training
    sent, sending = communication(config, info, device, devices, options.network, compute)

    def step_at(factor: float) -> float:
        of_device = compute / factor
        hidden = communication(config, info, device, devices, options.network, of_device)[1]
        return max(of_device + hidden, loading)

    batches = _fullest_batches(computed, num_outputs, options, info, cost)
    batch, length = max(batches, key=lambda candidate: candidate[0].activations)
    largest = min(largest_batch(config, one, device, devices) * cost(length) / length for one, length in batches)
    step_audio = mean * (1 - PADDING) * devices
    return Plan(
        info=info,
        device=device,
        options=options,
        precision=precision,
        utilisation=utilisation,
        steps=_steps(config, options, step_audio),
        step_audio=step_audio,
        step_flops=training_flops(config, info) * fullest,
        compute_seconds=compute,
        loading_seconds=loading,
        sent_bytes=sent,
        sending_seconds=sending,
        memory=memory(config, batch, device, devices),
        memory_utterance=length,
        largest_batch=largest,
        step_range=(step_at(UNCERTAINTY), step_at(1 / UNCERTAINTY)),
    )


def _step_audio(config: Config, options: PlanOptions, cost: UtteranceCost, devices: int) -> float:
    """Seconds of audio, padding included, of the fullest of `devices` devices in the mean step.

    A batch holds utterances of a total cost of data.batch_seconds (asrtool/data/batch_cost.py).
    """
    batches = config.training.accumulate_grad_batches
    seconds = utterance_seconds(options)
    batch_seconds = config.data.batch_seconds * seconds / cost(seconds)
    return fill(batch_seconds, seconds, devices, batches) * batch_seconds * batches


def _fullest_batches(
    config: Config, num_outputs: int, options: PlanOptions, info: ModelInfo, cost: UtteranceCost
) -> list[tuple[ModelInfo, float]]:
    """Returns the facts of the batches that may need most memory, and the length of their utterances in seconds.

    One has the longest utterances, since attention grows with the square of their length. The other has short ones,
    here of half the mean: batches cost the same, so that the audio of these is more.
    """
    batch_seconds = config.data.batch_seconds
    longest, short = longest_seconds(config, options), utterance_seconds(options) / 2
    audio = cost.capacity(batch_seconds, longest) * longest
    data = config.data.model_copy(update={"batch_seconds": audio})
    of_longest = model_info(config.model_copy(update={"data": data}), num_outputs, longest)
    audio = batch_seconds * short / cost(short)
    of_short = info._replace(activations=info.activations * audio / info.batch_seconds, batch_seconds=audio)
    return [(of_longest, longest), (of_short, short)]


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
