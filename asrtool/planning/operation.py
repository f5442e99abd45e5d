"""What a planned training reads and writes, and what its interruptions cost.

An interrupted training loses the steps since its last checkpoint, half an interval on average, the time until the
failure is noticed, and the start of the next run. If failures come at random, once in M hours of the whole machine, and
each costs L hours, a training of T hours takes T / (1 - L / M). The interval with the least loss is about
sqrt(2 x M x time of a checkpoint) (Young 1974, "A first order approximation to the optimum checkpoint interval").

Coefficients that are marked with a date were measured on two cores of an AMD EPYC; docs/benchmarks.md has the commands.
"""

import math
from dataclasses import dataclass

from asrtool.config import Config
from asrtool.data.inspection import MAX_CUTS
from asrtool.errors import UserError
from asrtool.planning.memory import WEIGHT
from asrtool.planning.plan import LOADED_PER_WORKER, Plan, utterance_seconds

# Bytes of a second of audio in 16 kHz FLAC: train-clean-100 of LibriSpeech, 6.3 GB for 100.6 h (openslr.org/12)
FLAC_BYTES = 17_400.0
FLAC_RATE = 16_000  # Hz
STORED_VALUE_BYTES = 1.16  # bytes of a stored feature value, compressed by lilcom 1.8 (2026-11-22)
FRAMES_PER_SECOND = 100
MANIFEST_LINE_BYTES = 115.0  # bytes of a cut in a compressed manifest: 2.3 GB for 20 million (2026-11-23)
CUTS_PER_FILE = 10_000  # of a manifest in a folder of files, as tools/simulate_manifest.py writes it
# A checkpoint takes this, and its bytes at this speed: 66 MB in 0.16 s, 458 MB in 0.63 s, synced (2026-11-22)
CHECKPOINT_START_SECONDS = 0.08
DISK_BYTES_PER_SECOND = 0.83e9
SCAN_SECONDS_PER_CUT = 60e-6  # of the scan before training (2026-11-23)
START_SECONDS = 12.0  # of the processes until they scan, and of a first step: 30 s with 300,000 cuts (2026-11-23)
FIRST_BATCH_SECONDS = 1.0  # of the sampler at 90 % of an epoch of 20 million cuts (2026-11-23)
RESTART_SECONDS = 8.0  # until torchrun has started lost processes again (2026-11-22)
# Device hours between unexpected interruptions: 419 in 54 days of 16,384 GPUs (Grattafiori et al. 2024, "The Llama 3
# herd of models", section 3.3.4)
MTBF_HOURS = 50_700.0


@dataclass(frozen=True)
class OperationOptions:
    """What is asked about failures and storage."""

    mtbf_hours: float = MTBF_HOURS  # device hours between failures
    disk: float = DISK_BYTES_PER_SECOND  # bytes/s at which a checkpoint is written and read


@dataclass(frozen=True)
class Operation:
    """Reading, checkpoints and failures of a planned training. Sizes are in bytes, times in seconds unless in hours."""

    audio_rate: float  # s of audio that all devices read in a second
    read_rate: float  # bytes/s that all loaders read
    loaders: int  # loader processes that each device needs to be fed
    utterances: int  # files of audio, if each utterance has its own
    opened_rate: float  # utterances that are read in a second
    data_bytes: float  # of the audio or of the stored features
    manifest_files: int
    manifest_bytes: float
    checkpoint_bytes: float
    checkpoint_seconds: float
    checkpoint_interval: float  # of training between two checkpoints
    checkpoints: int  # that are kept
    resume_seconds: float  # from the start of the processes to the first step
    failure_seconds: float  # that a failure costs: lost steps, notice, restart and resume
    failures: float  # expected
    hours: float  # of the training with its failures
    best_interval: float  # between checkpoints, by Young's formula

    @property
    def lost_hours(self) -> float:
        """Hours that failures add to the training."""
        return self.failures * self.failure_seconds / 3600

    @property
    def checkpoint_share(self) -> float:
        """The share of the time in which checkpoints are written."""
        return self.checkpoint_seconds / (self.checkpoint_interval + self.checkpoint_seconds)

    @property
    def disk_bytes(self) -> float:
        """Bytes of the checkpoints that are kept."""
        return self.checkpoints * self.checkpoint_bytes


