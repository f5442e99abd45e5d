"""Shared parts of the commands' options: types that refuse bad values with a clear line, and common options."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

Decorated = TypeVar("Decorated", bound=Callable[..., Any] | click.Command)
Decorator = Callable[[Decorated], Decorated]


class Number(click.ParamType):
    """A finite number from `minimum` to `maximum`; an open bound is not part of the range. click's FLOAT takes nan."""

    name = "float"

    def __init__(
        self,
        minimum: float | None = None,
        maximum: float | None = None,
        minimum_open: bool = False,
        maximum_open: bool = False,
    ):
        self.minimum = minimum
        self.maximum = maximum
        self.minimum_open = minimum_open
        self.maximum_open = maximum_open

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> float:
        """Returns `value` as a float; fails with a usage error unless it is a number within the bounds."""
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            self.fail(f"{value!r} is not a number", param, context)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, context)
        if self._is_too_small(number):
            self.fail(f"{value} is not {'above' if self.minimum_open else 'at least'} {self.minimum:g}", param, context)
        if self._is_too_large(number):
            self.fail(f"{value} is not {'below' if self.maximum_open else 'at most'} {self.maximum:g}", param, context)
        return number

    def _is_too_small(self, number: float) -> bool:
        if self.minimum is None:
            return False
        return number <= self.minimum if self.minimum_open else number < self.minimum

    def _is_too_large(self, number: float) -> bool:
        if self.maximum is None:
            return False
        return number >= self.maximum if self.maximum_open else number > self.maximum

    def get_metavar(self, *_: Any, **__: Any) -> str:
        """Returns the name of the value in a help text, such as FLOAT in `--beam FLOAT`."""
        return "FLOAT"


class Channel(click.ParamType):
    """A channel of a recording: its number from 0 on, or one of the words, "mix" for the mean of all and "each"."""

    name = "channel"

    def __init__(self, *words: str) -> None:
        self._words = words

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> int | str:
        """Returns the number or the word; fails with a usage error for anything else."""
        if value in self._words or isinstance(value, int):
            return value
        if not str(value).isdecimal() or len(str(value)) > 4:
            valid = " or ".join([*self._words, "a number from 0 on"])
            self.fail(f"{value!r} is not a channel that is possible here; give {valid}", param, context)
        return int(value)

    def get_metavar(self, *_: Any, **__: Any) -> str:
        """Returns the valid values for a help text."""
        return f"[{'|'.join([*self._words, '0', '1', '...'])}]"


class FormatList(click.ParamType):
    """Names of output formats, separated by commas."""

    name = "formats"

    def __init__(self, formats: tuple[str, ...]):
        self.formats = formats

    def convert(
        self, value: str | tuple[str, ...], param: click.Parameter | None, context: click.Context | None
    ) -> tuple[str, ...]:
        """Returns the names; fails with a usage error for an unknown one."""
        if isinstance(value, tuple):
            return value
        names = tuple(name.strip().lower() for name in value.split(",") if name.strip())
        unknown = [name for name in names if name not in self.formats]
        if unknown or not names:
            self.fail(f"{value!r} is not a list of formats; valid are {', '.join(self.formats)}", param, context)
        return names

    def get_metavar(self, *_: object, **__: object) -> str:
        """Returns the valid names for a help text."""
        return f"[{'|'.join(self.formats)}],..."


