"""A plan as lines for people, and as values for programs."""

import math
from dataclasses import asdict

from asrtool.config import Config
from asrtool.models.info import UTTERANCE_SECONDS
from asrtool.planning.batch_fill import PADDING, fill
from asrtool.planning.communication import OVERLAP
from asrtool.planning.memory import USABLE_MEMORY
from asrtool.planning.plan import (
    LOADED_PER_WORKER,
    VALIDATION,
    Plan,
    forward_passes,
    utterance_seconds,
)


def plan_lines(plan: Plan, config: Config) -> dict[str, str]:
    """Returns the figures by name; the lines on the model are the same as of `asrtool info`."""
    model = plan.info.lines()
    return {
        "model": model["parameters"],
        "operations": model["operations"],
        "training memory": model["training memory"],
        "utterances": _utterances(plan),
        "devices": f"{plan.options.devices} x {plan.device.description}, {plan.precision}",
        "steps": _steps(plan, config),
        "memory": _memory(plan),
        "largest batch": _largest_batch(plan),
        "step": _step(plan, config),
        "communication": _communication(plan, config),
        "time": _time(plan),
        "energy": _energy(plan),
        "cost": _cost(plan),
    }


def _utterances(plan: Plan) -> str:
    data = plan.options.data
    if data is None:
        return f"{UTTERANCE_SECONDS:g} s (assumed: the training set of the configuration is not there)"
    return (
        f"{data.mean:.1f} s on average, the longest {data.longest:.1f} s: {data.utterances:,} with {data.hours:,.2f} h"
    )


def _steps(plan: Plan, config: Config) -> str:
    batch = f"{config.data.batch_seconds:g} s x {config.training.accumulate_grad_batches} x {plan.options.devices}"
    audio = f"{plan.audio_hours:,.1f} h of audio, {plan.epochs:,.1f} epochs of {plan.options.hours:,.6g} h"
    return f"{plan.steps:,} of at most {batch} of audio: {audio}"


def _memory(plan: Plan) -> str:
    parts = asdict(plan.memory)
    text = ", ".join(f"{name} {value / 1e9:.2f}" for name, value in parts.items() if value)
    verdict = "" if plan.fits else f": MORE THAN {USABLE_MEMORY:.0%} of {plan.device.memory / 1e9:.0f} GB"
    batch = f"for a batch of utterances of {plan.memory_utterance:.3g} s"
    return f"{plan.memory.total / 1e9:.2f} GB a device {batch} ({text}){verdict}"


def _largest_batch(plan: Plan) -> str:
    seconds = math.floor(plan.largest_batch)
    if not seconds:
        return f"none fits: {plan.device.memory / 1e9:.0f} GB are too little for the model itself"
    return f"data.batch_seconds={seconds} fits into {plan.device.memory / 1e9:.0f} GB"


def _step(plan: Plan, config: Config) -> str:
    again = ", as model.activation_checkpointing repeats it" if config.model.activation_checkpointing else ""
    work = f"{forward_passes(config):g}x the operations of the forward pass{again}"
    parts = [f"computation {_seconds(plan.compute_seconds)}: {work}"]
    if plan.sending_seconds:
        parts.append(f"communication that is not hidden {_seconds(plan.sending_seconds)}")
    text = f"{_seconds(plan.step_seconds)} ({', '.join(parts)}), {plan.step_audio / plan.step_seconds:,.0f}x real time"
    if plan.loading_seconds > plan.compute_seconds + plan.sending_seconds:
        text += f"; WAITS FOR THE LOADER, which needs {_seconds(plan.loading_seconds)}: raise data.workers"
    return text


def _seconds(value: float) -> str:
    return f"{value:,.2f} s" if value >= 1 else f"{1000 * value:,.1f} ms"


def _communication(plan: Plan, config: Config) -> str:
    if plan.options.devices == 1:
        return "none, one device"
    total = plan.sent_bytes * plan.steps / 1e12
    mean = plan.sent_bytes / 1e6
    return f"{mean:,.1f} MB a step and device with {config.parallel.strategy}, {total:,.2f} TB in all"


