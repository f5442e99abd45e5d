"""What the options of all commands share: types that refuse bad values with a clear line, and common options."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)
LARGEST_SEED = 2**63 - 1


class Number(click.ParamType):
    """A finite number, at least `least` (above it with `open`) and at most `most`. click's own types take nan."""

    name = "float"

    def __init__(
        self, least: float | None = None, most: float | None = None, open: bool = False, most_open: bool = False
    ):
        self.least, self.most, self.open, self.most_open = least, most, open, most_open

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> float:
        """The number that `value` says."""
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            self.fail(f"{value!r} is not a number", param, context)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, context)
        if self.least is not None and (number < self.least or self.open and number == self.least):
            self.fail(f"{value} is not {'above' if self.open else 'at least'} {self.least:g}", param, context)
        if self.most is not None and (number > self.most or self.most_open and number == self.most):
            self.fail(f"{value} is not {'below' if self.most_open else 'at most'} {self.most:g}", param, context)
        return number

    def get_metavar(self, *_: Any, **__: Any) -> str:
        """As in `--beam FLOAT`."""
        return "FLOAT"


NUMBER = Number()
POSITIVE = Number(0, open=True)
NOT_NEGATIVE = Number(0)
SHARE = Number(0, 1)
SEED = click.IntRange(0, LARGEST_SEED)
JOBS = click.IntRange(1, 1024)
WORKERS = click.IntRange(0, 256)
THREADS = click.IntRange(1, 4096)


def allow_commands(command: Callable) -> Callable:
    """Adds --allow-commands, which holds for this call: see asrtool/data/sources.py."""

    def allow(context: click.Context, _option: click.Parameter, value: bool) -> None:
        if value:
            from asrtool.data.sources import allow_commands as allow_in_process

            allow_in_process()
            context.call_on_close(lambda: allow_in_process(False))

    return click.option(
        "--allow-commands",
        is_flag=True,
        expose_value=False,
        callback=allow,
        help="Run the shell commands and open the addresses that the data names. Only for data that you trust.",
    )(command)


def max_minutes(default: float) -> Callable:
    """Adds --max-minutes, the length of a recording beyond which a command refuses it by name."""
    return click.option(
        "--max-minutes",
        default=default,
        show_default=True,
        type=POSITIVE,
        help="Length beyond which a cut is refused, since memory and time grow with it.",
    )


def set_options(command: Callable) -> Callable:
    """Adds --name, --tag and --overwrite, which say what the folder of a result is called and what it replaces."""
    options = [
        click.option("--name", "names", multiple=True, help="Name of the set; once for each CUTS, in their order."),
        click.option("--tag", help="Text behind the method in the name of the folder, to keep results apart."),
        click.option("--overwrite", is_flag=True, help="Replace a result of other options."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def model_options(command: Callable) -> Callable:
    """Adds the options of commands that run a trained model over manifests: which weights, how long cuts, on what."""
    options = [
        click.option("--checkpoint", default="averaged", help=CHECKPOINT),
        max_minutes(5),
        click.option("--batch-seconds", default=200.0, type=POSITIVE, help="Seconds of audio in a batch, at most."),
        click.option("--workers", default=1, type=WORKERS, help="Number of loader processes."),
        click.option("--device", default="auto", help="Device: auto, cpu, cuda or cuda:N."),
        click.option("--threads", type=THREADS, help="Number of CPU threads; all cores by default."),
        allow_commands,
    ]
    for option in reversed(options):
        command = option(command)
    return command


CHECKPOINT = "Checkpoint: averaged (else best), best, last, a name in EXP/checkpoints, or a path."
