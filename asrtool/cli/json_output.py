"""What commands with an option --json share: the option, and printing JSON."""

from typing import Any

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def print_json(value: Any) -> None:
    """Prints a tree of plain types as JSON in UTF-8; numbers that are not finite become null.

    A byte of a file name that is not UTF-8, which Python holds as a lone surrogate, becomes an escape such as \\udcff.
    """
    import json

    from asrtool.files import finite_or_null

    text = json.dumps(finite_or_null(value), indent=2, ensure_ascii=False, allow_nan=False)
    click.echo(text.encode("utf-8", "backslashreplace").decode())
