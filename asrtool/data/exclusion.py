"""Exclusion lists: files with the ids of cuts that are left out, as `asrtool doctor data --exclude` writes them."""

from collections.abc import Iterable
from pathlib import Path

from asrtool.readers import read_lines

HINT = "write one id a line, or make it with `asrtool doctor data --exclude`"


def read_exclusions(paths: Iterable[Path]) -> dict[str, str]:
    """Returns the ids in exclusion lists, each with the reason, "" where none is given.

    A line has an id and, after a tab, the reason. Blank lines and lines that begin with # are comments, except where
    one word is before a tab: an id may begin with #. Raises UserError for a file that is missing or is not text.
    """
    reasons: dict[str, str] = {}
    for path in paths:
        for line in read_lines(path, "exclusion list", HINT):
            cut_id, reason = _parse(line)
            if cut_id:
                reasons.setdefault(cut_id, reason)
    return reasons


def can_be_listed(cut_id: str) -> bool:
    """Returns True if a line of an exclusion list can hold this id: not one with a tab or with outer white space."""
    return cut_id.isprintable() and _parse(f"{cut_id}\t") == (cut_id, "")


def _parse(line: str) -> tuple[str, str]:
    """Returns the id and the reason of a line; the id is "" for a comment."""
    cut_id, tab, reason = line.strip(" \r\n").partition("\t")
    cut_id = cut_id.strip()
    if cut_id.startswith("#") and not (tab and len(cut_id.split()) == 1):
        return "", ""
    return cut_id, reason.strip()
