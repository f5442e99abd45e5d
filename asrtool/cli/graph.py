"""`asrtool graph`: compiles a decoding graph from units, a lexicon and a language model."""

import click

from asrtool.cli.options import PATH, Number
from asrtool.cli.text_output import print_text
from asrtool.graphs import KINDS
from asrtool.graphs.topology import TOPOLOGIES


@click.command()
@click.argument("out", type=PATH)
@click.option(
    "--from",
    "source",
    type=PATH,
    help="Pack or folder of `asrtool graph` to start from, whose tokenizer, lexicon, n-gram model and other "
    "settings are taken where no option is given.",
)
@click.option(
    "--tokenizer",
    type=PATH,
    show_default="the tokenizer in the pack of --from",
    help="Tokenizer file with the units of the acoustic model.",
)
@click.option(
    "--lm",
    type=PATH,
    help="N-gram model: plain ARPA, .gz or compiled (.npz); needed for all kinds with a G.",
)
@click.option(
    "--lexicon",
    type=PATH,
    show_default="the tokenizer's pronunciations",
    help="Lexicon file, with a line WORD UNIT UNIT for each pronunciation.",
)
@click.option(
    "--add-words",
    type=PATH,
    help="File of words that the lexicon and the n-gram model get as well, as below.",
)
@click.option(
    "--topology",
    type=click.Choice(TOPOLOGIES),
    show_default="ctc",
    help="Topology H: how units are aligned to frames.",
)
@click.option(
    "--kind",
    "kinds",
    type=click.Choice(KINDS),
    multiple=True,
    show_default="HLG",
    help="Kind of graph to store; may be repeated. The first one is decoded with.",
)
@click.option(
    "--silence",
    metavar="UNIT",
    show_default="the silence of a phone tokenizer",
    help="Unit of silence. It is optional between words; '' is none.",
)
@click.option(
    "--silence-prob",
    "silence_probability",
    show_default="0.5",
    type=Number(0, 1, minimum_open=True, maximum_open=True),
    help="Probability of silence at each word boundary.",
)
@click.option(
    "--kaldi-graph",
    type=PATH,
    help="Folder of Kaldi's mkgraph.sh. Its HCLG.fst becomes the graph, for a tokenizer of type pdf.",
)
def graph(out, source, kaldi_graph, **options) -> None:
    """Compile a decoding graph.

    The folder OUT gets OpenFst files, words.txt, units.txt, lexicon.txt and graph.json.

    \b
    asrtool graph exp/lang/graph --tokenizer data/lang/tokenizer.json --lm data/lang/3gram.arpa
    asrtool graph exp/lang/graph --tokenizer data/phones.json --lexicon data/lexicon.txt --lm data/3gram.arpa.gz
    asrtool graph exp/lang/graph --tokenizer data/phones.json --lm data/3gram.arpa --kind HLG --kind G
    asrtool graph exp/lang/names --tokenizer data/phones.json --lm data/3gram.arpa --add-words names.txt
    asrtool graph exp/lang/names --from packs/english --add-words names.txt
    asrtool graph exp/lang/hclg --tokenizer data/pdfs.json --kaldi-graph exp/tri3b/graph

    H is the topology (ctc; modified: equal units need no blank between them; hmm: two states for each unit, for models
    with two outputs for each unit), L is the lexicon and G the language model.

    A line of --add-words is a word; then, if known, like=WORD (a word that it takes the n-grams of) or probability=P
    (1e-4 without both; if there are more than 100 such words, they share 0.01); then, if known, its pronunciation in
    units. Other words get the tokenizer's pronunciation, or one that is predicted from the lexicon. The n-gram model
    with the words is OUT/lm.arpa.gz, for `asrtool decode --graph-lm`.

    \b
    KOWALCZYK like=KOWALSKI K OW AA L CH IH K

    OUT must be new, empty, or a folder of `asrtool graph`, whose graph is replaced when the new one is complete.
    """
    from asrtool.errors import UserError
    from asrtool.graphs.build import build_graph, build_graph_like
    from asrtool.graphs.kaldi_graph import build_kaldi_graph

    given = {name: value for name, value in options.items() if value not in (None, ())}
    if kaldi_graph:
        if source or given.keys() != {"tokenizer"}:
            raise UserError("--kaldi-graph needs --tokenizer, and no other option: Kaldi's graph has all the rest")
        facts = build_kaldi_graph(out, kaldi_graph, given["tokenizer"])
    elif source:
        facts = build_graph_like(source, out, **given)
    elif "tokenizer" in given:
        facts = build_graph(out, **given)
    else:
        raise UserError("give --tokenizer FILE, or --from with a pack")
    for kind, size in facts["sizes"].items():
        print_text(f"{out / kind}.fst: {_summary(size)}")
    added = f" ({facts['added_words']:,} added)" if facts["added_words"] else ""
    print_text(f"{out}: {facts['words']:,} words{added}, {facts['seconds']} s, peak memory {facts['peak_mb']:,} MB")


def _summary(size: dict) -> str:
    properties = ", ".join(name.replace("_", " ") for name, value in size.items() if value is True)
    return f"{size['states']:,} states, {size['arcs']:,} arcs, {size['bytes']:,} bytes; {properties}"
