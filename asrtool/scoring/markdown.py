"""Tables in Markdown, and sections of a text that a program writes between two comments."""

import re
from collections.abc import Iterable, Sequence

from asrtool.errors import UserError


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table without a last line break; rows shorter than `head` are filled with "-"."""
    filled = ([*row, *["-"] * (len(head) - len(row))] for row in rows)
    lines = [head, ["---"] * len(head), *filled]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    """A bar or a line break in a cell would end it."""
    return " ".join(text.splitlines()).replace("|", "\\|")


def natural(name: str) -> list[str | int]:
    """A key that sorts names of rows with the numbers in them by their value: T2 before T10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def put(text: str, begin: str, end: str, body: str) -> str:
    """`text` with `body` between the lines `begin` and `end`: where they are, or at the end of the text.

    Nothing else changes. UserError where only one of the lines is there, or where they stand in the wrong order.
    """
    if text.find(end) < text.find(begin) or (end in text) != (begin in text):
        raise UserError(f"the results need both '{begin}' and '{end}', in this order, or neither")
    before, _, rest = text.partition(begin) if begin in text else (text + "\n" * bool(text), "", "")
    return f"{before}{begin}\n\n{body}\n\n{end}" + (rest.partition(end)[2] or "\n")
