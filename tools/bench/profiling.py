"""The time of a step by kind of operation, summed over the records of torch.profiler."""

import re
from collections.abc import Callable
from functools import cache, wraps

import torch
from torch.profiler import ProfilerActivity, profile, record_function

LOSS = "loss"  # the kind of all operations in a function of `record_loss`
# Any other operation belongs to the first kind whose pattern matches its name or, outwards, the name of a caller.
KINDS = {
    "optimiser": r"Optimizer|_fused_adam|foreach|clip_grad",
    "CTC": r"ctc_loss|CtcLoss",
    "convolution": r"conv",
    "attention": r"scaled_dot_product|ScaledDotProduct|softmax",
    "matrix products": r"::(add|b|badd)?mm\b|::linear|::matmul|AddmmBackward|MmBackward",
    "norms": r"layer_norm|LayerNorm",
    "activations": r"silu|gelu|relu|threshold_backward|Silu|Gelu|Relu",
    "dropout": r"dropout|bernoulli|random_|MulBackward",  # a block multiplies nowhere else
    "copies": r"copy_|::cat|::clone|::contiguous|::to\b|fill_|zero",
    "sums": r"::add|::sum|AccumulateGrad",
}


def time_by_kind(call: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Returns the share of each kind of operation in one call after a warm-up; the rest is Python and waiting."""
    call()
    spent = seconds_by_kind(call, device)
    total = sum(spent.values()) or 1.0
    return {kind: seconds / total for kind, seconds in spent.items()}


def seconds_by_kind(call: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Returns the seconds of each kind of operation in one call, the longest first; Python between them is left out."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=activities) as found:
        call()
    spent: dict[str, float] = {}
    for event in found.events():
        if event.device_type.name != "CPU":
            continue  # a kernel; its time is with the operation that started it
        time = event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
        kind = kind_of(event)
        spent[kind] = spent.get(kind, 0.0) + time / 1e6
    return {kind: spent[kind] for kind in sorted(spent, key=spent.get, reverse=True)}


def kind_of(event) -> str:
    """The kind of the nearest operation, inside out, that has one; the loss comes before all other kinds."""
    callers = []
    while event is not None:
        callers.append(event.name)
        event = event.cpu_parent
    if LOSS in callers:
        return LOSS
    return next(filter(None, map(_kind_of_name, callers)), "rest")


@cache
def _kind_of_name(name: str) -> str | None:
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, name)), None)


def record_loss(function: Callable) -> Callable:
    """Returns `function` with all its operations recorded as one kind, LOSS, the products of its graphs included."""

    @wraps(function)
    def call(*arguments, **options):
        with record_function(LOSS):
            return function(*arguments, **options)

    return call


def as_text(shares: dict[str, float]) -> str:
    """As "matrix products 61 %, attention 17 %, ..."."""
    return ", ".join(f"{kind} {share:.0%}".replace("%", " %") for kind, share in shares.items() if share >= 0.005)