def joined_formats(lists: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Returns the names of all lists that were given, each once."""
    return tuple(dict.fromkeys(name for names in lists for name in names))


PATH = click.Path(path_type=Path)
NUMBER = Number()
POSITIVE = Number(0, minimum_open=True)
NOT_NEGATIVE = Number(0)
SHARE = Number(0, 1)
SECONDS = Number(0, 86_400, minimum_open=True)  # up to a day
MINUTES = Number(0, 1_440, minimum_open=True)
SEED = click.IntRange(0, 2**63 - 1)
JOBS = click.IntRange(1, 1024)
WORKERS = click.IntRange(0, 256)
THREADS = click.IntRange(1, 4096)
CONTEXT = click.IntRange(0, 1 << 20)  # units that a neural language model sees; attention over more fits no memory
COUNT = click.IntRange(min=1)
EPOCHS = Number(1e-6, 1e6)
CASES = click.Choice(["keep", "upper", "lower"])


def add_options(*options: Decorator) -> Decorator:
    """Returns a decorator that adds all `options` to a command; its help lists them in this order."""

    def decorate(command: Decorated) -> Decorated:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def refuse_options(names: Sequence[str], valid: str) -> None:
    """Raises UsageError if an option was given that has no effect in this call.

    `names` are the names of such parameters of the command. `valid` says what the options are for, e.g. "manifests".
    """
    context = click.get_current_context()
    options = {option.name: option for option in context.command.params}
    for name in names:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            is_negated = context.params[name] is False and options[name].secondary_opts
            flag = (options[name].secondary_opts if is_negated else options[name].opts)[0]
            raise click.UsageError(f"{flag} has no effect here: it is for {valid}")


def device_option(default: str = "auto") -> Decorator:
    """Returns --device, the device that runs the model."""
    return click.option(
        "--device", default=default, help="Device of the model: auto (a GPU if there is one), cpu, cuda or cuda:N."
    )


MIN_BINS, MAX_BINS = 4, 1024  # as features.num_bins of a configuration

num_bins_option = click.option(
    "--num-bins", default=80, type=click.IntRange(MIN_BINS, MAX_BINS), help="Number of mel bins."
)


pseudo_labels_option = click.option(
    "--hyps", type=PATH, help="Pseudo-labels, a folder of `asrtool decode`; without it the texts of CUTS are used."
)
transforms_option = click.option(
    "--transforms", type=PATH, help="Transforms of the features of each speaker, a file of `asrtool fmllr`."
)


def precision_option(default: str | None, default_text: str | None = None) -> Decorator:
    """Returns --precision, of the model's matrix products; `default_text` describes what None stands for."""
    return click.option(
        "--precision",
        default=default,
        show_default=default_text or True,
        type=click.Choice(["fp32", "bf16", "auto"]),
        help="Precision of the model's computation; auto is bf16 where the processor supports it.",
    )


channels_option = click.option(
    "--channel",
    type=Channel("mix", "each"),
    default="mix",
    help="Channels to recognise: mix (mean of all), each (one output per channel), or a number, counted from 0.",
)


def threads_option(default: int | None = None, default_text: str = "all cores") -> Decorator:
    """Returns --threads, the number of CPU threads; `default_text` describes what None stands for."""
    shown = default_text if default is None else True
    return click.option(
        "--threads", default=default, show_default=shown, type=THREADS, help="Number of CPU threads of a process."
    )


def workers_option(default: int = 1) -> Decorator:
    """Returns --workers, the number of loader processes."""
    text = "Number of loader processes; 0 loads in the main process."
    return click.option("--workers", default=default, type=WORKERS, help=text)


def batch_seconds_option(default: float = 200.0) -> Decorator:
    """Returns --batch-seconds, the size of a batch."""
    return click.option(
        "--batch-seconds", default=default, type=SECONDS, help="Largest amount of audio in a batch, in seconds."
    )


def checkpoint_option() -> Decorator:
    """Returns --checkpoint, the weights of an experiment."""
    return click.option(
        "--checkpoint",
        default="averaged",
        help="Checkpoint: averaged (best if there is none), best, last, a name in EXP/checkpoints, or a path.",
    )


def max_minutes(default: float) -> Decorator:
    """Returns --max-minutes, the length of a cut beyond which a command refuses it by name."""
    return click.option(
        "--max-minutes",
        default=default,
        type=MINUTES,
        help="Longest cut in minutes; longer ones are refused, since memory and time grow with the length.",
    )


def case_option() -> Decorator:
    """Returns --case, which changes the case of texts."""
    return click.option("--case", type=CASES, default="keep", help="Case that the text is changed to.")


def allow_commands(command: Decorated) -> Decorated:
    """Adds --allow-commands, which is in force until this call ends: see asrtool/data/sources.py."""

    def allow(context: click.Context, _option: click.Parameter, is_given: bool) -> None:
        if is_given:
            from asrtool.data.sources import allow_commands as allow_in_process

            allow_in_process()
            context.call_on_close(lambda: allow_in_process(False))

    add_option: Decorator = click.option(
        "--allow-commands",
        is_flag=True,
        expose_value=False,
        callback=allow,
        help="Run the shell commands and open the URLs that the data names; only for data that you trust.",
    )
    return add_option(command)


# How a result's folder is named, and whether it may be replaced.
set_options = add_options(
    click.option("--name", "names", multiple=True, help="Name of the set; give one for each CUTS, in order."),
    click.option("--tag", help="Text after the method in the name of the result's folder, to keep results apart."),
    click.option(
        "--overwrite",
        is_flag=True,
        help="Replace existing results. Without it, a result of other options is not replaced.",
    ),
)

# For commands that run a trained model over manifests.
model_options = add_options(
    checkpoint_option(),
    max_minutes(5),
    batch_seconds_option(),
    workers_option(),
    device_option(),
    precision_option("fp32"),
    threads_option(),
    allow_commands,
)


overwrite_out_option = click.option(
    "--overwrite",
    is_flag=True,
    help="Replace existing results. Without it, a result of other options in OUT is not replaced.",
)
