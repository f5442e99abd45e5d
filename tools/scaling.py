"""Predicts how training scales with the number of workers: a model of the time of a step, fitted to tools/network.py.

python tools/scaling.py                                          # predictions from assumptions alone
python tools/scaling.py exp/network/figures.json [MORE.json]     # fits the model first, and prints its error
python tools/scaling.py figures.json --compute 0.2 --audio 300 --parameters 30e6 --latency 5

The figures for 8 to 64 GPUs are PREDICTIONS OF A MODEL, NOT MEASUREMENTS.

A step of n workers with P parameters, on links of R bit/s:

    seconds = compute x (1 + crowding x (processes - 1)) + sending - hidden
    sending = wire x 8 bytes / R + messages x latency
    hidden  = at most overlap x compute, of ddp; nothing of bmuf, whose workers wait while they synchronise

    ddp       bytes 2 (n-1)/n x 4 P, with fp16 2 P;    messages 2 (n-1) for each of its sums (a ring's all-reduce)
    bmuf B    3 times these bytes, for weights and two moments of Adam (asrtool/training/bmuf.py), once in B steps

`wire` is the cost of a byte relative to the minimum: headers, waiting, reduction. `crowding` is the slowdown by
processes that share cores: 0 if each has its own, and in all predictions. A worker is a GPU with its own link; if the
GPUs of a machine have fast connections, a worker is a machine, because a ring crosses each machine's link once.

This is about speed only: with longer blocks, bmuf needs more audio for the same loss.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass, fields, replace
from itertools import product
from pathlib import Path

from asrtool.errors import AsrtoolError, UserError, require_file

WORKERS, LINKS, BLOCKS = (8, 16, 32, 64), (10.0, 100.0), (8, 16, 32, 64)  # what is predicted; Gbit/s, steps
FIRST_BUCKET, BUCKET = 2**20, 25 * 2**20  # bytes of gradients that ddp adds up at once, as torch sets them
SMALL = 3  # sums of a few numbers in each step: units, loss, and what to do next (train.py, session.py)
SYNCHRONISATION = 6  # sums when bmuf synchronises: weights, two moments of two groups of parameters, next actions
STARTS = tuple(product((0.0, 1.0), (0.0, 0.3, 0.8)))  # crowding and overlap, whose limits have kinks: from both sides


@dataclass(frozen=True)
class Costs:
    """The parameters of the model. The defaults are assumptions for GPUs."""

    compute: float = 0.3  # s a step: 85 M x 6 x 25 frames x 400 s = 5.1 TFLOP, at 17 TFLOP/s
    crowding: float = 0.0
    wire: float = 1.1  # 1: not a bit but the values, and never a pause
    latency: float = 20e-6  # s a message
    overlap: float = 0.6  # of compute: the backward pass is two thirds of it, and its first gradients come late


LOWER = Costs(0.0, 0.0, 1.0, 0.0, 0.0)  # of a fit: no link is quicker than its rate
UPPER = Costs(math.inf, 10.0, 100.0, 1.0, 1.0)


@dataclass(frozen=True)
class Scheme:
    """How workers share gradients or weights."""

    kind: str  # alone, ddp or bmuf
    value_bytes: int = 4  # of what is sent
    block: int = 1  # steps

    @classmethod
    def parse(cls, name: str) -> "Scheme":
        """From what tools/network.py calls it: "alone", "ddp", "ddp fp16" or "bmuf 8". Raises UserError."""
        match name.split():
            case ["alone" | "ddp"]:
                return cls(name)
            case ["ddp", "fp16"]:
                return cls("ddp", 2)
            case ["bmuf", block] if block.isdecimal() and int(block):
                return cls("bmuf", 4, int(block))
        raise UserError(f"no such training: '{name}'; these are alone, ddp, ddp fp16 and bmuf with its steps")


@dataclass(frozen=True)
class Point:
    """A training to predict, and what was measured of it."""

    name: str
    workers: int
    gbit: float
    parameters: float
    processes: int = 1  # that share cores
    seconds: float = math.nan  # of a step
    sent: float = math.nan  # bytes of a machine and step

    @property
    def scheme(self) -> Scheme:
        """The scheme of its workers."""
        return Scheme.parse(self.name)


def traffic(scheme: Scheme, workers: int, parameters: float) -> tuple[float, float]:
    """Bytes that a worker sends, and messages that it waits for, in the mean step."""
    if scheme.kind == "alone" or workers == 1:
        return 0.0, 0.0
    size, sums = scheme.value_bytes * parameters, SMALL
    if scheme.kind == "bmuf":
        size, sums = 3 * size / scheme.block, SYNCHRONISATION / scheme.block
    else:
        sums += 1 + math.ceil(max(0.0, 4 * parameters - FIRST_BUCKET) / BUCKET)
    return 2 * (workers - 1) / workers * size, 2 * (workers - 1) * sums


def step_seconds(costs: Costs, point: Point) -> float:
    """Returns the seconds of a step by the model."""
    sent, messages = traffic(point.scheme, point.workers, point.parameters)
    compute = costs.compute * (1 + costs.crowding * (point.processes - 1))
    sending = costs.wire * 8 * sent / (1e9 * point.gbit) + messages * costs.latency
    hidden = min(sending, costs.overlap * compute) if point.scheme.kind == "ddp" else 0.0
    return compute + (sending - hidden)


def efficiency(costs: Costs, point: Point) -> float:
    """Returns the speed of a worker relative to a single worker that has its own cores."""
    return costs.compute / step_seconds(costs, point)


def errors(costs: Costs, points: Iterable[Point]) -> list[float]:
    """Returns the relative error of the model at each point."""
    return [step_seconds(costs, point) / point.seconds - 1 for point in points]


def fit(points: list[Point]) -> Costs:
    """The costs with the least squares of `errors`, from several starts.

    Raises UserError where points are so few that they would be met whatever the costs mean.
    """
    from scipy.optimize import least_squares

    if len(points) <= len(fields(Costs)):
        raise UserError(f"{len(points)} measurements are too few for {len(fields(Costs))} costs; measure more blocks")
    units = (min(point.seconds for point in points), 1.0, 1.0, 1e-3, 1.0)  # so that all that is searched is near 1
    bounds = [[limit / unit for limit, unit in zip(astuple(end), units, strict=True)] for end in (LOWER, UPPER)]

    def costs(values: Iterable[float]) -> Costs:
        return Costs(*(float(value * unit) for value, unit in zip(values, units, strict=True)))

    tries = [
        least_squares(
            lambda values: errors(costs(values), points), (1.0, crowding, 1.2, 0.1, overlap), bounds=bounds, xtol=1e-12
        )
        for crowding, overlap in STARTS
    ]
    return costs(min(tries, key=lambda found: found.cost).x)


def read(path: Path) -> list[Point]:
    """The measurements in a JSON file of tools/network.py. Raises UserError."""
    require_file(path, "figures", "make them with tools/network.py --json")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        gbit, rows = values["facts"]["gbit"], values["rows"]
        points = [_point(row, gbit) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not what tools/network.py writes: {error!r}") from error
    if gbit is None:
        raise UserError(f"{path} was measured without limits ({values['facts']['link']}): nothing to fit a link to")
    return points


def _point(row: dict, gbit: float) -> Point:
    workers = row["machines"] if row["what"].startswith("bmuf") else row["processes"]
    if row["machines"] == 1:
        workers = 1
    return Point(row["what"], workers, gbit, row["parameters"], row["processes"], row["seconds"], row["bytes"])


# ---- what is printed


def print_fit(costs: Costs, points: list[Point]) -> None:
    """Prints the parameters, and the error of the model at every point."""
    print(f"fitted to {len(points)} measurements (not those of GPUs):")
    print(f"  compute {costs.compute:.3f} s a step, + {costs.crowding:.0%} for every further process on these cores")
    print(f"  {costs.wire:.2f} times the least time on the link, {1e6 * costs.latency:.0f} us a message")
    print(f"  ddp hides its sending under at most {costs.overlap:.0%} of compute\n")
    print(_line("workers", "Gbit/s", "what", "s measured", "s by model", "error", "MB measured", "MB by model"))
    for point, error in zip(points, errors(costs, points), strict=True):
        sent = traffic(point.scheme, point.workers, point.parameters)[0]
        seconds = f"{point.seconds:.3f}", f"{step_seconds(costs, point):.3f}", f"{error:+.1%}"
        where = point.workers, f"{point.gbit:g}", point.name
        print(_line(*where, *seconds, f"{point.sent / 1e6:.2f}", f"{sent / 1e6:.2f}"))
    squares = [error**2 for error in errors(costs, points)]
    print(f"root of the mean square error: {math.sqrt(sum(squares) / len(squares)):.1%}\n")


def print_predictions(costs: Costs, parameters: float, audio: float) -> None:
    """Audio a second, and efficiency, by number of workers, link and scheme."""
    print("PREDICTIONS OF A MODEL, NOT MEASUREMENTS: seconds of audio a second (efficiency)")
    print(
        f"assumed: {parameters / 1e6:g} M parameters, {costs.compute:g} s of compute for {audio:g} s of audio a step,"
    )
    print(f"  {costs.wire:.2f} times the least time on a link, {1e6 * costs.latency:.0f} us a message,")
    print(f"  sending of ddp hidden under at most {costs.overlap:.0%} of compute")
    names = ["ddp", "ddp fp16", *(f"bmuf {block}" for block in BLOCKS)]
    for gbit in LINKS:
        print(f"\n{_line(f'{gbit:g} Gbit/s', *(f'{workers} GPUs' for workers in WORKERS))}")
        for name in names:
            points = [Point(name, workers, gbit, parameters) for workers in WORKERS]
            parts = [(point.workers * audio, efficiency(costs, point)) for point in points]
            print(_line(name, *(f"{full * part:,.0f} ({part:.0%})" for full, part in parts)))


def _line(*cells: object) -> str:
    return " ".join(f"{cell:>15}" for cell in cells)


def options() -> argparse.ArgumentParser:
    """The command line; None by default has what a fit may find."""
    command_line = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command_line.add_argument("figures", type=Path, nargs="*", help="JSON files of tools/network.py")
    command_line.add_argument(
        "--parameters",
        type=at_least(1),
        default=85e6,
        help="parameters of the model [default: %(default)g, 24 x 512 with VGG]",
    )
    text = "s of a GPU's step without network, an assumption [default: %(default)g]"
    command_line.add_argument("--compute", type=at_least(1e-9), default=Costs.compute, help=text)
    command_line.add_argument(
        "--audio", type=at_least(1e-9), default=400.0, help="seconds of audio in a step [default: %(default)g]"
    )
    command_line.add_argument(
        "--wire", type=at_least(0), help=f"cost of a byte relative to the minimum [default: fitted, or {Costs.wire:g}]"
    )
    text = "us a message, of the network that is predicted, whatever that measured had [default: %(default)g]"
    command_line.add_argument("--latency", type=at_least(0), default=1e6 * Costs.latency, help=text)
    command_line.add_argument(
        "--overlap",
        type=at_least(0),
        help=f"share of the computation that sending overlaps with [default: fitted, or {Costs.overlap:g}]",
    )
    return command_line


def at_least(least: float) -> Callable[[str], float]:
    """A finite number, for argparse."""

    def value(text: str) -> float:
        if not least <= float(text) < math.inf:
            raise argparse.ArgumentTypeError(f"{text} is not a number from {least:g} on")
        return float(text)

    return value


def assumed(arguments: argparse.Namespace, fitted: Costs) -> Costs:
    """The costs to predict with: overlap and wire of the fit unless given, the rest as assumed."""
    given = {"wire": arguments.wire, "overlap": arguments.overlap}
    given = {name: value for name, value in given.items() if value is not None}
    return replace(fitted, compute=arguments.compute, crowding=0.0, latency=arguments.latency / 1e6, **given)


def main() -> int:
    """Fits the model if there are figures, and predicts; exit status 2 for a usage error."""
    arguments, costs = options().parse_args(), Costs()
    try:
        points = [point for path in arguments.figures for point in read(path)]
        if points:
            costs = fit(points)
            print_fit(costs, points)
    except AsrtoolError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    print_predictions(assumed(arguments, costs), arguments.parameters, arguments.audio)
    return 0


if __name__ == "__main__":
    sys.exit(main())
