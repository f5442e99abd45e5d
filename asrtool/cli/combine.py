"""`asrtool combine`."""

import click

from asrtool.cli.options import PATH, Number, overwrite_out_option
from asrtool.cli.text_output import print_text


@click.command()
@click.argument("folders", type=PATH, nargs=-1, required=True)
@click.option("--out", type=PATH, required=True, help="Result folder to write.")
@click.option(
    "--system-weight",
    "weights",
    type=Number(0, 1e6),
    multiple=True,
    show_default="equal weights",
    help="Weight of a system; give one for each folder, in order.",
)
@click.option(
    "--scale",
    default=1.0,
    type=Number(0, 1000, minimum_open=True),
    help="Factor of the scores in n-best lists. A smaller one makes the hypotheses more alike in probability.",
)
@overwrite_out_option
def combine(folders, out, weights, scale, overwrite) -> None:
    """Combine the results of several systems (ROVER).

    FOLDERS are results of `asrtool decode` or `asrtool rescore` for the same utterances. All hypotheses of an utterance
    are aligned with each other, word by word, and in each place the word with the highest probability wins; of
    words with the same probability, the one with the highest confidence. Results with n-best lists (`--nbest 100`)
    count with all their hypotheses. Systems that make different errors gain most.

    \b
    asrtool combine exp/a/decode/test/graph exp/b/decode/test/graph --out exp/combined/test
    asrtool combine exp/a/decode/test/mbr exp/b/decode/test/mbr --out exp/combined/weighted \\
        --system-weight 2 --system-weight 1
    asrtool score exp/combined/test --against exp/a/decode/test/graph
    """
    from asrtool.decoding.combination import combine_folders

    facts = combine_folders(folders, out, weights, scale, overwrite)
    print_text(f"{out}: {facts['utterances']} utterances of {len(folders)} systems")
