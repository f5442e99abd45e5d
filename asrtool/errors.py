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

    `str` folds problems of the same kind (see `summarise_problems`); `problems` has all of them.
    """

    exit_status = 1

    def __init__(self, summary: str, problems: list[str]):
        super().__init__(summary, problems)  # both, so that the error can be pickled by a loader process
        self.summary = summary
        self.problems = problems

    def __str__(self) -> str:
        return self._lines(summarise_problems(self.problems))

    def all_lines(self) -> str:
        """Every problem and the summary, not folded."""
        return self._lines(self.problems)

    def _lines(self, problems: Iterable[str]) -> str:
        return "\n".join([*(f"  {one_line(problem)}" for problem in problems), one_line(self.summary)])


def one_line(text: str) -> str:
    """`text` without line ends, cut after MAX_LINE_LENGTH characters: names and values from files may have anything in them."""
    text = " ".join(text.splitlines())
    return text if len(text) <= MAX_LINE_LENGTH else f"{text[: MAX_LINE_LENGTH - 4]} ..."


def summarise_problems(problems: Iterable[str], shown: int = MAX_PROBLEMS_SHOWN) -> list[str]:
    """At most `shown` problems of each kind in their order, and a count of the others behind the last of its kind.

    Two problems are of the same kind when their messages, which follow the first ": ", differ in numbers, quoted text
    and paths only.
    """
    kinds: dict[str, list[str]] = {}
    for problem in problems:
        kinds.setdefault(_kind(problem), []).append(problem)
    folded: list[str] = []
    for same in kinds.values():
        folded += same[:shown]
        if len(same) > shown:
            folded.append(f"... and {len(same) - shown} more like the last one (--debug lists all)")
    return folded


def _kind(problem: str) -> str:
    _, _, message = problem.partition(": ")
    return re.sub(r"'[^']*'|\S*[\d/]\S*", "*", message or problem)


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """The valid name that is most similar to `name`: "did you mean 'x'?", or all valid names when none is similar."""
    import difflib

    valid = sorted(valid)
    match = difflib.get_close_matches(name, valid, n=1)
    return f"did you mean '{match[0]}'?" if match else f"valid are: {', '.join(valid)}"


def require_file(path: str | Path, what: str, hint: str) -> Path:
    """`path` when it is a regular file, else a UserError that names it, e.g. `hint` = "make it with ..."."""
    path = Path(path)
    try:
        found = path.is_file()
    except OSError:  # such as a name that no file system allows
        found = False
    if not found and os.path.isdir(path):
        raise UserError(f"{what} not found: {path} is a folder; give a file")
    if not found:
        raise UserError(f"{what} not found: {path}; {hint}")
    return path
