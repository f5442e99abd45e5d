"""The log lines of a training: where it runs, its progress, the gradients of its layers, and cuts by name."""

import math
import re
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from asrtool.data.mixing import corpus_names
from asrtool.device import describe_device
from asrtool.distributed import sum_over_ranks
from asrtool.provenance import provenance
from asrtool.training.average import gathered
from asrtool.training.log import Meter, StepSummary, TrainingLog, peak_memory_gb
from asrtool.training.session import Session, corpus_value

MAX_NAMED_CUTS = 5  # in a log line


def report_start(session: Session, log: TrainingLog) -> None:
    """Logs what runs, and on what; `longest_seconds` is the longest utterance that is trained on."""
    if session.ranks.is_first:
        facts = {
            "device": describe_device(session.device),
            "ranks": session.ranks.world_size,
            "parameters": session.num_parameters,
            "longest_seconds": session.dropped.longest_seconds,
        }
        log.event("start", session.progress.step, None, **provenance(), **facts)


def report_progress(session: Session, log: TrainingLog, meter: Meter) -> None:
    """Logs the steps since the last report."""
    training = session.config.training
    progress = session.progress
    steps = meter.take()
    values = {
        "loss": steps.means["loss"],
        "gradient_norm": steps.means["gradient_norm"],
        "lr": steps.last["lr"],
        "padding": 1 - steps.sums["seconds"] / steps.sums["padded"],
        "times_real_time": session.ranks.world_size * steps.timed_sums["seconds"] / steps.seconds,
        "peak_memory_gb": peak_memory_gb(),
        "hours_left": (training.max_steps - progress.step) * steps.seconds_per_step / 3600,
        "epoch": progress.position.epoch,
        "hours": progress.seconds / 3600,
        "bad_steps": session.rank_state.guard.bad_steps,
    }
    of_warmup = f" of {session.warmup_hours:g}" if session.warmup_hours else ""
    line = (
        f"step {progress.step} epoch {values['epoch']}: loss {values['loss']:.4f}, lr {values['lr']:.2e}, "
        f"gradient {values['gradient_norm']:.2f}, {values['hours']:.2f}{of_warmup} h of audio, "
        f"{values['times_real_time']:.0f}x real time, padding {values['padding']:.1%}, "
        f"{values['peak_memory_gb']:.1f} GB, {values['hours_left']:.1f} h left"
    )
    log.event("train", progress.step, line, **values)
    if session.num_mixed:
        _report_corpora(session, log, steps)
    if training.log_layers:
        log.event("layers", progress.step, None, **layer_gradient_norms(session.model))


def losses_of_several(losses: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Returns the losses of several dev sets as a value of an event; nothing for a single one, whose loss is `loss`."""
    return {"losses": dict(losses)} if len(losses) > 1 else {}


def describe_dev_losses(losses: Mapping[str, float]) -> str:
    """Returns the losses of several dev sets for a log line; "" for a single one."""
    return f" ({', '.join(f'{name} {loss:.4f}' for name, loss in losses.items())})" if len(losses) > 1 else ""


def _report_corpora(session: Session, log: TrainingLog, steps: StepSummary) -> None:
    """Logs what the steps since the last report took of each corpus, on all ranks. Called on all ranks."""
    names = corpus_names(session.config.data.train_manifests)
    positions = session.progress.position.corpora
    seconds, units, loss = (_sums_over_ranks(session, steps, value) for value in ("seconds", "units", "loss"))
    shares, losses, passes = {}, {}, {}
    for number, name in enumerate(names):
        shares[name] = seconds[number] / max(sum(seconds), 1e-9)
        losses[name] = loss[number] / units[number] if units[number] else math.nan
        passes[name] = positions[number].epoch
    described = "; ".join(
        f"{name} {shares[name]:.1%} of the audio, epoch {passes[name]}, loss {losses[name]:.4f}" for name in names
    )
    step = session.progress.step
    log.event("corpora", step, f"step {step} corpora: {described}", share=shares, loss=losses, epoch=passes)


def _sums_over_ranks(session: Session, steps: StepSummary, value: str) -> list[float]:
    """Returns the sum of a value of each corpus over the steps of all ranks."""
    own = [steps.sums[corpus_value(value, number)] for number in range(session.num_mixed)]
    return sum_over_ranks(session.ranks, *own)


def list_cuts(names: Sequence[str]) -> str:
    """Returns the ids of the first cuts for a log line, with "..." where there are more."""
    return ", ".join(names[:MAX_NAMED_CUTS]) + (" ..." if len(names) > MAX_NAMED_CUTS else "")


def layer_gradient_norms(model: nn.Module) -> dict[str, float]:
    """Returns the norm of the last, clipped, gradient of each block, the lowest first, and of each other module."""
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    norms = [gathered(norm) for norm in torch._foreach_norm(list(gradients.values()))]
    squares: dict[str, float] = {}
    for name, norm in zip(gradients, torch.stack(norms).tolist(), strict=True):  # one read from the device
        block = re.match(r"encoder\.\w+\.(\d+)\.", name)
        layer = f"layer_{int(block[1]) + 1:03d}" if block else name.split(".")[0]
        squares[layer] = squares.get(layer, 0.0) + norm**2
    return {layer: math.sqrt(square) for layer, square in squares.items()}
