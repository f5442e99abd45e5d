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
    help="Markdown file with the section; - prints it.",
)
@click.option("--title", default="Systems", help="Of the section; a file may have several.")
def report(exps, out, title) -> None:
    """Put results side by side: a section of a Markdown file from the folders of trained and scored experiments.

    Its tables say of each system what it is and what it took, with which state of asrtool; its error rates on each set
    by each method, with 95 % intervals; real-time factors; what `asrtool stream` measured; and all commands. What was
    not measured is "-". In a file that has the section it takes the place of the old one, else it comes last; all other
    text stays as it is.

    \b
    asrtool report exp/transformer exp/blstm
    asrtool report exp/* --out RESULTS.md --title "mini LibriSpeech, 5 hours"
    """
    from asrtool.scoring.results import section, write_section
    from asrtool.scoring.systems import read_systems

    made = section(read_systems(exps), title)
    if out == Path("-"):
        click.echo(made)
    else:
        write_section(out, title, made)
        logger.info(f"wrote the section '{title}' into {out}")
