"""Printing text on standard output."""

import click

from asrtool.logs import printable


def print_text(text: str) -> None:
    """Prints lines of text; control characters become \\xNN, since names and words may come from strangers' files."""
    click.echo(printable(text))
