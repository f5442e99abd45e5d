"""`asrtool tokenizer`."""

from pathlib import Path

import click

from asrtool.cli.options import PATH, refuse_options
from asrtool.cli.text_output import print_text

MAX_BPE = 1_000_000  # as many units as a tokenizer file may have (asrtool/text/tokenizer.py)
PHONES = ("phone", "biphone", "triphone")
PDF = "pdf"
TYPES = click.Choice(["bpe", "char", "word", *PHONES, PDF])


@click.command()
@click.argument("cuts", type=PATH, nargs=-1)
@click.argument("out", type=PATH)
@click.option("--type", "kind", type=TYPES, default="bpe", help="Type of the units.")
@click.option(
    "--vocab-size",
    default=500,
    type=click.IntRange(2, MAX_BPE),
    help="Number of units, blank included (--type bpe only).",
)
@click.option(
    "--lexicon", type=PATH, help="Lexicon file, with a line WORD UNIT UNIT for each pronunciation; needed for phones."
)
@click.option(
    "--silence",
    metavar="UNIT",
    help="Unit of silence. It is added, and graphs insert it between words; for phones only.",
)
@click.option("--kaldi-model", type=PATH, help="Model of a Kaldi system, final.mdl; needed for --type pdf.")
def tokenizer(
    cuts: tuple[Path, ...],
    out: Path,
    kind: str,
    vocab_size: int,
    lexicon: Path | None,
    silence: str | None,
    kaldi_model: Path | None,
) -> None:
    """Create the output units of a model from transcripts.

    Phones come from a lexicon, which must have all words of the transcripts. Of types biphone and triphone there is a
    unit for each phone after each other phone, and between each two, as is right for few phones; `asrtool tree` ties
    them. Of type pdf, units are the pdfs of a Kaldi system, for its alignments and its graph; CUTS are not given.

    OUT is a file *.json; an existing OUT is replaced if it is a tokenizer. Transcripts with marks such as <unk> or <s>,
    which no unit can stand for, are refused with their counts.

    \b
    asrtool tokenizer data/train.jsonl.gz data/lang/tokenizer.json --type bpe --vocab-size 500
    asrtool tokenizer data/train.jsonl.gz data/lang/tokenizer.json --type word     # tiny vocabularies
    asrtool tokenizer data/train.jsonl.gz data/lang/tokenizer.json --type phone --lexicon data/lang/lexicon.txt
    asrtool tokenizer data/lang/tokenizer.json --type pdf --kaldi-model exp/tri3b/final.mdl
    """
    if (kind in PHONES) != (lexicon is not None) or (silence and kind not in PHONES):
        types = f"--type {', '.join(PHONES[:-1])} and {PHONES[-1]}"
        raise click.UsageError(f"{types} need --lexicon FILE; --lexicon and --silence are for these types only")
    if (kind == PDF) != (kaldi_model is not None) or (kind == PDF) == bool(cuts):
        raise click.UsageError("--type pdf needs --kaldi-model FILE and no CUTS; the other types need CUTS alone")
    if kind != "bpe":
        refuse_options(("vocab_size",), "--type bpe")
    from asrtool.data.manifest import transcripts
    from asrtool.files import require_output, require_same_kind
    from asrtool.text.kaldi_model import read_transition_pdfs
    from asrtool.text.lexicon import read_lexicon
    from asrtool.text.pdf_tokenizer import PdfTokenizer
    from asrtool.text.tokenizer import Tokenizer, load_tokenizer, save_tokenizer
    from asrtool.text.tokenizer_training import phone_tokenizer, train_tokenizer, untied_tokenizer

    require_output(out, (".json",), [*cuts, *filter(None, (lexicon, kaldi_model))])
    require_same_kind(out, "a tokenizer", load_tokenizer)
    units: Tokenizer
    if kaldi_model:
        units = PdfTokenizer(read_transition_pdfs(kaldi_model))
    elif lexicon:
        phones = phone_tokenizer(read_lexicon(lexicon), transcripts(cuts), silence)
        units = phones if kind == "phone" else untied_tokenizer(kind, phones)
    else:
        units = train_tokenizer(kind, transcripts(cuts), vocab_size)
    save_tokenizer(units, out)
    print_text(f"{out}: {units.size} units ({kind})")
