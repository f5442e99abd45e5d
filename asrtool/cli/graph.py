"""`asrtool graph`: compiles a decoding graph from units, a lexicon and a language model."""

import click

from asrtool.cli.options import PATH, Number
from asrtool.graphs import KINDS
from asrtool.graphs.topology import TOPOLOGIES


@click.command()
@click.argument("out", type=PATH)
@click.option("--tokenizer", required=True, type=PATH, help="Tokenizer of the acoustic model.")
@click.option("--lm", type=PATH, metavar="ARPA", help="N-gram model, plain or .gz; needed for all kinds with a G.")
@click.option(
    "--lexicon",
    type=PATH,
    show_default="the tokenizer's pronunciations",
    help="Lexicon with lines WORD UNIT ...",
)
@click.option(
    "--topology",
    type=click.Choice(TOPOLOGIES),
    default="ctc",
    help="Topology H: how units are aligned to frames.",
)
@click.option(
    "--kind",
    "kinds",
    type=click.Choice(KINDS),
    multiple=True,
    default=["HLG"],
    help="Kind of graph to store; may be repeated. The first one is decoded with.",
)
@click.option(
    "--silence",
    metavar="UNIT",
    show_default="the silence of a phone tokenizer",
    help="Unit of optional silence between words; '' is none.",
)
@click.option(
    "--silence-prob",
    "silence_probability",
    default=0.5,
    type=Number(0, 1, minimum_open=True, maximum_open=True),
    help="Probability of silence at each word boundary.",
)
def graph(out, **options) -> None:
    """Compile a decoding graph.

    The folder OUT gets OpenFst files, words.txt, units.txt and graph.json.

    \b
    asrtool graph exp/lang/graph --tokenizer data/lang/tokenizer.json --lm data/lang/3gram.arpa
    asrtool graph exp/lang/graph --tokenizer data/phones.json --lexicon data/lexicon.txt --lm data/3gram.arpa.gz
    asrtool graph exp/lang/graph --tokenizer data/phones.json --lm data/3gram.arpa --kind HLG --kind G

    H is the topology (ctc; modified: equal units need no blank between them; hmm: two states for each unit, for models
    with two outputs for each unit), L is the lexicon and G the language model.

    OUT must be new, empty, or a folder of `asrtool graph`, whose graph is replaced when the new one is complete.
    """
    from asrtool.graphs.build import build_graph

    facts = build_graph(out, **options)
    for kind, size in facts["sizes"].items():
        click.echo(f"{out / kind}.fst: {_summary(size)}")
    click.echo(f"{out}: {facts['words']:,} words, {facts['seconds']} s, peak memory {facts['peak_mb']:,} MB")


def _summary(size: dict) -> str:
    properties = ", ".join(name.replace("_", " ") for name, value in size.items() if value is True)
    return f"{size['states']:,} states, {size['arcs']:,} arcs, {size['bytes']:,} bytes; {properties}"
