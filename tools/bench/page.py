"""Writes the tables of docs/benchmarks.md from the figures of the benchmarks.

    python3 tools/bench/page.py exp/bench --page docs/benchmarks.md

The page has a place for each benchmark, whose content is replaced if the folder has figures of it:

    <!-- figures: loader -->
    ...
    <!-- end of figures -->

`<!-- figures: startup rows=3 -->` keeps the three cases that take longest. Every table comes with its command, device,
threads and date; ratios have the lowest and highest turn behind them.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from figures import STORED, read_reports

PLACE = re.compile(
    r"(<!-- figures: (?P<name>\w+)(?: rows=(?P<rows>\d+))? -->\n).*?(<!-- end of figures -->\n)", re.DOTALL
)
NO_COLUMNS = {"case", "what", "baseline", "turns", "seconds", "cpu_seconds", "rate", "rate_cpu", "ratio", "ratio_low"}
NO_COLUMNS |= {"ratio_high"}


def write_tables(page: str, reports: dict[str, dict]) -> tuple[str, list[str]]:
    """Returns the page with the tables of `reports`, and the names of benchmarks that it has no place for."""
    placed = set()

    def fill(match: re.Match) -> str:
        report = reports.get(match["name"])
        placed.add(match["name"])
        if report is None:
            return match[0]
        return match[1] + section(report, int(match["rows"]) if match["rows"] else None) + match[4]

    page = PLACE.sub(fill, page)
    return page, [name for name in reports if name not in placed]


def section(report: dict, max_cases: int | None = None) -> str:
    """Returns the command, the machine and the tables of a report as Markdown."""
    threads = report["threads"]
    counted = f"{', '.join(map(str, threads))} threads" if isinstance(threads, list) else f"threads: {threads}"
    machine = f"{report['device']}; cores: {report['cores']}; {counted}; {report['time'][:10]}."
    parts = [f"`{report['command']}`", machine]
    rows = _longest(report["rows"], max_cases)
    if rows:
        parts.append(_timed_table(report, rows) if "ratio" in rows[0] else _plain_table(rows))
    if report["facts"]:
        parts.append(_facts_table(report))
    return "".join(f"\n{part}\n" for part in parts) + "\n"


def _longest(rows: Sequence[dict], max_cases: int | None) -> list[dict]:
    """Returns the rows of the cases whose first candidate takes longest, in the order of the report."""
    first: dict[str, float] = {}
    for row in rows:
        first.setdefault(row["case"], row.get("seconds", 0.0))
    kept = sorted(first, key=lambda case: -first[case])[:max_cases]
    return [row for row in rows if row["case"] in kept]


def _timed_table(report: dict, rows: Sequence[dict]) -> str:
    """Returns a line for each candidate: its rate, the baseline's rate, and their ratio with its spread."""
    extra = [name for name in report.get("columns", []) if any(name in row for row in rows)]
    head = ["case", "what", f"{report['unit']}/s", *extra, "baseline", f"its {report['unit']}/s", "ratio (turns)"]
    lines = []
    baselines = {row["case"]: row for row in rows if row["baseline"]}
    for row in rows:
        if row["baseline"]:
            continue
        base = baselines[row["case"]]
        ratio = f"{_number(row['ratio'])} ({_number(row['ratio_low'])}-{_number(row['ratio_high'])})"
        numbers = [_number(row.get(name, "")) for name in extra]
        lines.append([row["case"], row["what"], _rate(row), *numbers, base["what"], _rate(base), ratio])
    return _table(head, lines)


def _rate(row: dict) -> str:
    return _number(row.get("rate", ""))


def _plain_table(rows: Sequence[dict]) -> str:
    """Returns a line for each figure of rows that have no baseline of their own."""
    return _table(
        ["case", "what", "figure", "value"],
        [
            [row["case"], row["what"], name, _number(value)]
            for row in rows
            for name, value in row.items()
            if name not in NO_COLUMNS
        ],
    )


def _facts_table(report: dict) -> str:
    baselines = report.get("fact_baselines", {})
    lines = [[name, _number(value), baselines.get(name, "")] for name, value in report["facts"].items()]
    return _table(["figure", "value", "compared with"], lines)


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    cells = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "/") for cell in line) + " |" for line in cells)


def _number(value: object) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name} {_number(one)}" for name, one in value.items())
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def main() -> None:
    """Writes the page, and names the benchmarks that have no place in it."""
    command_line = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command_line.add_argument(
        "folder", type=Path, nargs="?", default=STORED, help="folder of JSON files [default: %(default)s]"
    )
    command_line.add_argument(
        "--page", type=Path, default=Path("docs/benchmarks.md"), help="page [default: %(default)s]"
    )
    command_line.add_argument("--out", type=Path, help="file to write [default: the page itself]")
    arguments = command_line.parse_args()
    page, unplaced = write_tables(arguments.page.read_text(encoding="utf-8"), read_reports(arguments.folder))
    (arguments.out or arguments.page).write_text(page, encoding="utf-8")
    for name in unplaced:
        print(f"{arguments.page} has no place for the figures of {name}", file=sys.stderr)


if __name__ == "__main__":
    main()
