"""`asrtool graph`: units, lexicon and language model to what graph decoders search."""

import click

from asrtool.cli.options import PATH, Number
from asrtool.graphs import KINDS
from asrtool.graphs.topology import TOPOLOGIES


@click.command()
@click.argument("out", type=PATH)
@click.option("--tokenizer", required=True, type=PATH, help="Tokenizer of the acoustic model.")
@click.option("--lm", type=PATH, metavar="ARPA", help="N-gram model, plain or .gz; needed for all kinds with a G.")
@click.option("--lexicon", type=PATH, help="WORD UNIT UNIT ... a line; by default the tokenizer spells the LM's words.")
@click.option(
    "--topology",
    type=click.Choice(TOPOLOGIES),
    default="ctc",
    help="Topology of the units in frames.",
)
@click.option(
    "--kind",
    "kinds",
    type=click.Choice(KINDS),
    multiple=True,
    default=["HLG"],
    help="Graph to store; may be repeated.",
)
@click.option(
    "--silence",
    metavar="UNIT",
    help="Unit that may stand between words; by default the silence of a phone tokenizer. '' is none.",
)
@click.option(
    "--silence-prob",
    "silence_probability",
    default=0.5,
    type=Number(0, 1, minimum_open=True, maximum_open=True),
    help="Probability of silence at each place where it may be.",
)
def graph(out, **options) -> None:
    """Compile a decoding graph into the folder OUT: OpenFst files, words.txt, units.txt and graph.json.

    \b
    asrtool graph exp/lang/graph --tokenizer data/lang/tokenizer.json --lm data/lang/3gram.arpa
    asrtool graph exp/lang/graph --tokenizer data/phones.json --lexicon data/lexicon.txt --lm data/3gram.arpa.gz
    asrtool graph exp/lang/graph --tokenizer data/phones.json --lm data/3gram.arpa --kind HLG --kind G

    H is the topology (ctc; modified: equal units need no blank between them; hmm: two states a unit, for models with
    two outputs a unit), L the lexicon, G the LM. Several kinds are stored beside each other; the first is decoded with.

    OUT must be new, empty, or a folder of `asrtool graph`, whose graph is replaced when the new one is complete.
    """
    from asrtool.graphs.build import build_graph

    facts = build_graph(out, **options)
    for kind, size in facts["sizes"].items():
        click.echo(f"{out / kind}.fst: {_summary(size)}")
    click.echo(f"{out}: {facts['words']:,} words, {facts['seconds']} s, peak memory {facts['peak_mb']:,} MB")


def _summary(size: dict) -> str:
    holds = ", ".join(name.replace("_", " ") for name, value in size.items() if value is True)
    return f"{size['states']:,} states, {size['arcs']:,} arcs, {size['bytes']:,} bytes; {holds}"
