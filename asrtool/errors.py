"""The two kinds of errors that a user may see: an impossible request, and wrong data.

The command line (asrtool/cli) prints both as plain lines on stderr and returns the exit status; `--debug` adds the
traceback.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

MAX_LINE_LENGTH = 1500  # characters of a line; a value from a damaged file may have megabytes
MAX_PROBLEMS_SHOWN = 10  # problems of one kind that are printed; the rest are counted, unless --debug is given


class AsrtoolError(Exception):
    """Base class of every error that a user may see. The command returns `exit_status`."""

    exit_status = 1


class UserError(AsrtoolError):
    """The user asked for something impossible: one line that says what, where, and what to do. Exit status 2."""

    exit_status = 2

    def __str__(self) -> str:
        return one_line(super().__str__())


class DataError(AsrtoolError):
    """The data is wrong: one line for each problem, and a summary line that says what to do. Exit status 1.

    `str` lists the first problems of each kind (see `summarise_problems`); `problems` has all of them.
    """

    exit_status = 1

    def __init__(self, summary: str, problems: list[str]):
        super().__init__(summary, problems)  # both, so that the error can be pickled by a loader process
        self.summary = summary
        self.problems = problems

    def __str__(self) -> str:
        return self._lines(summarise_problems(self.problems))

    def all_lines(self) -> str:
        """Returns every problem and the summary."""
        return self._lines(self.problems)

    def _lines(self, problems: Iterable[str]) -> str:
        return "\n".join([*(f"  {one_line(problem)}" for problem in problems), one_line(self.summary)])


def one_line(text: str) -> str:
    """Returns `text` without line ends, cut after MAX_LINE_LENGTH characters: values from files may be anything."""
    text = " ".join(text.splitlines())
    return text if len(text) <= MAX_LINE_LENGTH else f"{text[: MAX_LINE_LENGTH - 4]} ..."


def summarise_problems(problems: Iterable[str], shown: int = MAX_PROBLEMS_SHOWN) -> list[str]:
    """Returns at most `shown` problems of each kind in their order, each followed by a count of the others.

    Two problems are of the same kind if their messages, which follow the first ": ", differ only in numbers, quoted
    text and paths.
    """
    problems_of_kind: dict[str, list[str]] = {}
    for problem in problems:
        problems_of_kind.setdefault(_kind(problem), []).append(problem)
    lines: list[str] = []
    for same_kind in problems_of_kind.values():
        lines += same_kind[:shown]
        if len(same_kind) > shown:
            lines.append(f"... and {len(same_kind) - shown} more like the last one (--debug lists all)")
    return lines


def _kind(problem: str) -> str:
    """Returns the message of "NAME: message" with * for numbers, quoted text and paths."""
    _, _, message = problem.partition(": ")
    return re.sub(r"'[^']*'|\S*[\d/]\S*", "*", message or problem)


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """Returns "did you mean 'x'?" for the valid name most similar to `name`, or all valid names if none is similar."""
    import difflib

    valid = sorted(valid)
    match = difflib.get_close_matches(name, valid, n=1)
    return f"did you mean '{match[0]}'?" if match else f"valid are: {', '.join(valid)}"


def require_file(path: str | Path, what: str, hint: str) -> Path:
    """Returns `path` if it is a regular file. Raises UserError otherwise, with `hint`, such as "create it with ..."."""
    path = Path(path)
    try:
        is_file = path.is_file()
    except OSError:  # such as a name that no file system allows
        is_file = False
    if is_file:
        return path
    if os.path.isdir(path):
        raise UserError(f"{what} not found: {path} is a folder; give a file")
    raise UserError(f"{what} not found: {path}; {hint}")
