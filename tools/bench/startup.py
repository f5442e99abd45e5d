"""Time until `--help` answers.

Measured: the wall time of `python -m asrtool COMMAND --help`, for the program and each of its commands, from the
start of the process to its end. Baseline: `python -c "import click"`, the minimum of any click program; `python -c
pass` is the minimum of Python. All three are started in the same way, without output, and files are in the page cache
after the warm-up. An answer within 0.3 s feels immediate.

It also checks that `--help` imports no package that takes seconds (torch, lhotse, pydantic); otherwise it lists them
and exits with status 1.
"""

import subprocess
import sys
from collections.abc import Iterator

import click
from common import Report, Run, parse, parser

HEAVY = ("torch", "lhotse", "pydantic")
AIM = 0.3  # seconds
IMPORTED = f"""
import sys
from asrtool.cli import main
try:
    main()
except SystemExit:
    pass
print("heavy:", *(name for name in {HEAVY} if name in sys.modules))
"""


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yields the words of every command: () for the program itself, ("prepare", "table") for a command of a group."""
    yield path
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


def start(*words: str) -> None:
    """Runs Python with the arguments `words` until its end."""
    subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)


def heavy_imports(path: tuple[str, ...]) -> list[str]:
    """Returns which of HEAVY are loaded after `--help` of a command."""
    words = [sys.executable, "-c", IMPORTED, *path, "--help"]
    result = subprocess.run(words, capture_output=True, text=True, check=True)
    return result.stdout.splitlines()[-1].split()[1:]


def main() -> int:
    """Measures, checks and reports."""
    from asrtool.cli import cli

    command_line = parser(__doc__, repeats=7)
    command_line.add_argument("--commands", type=int, help="number of commands to measure [default: all]")
    arguments = parse(command_line, commands=1)
    chosen = list(commands(cli))[: arguments.commands]
    report = Report("startup", arguments, "starts")
    for path in chosen:
        _measure(report, path)
    slowest = max(row["seconds"] for row in report.values["rows"] if row["what"] == "asrtool")
    report.aim("slowest --help, seconds", slowest, AIM, at_most=True)
    found = {" ".join(path) or "asrtool": heavy for path in chosen if (heavy := heavy_imports(path))}
    report.fact("heavy imports", found, f"of {', '.join(HEAVY)}; none is right")
    report.finish()
    return 1 if found else 0


def _measure(report: Report, path: tuple[str, ...]) -> None:
    runs = [
        Run("asrtool", lambda: start("-m", "asrtool", *path, "--help")),
        Run("python -c pass", lambda: start("-c", "pass")),
        Run("python -c 'import click'", lambda: start("-c", "import click")),
    ]
    report.compare(" ".join([*path, "--help"]), runs)


if __name__ == "__main__":
    sys.exit(main())
