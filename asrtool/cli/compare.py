"""`asrtool compare`."""

import click

from asrtool.cli.json_output import json_option, print_json
from asrtool.cli.options import PATH
from asrtool.cli.text_output import print_text


@click.command()
@click.argument("systems", type=PATH, nargs=-1, required=True)
@click.option(
    "--cuts",
    type=PATH,
    multiple=True,
    show_default="the manifest that was decoded",
    help="Manifest of cuts. Lengths and audio of the utterances come from it; repeatable.",
)
@click.option("--html", type=PATH, show_default="none", help="HTML page to write.")
@json_option
def compare(systems, cuts, html, as_json) -> None:
    """Compare two or more systems on the same utterances.

    SYSTEMS are experiments or result folders of one set (EXP/decode/SET/METHOD). Of experiments, all common sets are
    compared, each by the method with the lowest mean error rate among those that all systems have. The first system is
    the baseline. For each other one the command prints the difference of the error rate with its 95 % interval by
    paired bootstrap, the number of utterances with fewer and with more errors, the words that only one of the two
    recognised, rates by speaker and by length, and the largest gains and losses.

    With --html the same is written as a page with the audio of these utterances, and only the totals are printed. The
    page is one file that loads nothing from elsewhere.

    \b
    asrtool compare exp/blstm exp/transformer
    asrtool compare exp/x/decode/test/graph exp/x/decode/test/rescored exp/x/decode/test/neural
    asrtool compare exp/blstm exp/transformer --html compare.html
    """
    if html and as_json:
        raise click.UsageError("--html writes a page and --json prints the values; give one of them")
    from asrtool.pages.comparison import compare_systems, write_comparison
    from asrtool.scoring.comparison_text import comparison_dict, comparison_text

    if html:
        print_text(write_comparison(systems, html, cuts))
        return
    comparisons = compare_systems(systems, cuts)
    if as_json:
        print_json({"comparisons": [comparison_dict(comparison) for comparison in comparisons]})
    else:
        print_text("\n\n".join(map(comparison_text, comparisons)))
