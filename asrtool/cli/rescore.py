"""`asrtool rescore`."""

import click

from asrtool.cli.options import CONTEXT, PATH, SHARE, device_option, overwrite_out_option, refuse_options
from asrtool.cli.text_output import print_text


@click.command()
@click.argument("folder", type=PATH)
@click.argument("out", type=PATH)
@click.option("--lm", "neural", type=PATH, help="Neural language model of `asrtool lm train-neural`.")
@click.option(
    "--ngram", type=PATH, help="N-gram model with which `asrtool decode --rescore` wrote FOLDER; needed with --lm."
)
@click.option("--weight", default=0.5, type=SHARE, help="Weight of the neural model in the interpolation.")
@click.option(
    "--context",
    type=CONTEXT,
    show_default="the context of its training",
    help="Number of units that the neural model sees at once, at most the context of its training.",
)
@click.option("--mbr", is_flag=True, help="Choose by minimum Bayes risk: the fewest expected word errors.")
@overwrite_out_option
@device_option()
def rescore(folder, out, neural, ngram, mbr, overwrite, **options) -> None:
    """Rescore n-best lists by a neural LM or minimum Bayes risk.

    The neural language model is interpolated with the n-gram model that `asrtool decode --rescore` used. One with a
    context reads an utterance after the best hypotheses of the same speaker's earlier utterances. --mbr takes the
    scores as log-probs, and chooses the hypothesis with the fewest expected word errors; without it the highest score
    is chosen.

    \b
    asrtool decode exp/transformer data/test.jsonl.gz --method graph --graph data/lang/graph \\
        --rescore data/lang/4gram.npz --graph-lm data/lang/3gram.arpa --nbest 100
    asrtool rescore exp/transformer/decode/test/rescored exp/transformer/decode/test/neural \\
        --lm data/lang/lm.pt --ngram data/lang/4gram.npz --mbr
    asrtool rescore exp/transformer/decode/test/rescored exp/transformer/decode/test/mbr --mbr
    """
    if (neural is None) != (ngram is None):
        raise click.UsageError("--lm and --ngram go together: give both or none")
    if neural is None and not mbr:
        raise click.UsageError("give --lm and --ngram, or --mbr, or both")
    if neural is None:
        refuse_options(("weight", "context"), "a neural model, of --lm")
    from asrtool.decoding.rescoring import LmMixtureFiles, rescore_folder

    files = LmMixtureFiles(neural, ngram, **options) if neural else None
    facts = rescore_folder(folder, out, files, mbr, overwrite)
    seconds, device = facts["rescoring_seconds"], facts["rescoring_device"]
    print_text(f"{out}: {facts.get('utterances', '')} utterances, {seconds:.1f} s on {device}")
