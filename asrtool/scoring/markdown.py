"""Tables in Markdown, and sections of a text that a program writes between two comments."""

import re
from collections.abc import Iterable, Sequence

from asrtool.errors import UserError


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table without a line break at its end; rows shorter than `head` are filled with "-"."""
    lines = [list(head), ["---"] * len(head)]
    for row in rows:
        missing = len(head) - len(row)
        lines.append([*row, *["-"] * missing])
    return "\n".join(f"| {' | '.join(map(_escape_cell, line))} |" for line in lines)


def _escape_cell(text: str) -> str:
    """Returns the text without line breaks and with escaped bars, which would end the cell."""
    return " ".join(text.splitlines()).replace("|", "\\|")


def natural_sort_key(name: str) -> list[str | int]:
    """Returns a key that sorts names by the value of the numbers in them: T2 before T10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def replace_section(text: str, begin: str, end: str, body: str) -> str:
    """Returns `text` with `body` between the lines `begin` and `end`, which are added at the end if there are none.

    The rest of the text stays as it is. Raises UserError if only one of the lines is there, or if their order is wrong.
    """
    if (begin in text) != (end in text) or text.find(end) < text.find(begin):
        raise UserError(f"the results need both '{begin}' and '{end}', in this order, or neither")
    if begin in text:
        before, _, rest = text.partition(begin)
        after = rest.partition(end)[2]
    else:
        before = f"{text}\n" if text else ""
        after = ""
    return f"{before}{begin}\n\n{body}\n\n{end}" + (after or "\n")
