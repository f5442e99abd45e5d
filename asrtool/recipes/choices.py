"""The settings of a new recipe: each is chosen from the corpus and the machine, and has the reason beside it.

The rules of all settings except the size of the model (asrtool/recipes/presets.py) and the units
(asrtool/recipes/unit_choices.py) are in this file, so that a choice that turns out wrong is changed in one place.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Generic, TypeVar

from asrtool.planning.batch_fill import PADDING, fill
from asrtool.recipes.facts import LONGEST, USUAL_LONGEST, CorpusFacts
from asrtool.recipes.machine import Machine
from asrtool.recipes.presets import Preset, choose_preset

T = TypeVar("T")

NARROW_BAND, WIDE_BAND = 8000, 16000  # Hz: the rates that models are trained on
LOWEST_WIDE_RATE = 12000  # Hz: audio from this rate on is nearer to wide band
NARROW_BINS, WIDE_BINS = 40, 80  # mel bins: as many as the band has room for
STORED_HOURS_PER_CORE = 3.0  # three speeds of an hour take 20 s of a core: a minute of extraction before the training
HOURS_ON_CPU, HOURS_ON_GPU = 1.5, 24.0  # of training, unless --training-hours says otherwise
MIN_STEPS = 300  # CTC begins to tell units apart after a few hundred steps
SMALL_TEST_SHARE, LARGE_TEST_HOURS = 0.1, 2.0  # of the corpus for dev, and again for test
MAX_WORKERS = 8
VALIDATIONS = 20  # in a training


@dataclass(frozen=True)
class Choice(Generic[T]):
    """A value and the reason for it, a phrase that ends without a full stop."""

    value: T
    why: str


@dataclass(frozen=True)
class AudioChoices:
    """How recordings become features."""

    sampling_rate: Choice[int]  # Hz
    resample: bool
    num_bins: Choice[int]
    channel: Choice[int] | None  # None where every recording has one channel
    source: Choice[str]  # "stored" or "on_the_fly"
    speeds: Choice[tuple[float, ...]]


@dataclass(frozen=True)
class TrainingChoices:
    """Model, batches and length of the training."""

    preset: Choice[Preset]
    batch_seconds: Choice[int]
    max_seconds: Choice[float]
    num_buckets: Choice[int]
    workers: Choice[int]
    precision: Choice[str]
    max_steps: Choice[int]
    warmup_steps: int
    validate_every: int
    hours: float  # that the training takes, estimated


@dataclass(frozen=True)
class SetChoices:
    """The sizes of the dev and test sets that are split off, as shares ("0.1") or hours ("2h"); "0" for none."""

    dev: Choice[str]
    test: Choice[str]
    train_hours: float  # that are left, about


def choose_audio(facts: CorpusFacts, machine: Machine, train_hours: float) -> AudioChoices:
    """Returns rate, channel and features for a corpus."""
    rate = _choose_rate(facts.rates)
    several = [count for count in facts.channels if count > 1]
    wide = rate.value >= WIDE_BAND
    speeds = _choose_speeds(train_hours)
    return AudioChoices(
        sampling_rate=rate,
        resample=set(facts.rates) != {rate.value},
        num_bins=Choice(WIDE_BINS if wide else NARROW_BINS, f"mel bins for {rate.value / 2000:g} kHz of bandwidth"),
        channel=Choice(facts.audio.channel, facts.audio.channels or "the first one") if several else None,
        source=_choose_source(train_hours, len(speeds.value), machine),
        speeds=speeds,
    )


def _choose_rate(rates: Counter[int]) -> Choice[int]:
    """Returns 8 or 16 kHz: what most recordings are nearer to."""
    total = rates.total()
    narrow = sum(count for rate, count in rates.items() if rate < LOWEST_WIDE_RATE)
    rate = NARROW_BAND if narrow > total / 2 else WIDE_BAND
    if set(rates) == {rate}:
        return Choice(rate, "the rate of all recordings")
    listed = ", ".join(f"{count:,} at {other:,} Hz" for other, count in rates.most_common(4))
    return Choice(rate, f"recordings are resampled while they are read: {listed}")


def _choose_source(hours: float, num_speeds: int, machine: Machine) -> Choice[str]:
    limit = STORED_HOURS_PER_CORE * machine.cores
    if hours <= limit:
        audio = f"{duration(3600 * hours)} at {num_speeds} speed{'s' * (num_speeds > 1)}"
        return Choice("stored", f"{audio} are extracted once, in a minute or two")
    return Choice("on_the_fly", f"extracting {hours:.0f} h first would take longer than beginning at once")


def _choose_speeds(hours: float) -> Choice[tuple[float, ...]]:
    if hours < 0.5:
        return Choice((0.8, 0.9, 1.0, 1.1, 1.2), f"{hours * 60:.0f} minutes are few: more speeds make them more varied")
    if hours < 1000:
        return Choice((0.9, 1.0, 1.1), "three speeds, the usual perturbation")
    return Choice((1.0,), f"{hours:.0f} hours are varied enough")


def choose_sets(facts: CorpusFacts, has_dev: bool, has_test: bool) -> SetChoices:
    """Returns how much is split off for dev and test of a corpus that may have its own sets of these."""
    hours = facts.hours
    large = hours * SMALL_TEST_SHARE > LARGE_TEST_HOURS
    size = f"{LARGE_TEST_HOURS:g}h" if large else f"{SMALL_TEST_SHARE:g}"
    size_hours = LARGE_TEST_HOURS if large else hours * SMALL_TEST_SHARE
    why = "enough for an interval of about one percent" if large else f"a tenth, {duration(size_hours * 3600)}"
    given = Choice("0", "the corpus brings its own")
    split = 2 - has_dev - has_test
    return SetChoices(
        dev=given if has_dev else Choice(size, why),
        test=given if has_test else Choice(size, why),
        train_hours=hours - split * size_hours,
    )


def choose_training(
    facts: CorpusFacts, machine: Machine, train_hours: float, units: str, speed: float, limit_hours: float | None
) -> TrainingChoices:
    """Returns model, batches and steps for `train_hours` of audio and output `units` such as "word".

    `speed` is how much audio the model trains on in a second of this machine, in seconds, padding included;
    `limit_hours` the longest training, by default HOURS_ON_CPU or HOURS_ON_GPU.
    """
    preset = choose_preset(train_hours, machine.has_gpu, units)
    batch = preset.batch_seconds
    ranks = max(1, len(machine.gpus))
    limit = limit_hours or (HOURS_ON_GPU if machine.has_gpu else HOURS_ON_CPU)
    step_seconds = fill(batch, facts.seconds / facts.utterances) * (1 - PADDING) * batch * ranks  # of audio
    all_speed = speed * ranks * (1 - PADDING)
    steps, why = _choose_steps(train_hours, preset, all_speed, step_seconds, limit)
    longest = facts.lengths[2]
    device = "a GPU" if machine.has_gpu else "a CPU"
    batch_why = "small batches: more updates in the same time" if batch < 100 else "fills the device"
    return TrainingChoices(
        preset=Choice(preset, f"{preset.size} for {duration(3600 * train_hours)} on {device}"),
        batch_seconds=Choice(batch, batch_why),
        max_seconds=_choose_longest(longest),
        num_buckets=Choice(max(1, min(10, facts.utterances // 40)), f"for {facts.utterances:,} utterances"),
        workers=_choose_workers(machine, facts),
        precision=Choice("auto", "bf16" if machine.has_bf16 or machine.has_gpu else "fp32: the processor has no bf16"),
        max_steps=Choice(steps, why),
        warmup_steps=min(5000 if machine.has_gpu and train_hours > 20 else 500, steps // 10),
        validate_every=max(20, _rounded(steps / VALIDATIONS)),
        hours=steps * step_seconds / all_speed / 3600,
    )


def _choose_steps(hours: float, preset: Preset, speed: float, step_seconds: float, limit: float) -> tuple[int, str]:
    """Returns the number of steps and why; `speed` in seconds of audio a second, `step_seconds` of audio."""
    wanted = preset.epochs * hours * 3600 / step_seconds
    possible = limit * 3600 * speed / step_seconds
    steps = max(MIN_STEPS, _rounded(min(wanted, possible)))
    passes = steps * step_seconds / (hours * 3600)
    audio = duration(3600 * hours)
    time = f"about {duration(steps * step_seconds / speed)} at {speed:.0f}x real time"
    if wanted <= possible:
        return steps, f"{passes:.0f} passes over {audio}; {time}"
    return steps, f"{passes:.1f} passes over {audio}, {time}; {preset.epochs} passes would be better (--steps)"


def _choose_longest(longest: float) -> Choice[float]:
    if longest <= USUAL_LONGEST:
        return Choice(USUAL_LONGEST, f"the longest utterance has {longest:.1f} s")
    if longest <= LONGEST:
        return Choice(LONGEST, f"the longest utterance has {longest:.1f} s")
    return Choice(USUAL_LONGEST, f"longer utterances (up to {longest:.0f} s) are left out: split them at pauses")


def _choose_workers(machine: Machine, facts: CorpusFacts) -> Choice[int]:
    if not machine.has_gpu:
        return Choice(1, "one loader process; the other cores train")
    per_gpu = machine.cores // max(1, len(machine.gpus)) - 1
    return Choice(max(1, min(MAX_WORKERS, per_gpu)), f"{machine.cores} cores for {len(machine.gpus)} GPUs")


def _rounded(number: float) -> int:
    """Returns a number with two significant digits."""
    digits = max(0, len(str(int(number))) - 2)
    return int(round(number / 10**digits) * 10**digits)


def duration(seconds: float) -> str:
    """Returns "3 h 20 min", "25 min" or "40 s"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
