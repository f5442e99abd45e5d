"""The figures of benchmarks as they are stored: reading the JSON files, and comparing the figures of two runs.

A figure is named by its benchmark, case, candidate and quantity. Ratios to the baseline of the same run are compared
always; times and other facts only if device, threads and sizes are the same, since they mean nothing elsewhere.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MOVED = 0.10  # relative change from which a figure is printed
STORED = Path(__file__).parent / "results"  # the committed figures


class Figure(NamedTuple):
    """A number of a benchmark. `relative` figures are ratios of two candidates of the same run."""

    benchmark: str
    case: str
    what: str
    quantity: str
    value: float
    relative: bool


class Move(NamedTuple):
    """A figure that differs between two runs; `new` is None where it is gone, `old` where it is new."""

    name: str
    old: float | None
    new: float | None

    def __str__(self) -> str:
        if self.old is None or self.new is None:
            return f"{self.name}: {'new' if self.old is None else 'gone'}"
        change = f"{self.new / self.old - 1:+.0%}" if self.old else "was 0"
        return f"{self.name}: {self.old:.4g} -> {self.new:.4g} ({change})"


def read_reports(folder: Path) -> dict[str, dict]:
    """Returns the reports of a folder by the names of their files, without ".json"."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def figures_of(report: dict) -> Iterator[Figure]:
    """Yields the numbers of a report: ratio and seconds of each row that is not a baseline, and each fact."""
    name = report["benchmark"]
    for row in report["rows"]:
        if row.get("baseline"):
            continue
        if "ratio" in row:
            yield Figure(name, row["case"], row["what"], "ratio", row["ratio"], True)
        known = {"case", "what", "baseline", "ratio", "ratio_low", "ratio_high", "turns", "cpu_seconds", "rate_cpu"}
        quantities = ["seconds"] if "seconds" in row else [key for key in row if key not in known]
        for quantity in quantities:
            if _is_number(row[quantity]):
                yield Figure(name, row["case"], row["what"], quantity, row[quantity], False)
    for fact, value in report["facts"].items():
        if _is_number(value):
            yield Figure(name, fact, "", "", value, False)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def same_conditions(old: dict, new: dict) -> bool:
    """Returns True if times of two reports can be compared: the same device, cores, threads and sizes."""
    sizes = [{key: value for key, value in report["sizes"].items() if key != "repeats"} for report in (old, new)]
    names = ("device", "cores", "threads")
    return sizes[0] == sizes[1] and all(old[name] == new[name] for name in names)


def moves(old: dict, new: dict, threshold: float = MOVED) -> list[Move]:
    """Returns the figures of two reports that differ by more than `threshold`, and those that only one of them has."""
    times_count = same_conditions(old, new)
    before, after = (
        {figure[:4]: figure for figure in figures_of(report) if figure.relative or times_count} for report in (old, new)
    )
    found = []
    for key in before | after:
        one, other = before.get(key), after.get(key)
        name = ", ".join(filter(None, key))
        if one is None or other is None:
            found.append(Move(name, one.value if one else None, other.value if other else None))
        elif abs(other.value - one.value) > threshold * abs(one.value):
            found.append(Move(name, one.value, other.value))
    return found


def compare_folders(old: Path, new: Path, threshold: float = MOVED) -> list[str]:
    """Returns lines for people on what moved between the reports of two folders."""
    before, after = read_reports(old), read_reports(new)
    lines = []
    for name, report in after.items():
        if name not in before:
            lines.append(f"{name}: no stored figures")
            continue
        if not same_conditions(before[name], report):
            lines.append(f"{name}: another device or other sizes than the stored figures; only ratios are compared")
        lines += map(str, moves(before[name], report, threshold))
    return lines + [f"{name}: not measured now" for name in before if name not in after]


def main() -> None:
    """Prints what moved."""
    command_line = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command_line.add_argument("new", type=Path, help="folder of JSON files")
    command_line.add_argument("--old", type=Path, default=STORED, help="folder of JSON files [default: %(default)s]")
    command_line.add_argument(
        "--threshold", type=float, default=MOVED, help="relative change that is printed [default: %(default)g]"
    )
    arguments = command_line.parse_args()
    lines = compare_folders(arguments.old, arguments.new, arguments.threshold)
    print("\n".join(lines) if lines else f"nothing moved by more than {arguments.threshold:.0%}", file=sys.stdout)


if __name__ == "__main__":
    main()