def _time(plan: Plan) -> str:
    text = f"{_hours(plan.hours)}; {plan.device_hours:,.2f} device hours"
    if plan.device.is_measured or plan.options.utilisation:
        return text
    low, high = map(_hours, plan.hours_range)
    return f"{text}. From {low} to {high} at twice and at half the utilisation, which is not measured"


def _hours(hours: float) -> str:
    if hours < 1 / 60:
        return f"{3600 * hours:,.0f} s"
    if hours < 1:
        return f"{60 * hours:,.0f} min"
    return f"{hours:,.1f} h" if hours < 48 else f"{hours / 24:,.1f} days"


def _energy(plan: Plan) -> str:
    if not plan.device.watts:
        return "not known for this machine"
    return f"{plan.kilowatt_hours:,.2f} kWh of the devices at {plan.device.watts:g} W; machines and cooling come on top"


def _cost(plan: Plan) -> str:
    if plan.price is None:
        return "no price; give --price, in USD for an hour of a device"
    rate = plan.device.rate
    source = "--price" if plan.options.price is not None or rate is None else f"{rate.source}, read on {rate.date}"
    return f"{plan.device_hours * plan.price:,.2f} USD at {plan.price:g} USD for an hour of a device ({source})"


def assumptions(plan: Plan, config: Config) -> list[str]:
    """Returns what the plan assumes, one thing a line."""
    device = plan.device
    peak = device.bf16 if plan.precision == "bf16" and device.bf16 else device.fp32
    origin = "as given" if plan.options.utilisation else "measured" if device.is_measured else "not measured"
    mean = utterance_seconds(plan.options)
    filled = fill(config.data.batch_seconds, mean)
    lines = [
        f"a device computes at {plan.utilisation:.0%} ({origin}) of {peak / 1e12:,.3g} TFLOP/s ({device.source})",
        f"batches of utterances of {mean:.3g} s are filled to {filled:.0%}, and {PADDING:.0%} of them is padding",
        f"a loader process delivers {LOADED_PER_WORKER[config.features.source]:,.0f} s of audio a second",
        f"validations and checkpoints take {VALIDATION:.0%} of the time",
    ]
    if plan.options.devices > 1:
        lines.append(f"links of {8 * device.link / 1e9:,.0f} Gbit/s within machines of {device.per_machine} devices")
        if plan.options.devices > device.per_machine:
            lines[-1] += f", {8 * plan.options.network / 1e9:,.0f} Gbit/s between machines"
        if device.is_gpu:
            lines.append(f"ddp and fsdp hide what they send behind {OVERLAP:.0%} of the computation")
    if config.objective.kind == "mmi":
        lines.append("the objective MMI costs nothing: on a CPU a step takes up to twice as long")
    return lines


def plan_values(plan: Plan, config: Config) -> dict[str, object]:
    """Returns the figures in SI units, for JSON."""
    return {
        "parameters": sum(plan.info.parameters.values()),
        "forward_flops_per_audio_second": plan.info.flops,
        "device": plan.device.description,
        "devices": plan.options.devices,
        "precision": plan.precision,
        "utterance_seconds": utterance_seconds(plan.options),
        "utilisation": plan.utilisation,
        "steps": plan.steps,
        "epochs": plan.epochs,
        "audio_hours": plan.audio_hours,
        "memory_bytes": asdict(plan.memory) | {"total": plan.memory.total, "device": plan.device.memory},
        "fits": plan.fits,
        "largest_batch_seconds": math.floor(plan.largest_batch),
        "step_seconds": plan.step_seconds,
        "sent_bytes_per_step": plan.sent_bytes,
        "hours": plan.hours,
        "hours_range": None if plan.device.is_measured or plan.options.utilisation else plan.hours_range,
        "device_hours": plan.device_hours,
        "kilowatt_hours": plan.kilowatt_hours if plan.device.watts else None,
        "usd": None if plan.price is None else plan.device_hours * plan.price,
        "assumptions": assumptions(plan, config),
    }
