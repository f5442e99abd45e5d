"""`asrtool report`."""

import logging
from pathlib import Path

import click

from asrtool.cli.options import PATH

logger = logging.getLogger(__name__)


@click.command()
@click.argument("exps", metavar="EXP ...", type=PATH, nargs=-1, required=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default="-",
    help="Markdown file to write the section into; - prints it.",
)
@click.option("--title", default="Systems", help="Title of the section; a file may have several sections.")
def report(exps, out, title) -> None:
    """Compare scored experiments in a Markdown file.

    The command writes a section. Its tables show the size and the training of each system with the revision of
    asrtool, the error rates of each set and method with 95 % intervals, real-time factors, the measurements of
    `asrtool stream`, and all commands. Values that were not measured are shown as "-". A section of the same title in
    the file is replaced, a new one is added at the end; all other text stays as it is.

    \b
    asrtool report exp/transformer exp/blstm
    asrtool report exp/* --out RESULTS.md --title "mini LibriSpeech, 5 hours"
    """
    from asrtool.scoring.results import results_section, write_section
    from asrtool.scoring.systems import read_systems

    text = results_section(read_systems(exps), title)
    if out == Path("-"):
        click.echo(text)
    else:
        write_section(out, title, text)
        logger.info(f"wrote the section '{title}' into {out}")