def plan_operation(plan: Plan, config: Config, options: OperationOptions) -> Operation:
    """Returns what a planned training reads and writes, and what its failures cost.

    Raises UserError where failures come so fast that the training never ends.
    """
    mean = utterance_seconds(plan.options)
    audio_rate = plan.step_audio / plan.step_seconds
    utterances = round(3600 * plan.options.hours / mean)
    size = checkpoint_bytes(plan, config)
    write_seconds = CHECKPOINT_START_SECONDS + size / options.disk
    interval = checkpoint_interval(plan, config)
    resume = START_SECONDS + scan_seconds(config, utterances) + size / options.disk + FIRST_BATCH_SECONDS
    notice = config.parallel.timeout + RESTART_SECONDS if plan.options.devices > 1 else 0.0
    failure = min(interval, 3600 * plan.hours) / 2 + notice + resume
    between = 3600 * options.mtbf_hours / plan.options.devices
    if failure >= between:
        raise UserError(
            f"a failure comes every {between:,.0f} s and costs {failure:,.0f} s, so that the training never ends; "
            "lower training.save_minutes or parallel.timeout, or correct --mtbf"
        )
    hours = plan.hours / (1 - failure / between)
    return Operation(
        audio_rate=audio_rate,
        read_rate=audio_rate * bytes_per_second(config),
        loaders=math.ceil(audio_rate / plan.options.devices / LOADED_PER_WORKER[config.features.source]),
        utterances=utterances,
        opened_rate=audio_rate / mean,
        data_bytes=3600 * plan.options.hours * bytes_per_second(config),
        manifest_files=math.ceil(utterances / CUTS_PER_FILE),
        manifest_bytes=utterances * MANIFEST_LINE_BYTES,
        checkpoint_bytes=size,
        checkpoint_seconds=write_seconds,
        checkpoint_interval=interval,
        checkpoints=config.training.keep_best + config.training.keep_last,
        resume_seconds=resume,
        failure_seconds=failure,
        failures=3600 * hours / between,
        hours=hours,
        best_interval=math.sqrt(2 * between * write_seconds),
    )


def bytes_per_second(config: Config) -> float:
    """Returns the bytes that a loader reads for a second of audio: FLAC, or stored features."""
    features = config.features
    if features.source == "stored":
        return STORED_VALUE_BYTES * features.num_bins * FRAMES_PER_SECOND
    return FLAC_BYTES * features.sampling_rate / FLAC_RATE


def checkpoint_bytes(plan: Plan, config: Config) -> float:
    """Returns the size of a checkpoint: weights, the optimizer's values, their running mean, and the state of bmuf."""
    copies = 1
    if config.training.ema_decay is not None:
        copies += 1
    if config.parallel.strategy == "bmuf" and plan.options.devices > 1:  # the global weights and the block momentum
        copies += 2
    return WEIGHT * (copies * sum(plan.info.parameters.values()) + plan.info.optimizer_values)


def checkpoint_interval(plan: Plan, config: Config) -> float:
    """Returns the seconds of training between two checkpoints: by steps, by minutes and with each validation."""
    training = config.training
    by_steps = min(training.validate_every, training.save_every or training.validate_every) * plan.step_seconds
    return min(by_steps, 60 * training.save_minutes) if training.save_minutes else by_steps


def scan_seconds(config: Config, utterances: int) -> float:
    """Returns the time of the scan of the training manifests, of which only the first cuts are scanned."""
    return SCAN_SECONDS_PER_CUT * min(utterances, MAX_CUTS * len(config.data.corpora))
