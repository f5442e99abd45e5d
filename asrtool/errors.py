"""The two ways in which asrtool refuses: what the user asked for, and what the data holds.

The command line (asrtool/cli) turns both into plain lines on stderr and an exit status; `--debug` shows the traceback.
"""

from collections.abc import Iterable
from pathlib import Path


class AsrtoolError(Exception):
    """Base of every error that a user may see. `exit_status` is what the command returns."""

    exit_status = 1


class UserError(AsrtoolError):
    """The user asked for something impossible: one line that says what, where, and what to do. Exit status 2."""

    exit_status = 2


class DataError(AsrtoolError):
    """The data is wrong: every problem, a line each, and a summary line with what to do. Exit status 1."""

    exit_status = 1

    def __init__(self, summary: str, problems: list[str]):
        super().__init__(summary, problems)  # both, so that it survives the way back from a loader process
        self.summary = summary
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join([*(f"  {problem}" for problem in self.problems), self.summary])


def nearest(name: str, valid: Iterable[str]) -> str:
    """`name` put beside the valid names: "did you mean 'x'?", or all of them when none is near."""
    import difflib

    valid = sorted(valid)
    match = difflib.get_close_matches(name, valid, n=1)
    return f"did you mean '{match[0]}'?" if match else f"valid are: {', '.join(valid)}"


def require_file(path: str | Path, what: str, hint: str) -> Path:
    """`path` when it is a readable file, else a UserError that names it, e.g. `hint` = "make it with ..."."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{what} not found: {path}; {hint}")
    return path
