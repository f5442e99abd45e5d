"""`asrtool tokenizer`."""

import click

from asrtool.cli.options import PATH

MAX_BPE = 1_000_000  # as many as a tokenizer file may hold (asrtool/text/tokenizer.py)


@click.command()
@click.argument("cuts", type=PATH, nargs=-1, required=True)
@click.argument("out", type=PATH)
@click.option(
    "--type", "kind", type=click.Choice(["bpe", "char", "phone", "word"]), default="bpe", help="What a unit is."
)
@click.option(
    "--vocab-size", default=500, type=click.IntRange(2, MAX_BPE), help="Number of units of bpe, blank included."
)
@click.option("--lexicon", type=PATH, help="Lexicon file with the pronunciations, for phone.")
@click.option("--silence", help="Name of the silence unit, which graphs put between words; only phone has one.")
def tokenizer(cuts, out, kind, vocab_size, lexicon, silence) -> None:
    """Make the units from the transcripts of one or more manifests; phones from a lexicon, for the transcripts.

    OUT is a file *.json; one that is there already is replaced if it is a tokenizer. Transcripts with marks such as
    <unk> or <s>, which no unit can stand for, are refused with their counts.

    \b
    asrtool tokenizer data/train.jsonl.gz data/lang/tokenizer.json --type bpe --vocab-size 500
    asrtool tokenizer data/train.jsonl.gz data/lang/tokenizer.json --type word     # tiny vocabularies
    asrtool tokenizer data/train.jsonl.gz data/lang/tokenizer.json --type phone --lexicon data/lang/lexicon.txt
    """
    if (kind == "phone") != (lexicon is not None) or (silence and kind != "phone"):
        raise click.UsageError("--type phone needs --lexicon, and may have --silence; other types have neither")
    from asrtool.data.manifest import transcripts
    from asrtool.files import require_output, require_same_kind
    from asrtool.text.lexicon import read_lexicon
    from asrtool.text.tokenizer import load_tokenizer, phone_tokenizer, save_tokenizer, train_tokenizer

    require_output(out, (".json",), [*cuts, *([lexicon] if lexicon else [])])
    require_same_kind(out, "a tokenizer", load_tokenizer)
    if kind == "phone":
        made = phone_tokenizer(read_lexicon(lexicon), transcripts(cuts), silence)
    else:
        made = train_tokenizer(kind, transcripts(cuts), vocab_size)
    save_tokenizer(made, out)
    click.echo(f"{out}: {made.size} units ({kind})")
