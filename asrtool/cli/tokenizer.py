"""`asrtool tokenizer`."""

import click

from asrtool.cli.options import PATH


@click.command()
@click.argument("cuts", type=PATH, nargs=-1, required=True)
@click.argument("out", type=PATH)
@click.option("--type", "kind", type=click.Choice(["bpe", "char", "phone", "word"]), default="bpe", help="A unit.")
@click.option("--vocab-size", default=500, type=click.IntRange(min=2), help="Units of bpe, blank included.")
@click.option("--lexicon", type=PATH, help="The pronunciations, for phone.")
@click.option("--silence", help="Name of a unit of silence, which graphs put between words; phone alone has one.")
def tokenizer(cuts, out, kind, vocab_size, lexicon, silence) -> None:
    """Make the units from the transcripts of one or more manifests; phones from a lexicon, for the transcripts.

    \b
    asrtool tokenizer data/train.jsonl.gz data/lang/tokenizer.json --type bpe --vocab-size 500
    asrtool tokenizer data/train.jsonl.gz data/lang/tokenizer.json --type word     # tiny vocabularies
    asrtool tokenizer data/train.jsonl.gz data/lang/tokenizer.json --type phone --lexicon data/lang/lexicon.txt
    """
    if (kind == "phone") != (lexicon is not None) or (silence and kind != "phone"):
        raise click.UsageError("--type phone needs --lexicon, and may have --silence; other types have neither")
    from asrtool.data.manifest import transcripts
    from asrtool.text.lexicon import read_lexicon
    from asrtool.text.tokenizer import phone_tokenizer, save_tokenizer, train_tokenizer

    if kind == "phone":
        made = phone_tokenizer(read_lexicon(lexicon), transcripts(cuts), silence)
    else:
        made = train_tokenizer(kind, transcripts(cuts), vocab_size)
    save_tokenizer(made, out)
    click.echo(f"{out}: {made.size} units ({kind})")
