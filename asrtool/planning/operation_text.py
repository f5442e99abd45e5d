"""Reading, checkpoints and failures of a plan as lines for people, and as values for programs."""

from dataclasses import asdict

from asrtool.config import Config
from asrtool.planning.operation import Operation, OperationOptions


def operation_lines(operation: Operation, config: Config, options: OperationOptions) -> dict[str, str]:
    """Returns the figures by name."""
    return {
        "reading": _reading(operation, config),
        "files": _files(operation),
        "checkpoints": _checkpoints(operation),
        "resume": f"{operation.resume_seconds:,.0f} s from the start of the processes to the first step",
        "failures": _failures(operation, options),
    }


def _reading(operation: Operation, config: Config) -> str:
    kind = "stored features" if config.features.source == "stored" else "audio as FLAC"
    loaders = f"loader processes a device: {operation.loaders}"
    rate = f"{operation.read_rate / 1e6:,.2f} MB/s of {kind} by all devices"
    return f"{rate}, {operation.audio_rate:,.0f} s of audio a second; {loaders} (data.workers={config.data.workers})"


def _files(operation: Operation) -> str:
    return (
        f"{operation.utterances:,} utterances of {_bytes(operation.data_bytes)}, {operation.opened_rate:,.1f} of them "
        f"a second; a manifest of {operation.manifest_files:,} files with {_bytes(operation.manifest_bytes)}"
    )


def _checkpoints(operation: Operation) -> str:
    return (
        f"{_bytes(operation.checkpoint_bytes)} in {operation.checkpoint_seconds:.2f} s, "
        f"every {operation.checkpoint_interval:,.0f} s: {operation.checkpoint_share:.2%} of the time; "
        f"{operation.checkpoints} are kept, {_bytes(operation.disk_bytes)}"
    )


def _failures(operation: Operation, options: OperationOptions) -> str:
    return (
        f"{operation.failures:.3g} expected, at one in {options.mtbf_hours:,.0f} device hours; each costs "
        f"{operation.failure_seconds:,.0f} s, all {operation.lost_hours:.3g} h, so that the training takes "
        f"{operation.hours:,.2f} h. Least is lost with a checkpoint every {operation.best_interval:,.0f} s"
    )


def _bytes(number: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9)):
        if number >= size:
            return f"{number / size:,.2f} {unit}"
    return f"{number / 1e6:,.2f} MB"


def operation_assumptions(options: OperationOptions) -> list[str]:
    """Returns what these figures assume, one thing a line."""
    return [
        f"a checkpoint is written and read at {options.disk / 1e9:.2g} GB/s, which is a local disk",
        "a lost machine is noticed after parallel.timeout, and torchrun starts again on as many machines",
    ]


def operation_values(operation: Operation) -> dict[str, float]:
    """Returns the figures in SI units, for JSON."""
    derived = {
        "lost_hours": operation.lost_hours,
        "checkpoint_share": operation.checkpoint_share,
        "disk_bytes": operation.disk_bytes,
    }
    return asdict(operation) | derived
