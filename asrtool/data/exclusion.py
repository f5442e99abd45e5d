"""Exclusion lists: files with the ids of cuts that are left out, as `asrtool doctor data --exclude` writes them."""

from collections.abc import Iterable
from pathlib import Path

from asrtool.readers import read_lines

HINT = "write one id a line, or make it with `asrtool doctor data --exclude`"


def read_exclusions(paths: Iterable[Path]) -> dict[str, str]:
    """Returns the ids in exclusion lists, each with the reason, "" where none is given.

    A line has an id and, after a tab, the reason. Blank lines and lines that begin with # are comments. Raises
    UserError for a file that is missing or is not text.
    """
    reasons: dict[str, str] = {}
    for path in paths:
        for line in read_lines(path, "exclusion list", HINT):
            cut_id, _, reason = line.strip().partition("\t")
            if cut_id and not cut_id.startswith("#"):
                reasons.setdefault(cut_id.strip(), reason.strip())
    return reasons
