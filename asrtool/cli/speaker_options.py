"""Options that name speakers: comma-separated, or a file with one a line (asrtool/data/corpora.py)."""

import click

from asrtool.cli.options import Decorator, add_options


def speaker_list_option(name: str, default_text: str, meaning: str) -> Decorator:
    """Returns an option that names speakers: a list, or a file."""
    text = f"{meaning}: comma-separated names, or a file with one a line."
    return click.option(name, show_default=default_text, help=text)


# Which speakers of a corpus or a manifest are taken.
speaker_options = add_options(
    speaker_list_option("--speakers", "all speakers", "Speakers to take"),
    speaker_list_option("--exclude-speakers", "none", "Speakers to leave out"),
)
