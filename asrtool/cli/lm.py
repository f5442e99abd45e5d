"""`asrtool lm`: language models."""

import re

import click

from asrtool.cli.options import PATH, POSITIVE, SEED, SHARE, Number, case_option, device_option

LARGEST_COUNT = 2**31 - 1  # of occurrences, in --cutoffs
LARGEST_CONTEXT = 1 << 20  # units; attention over as many is far beyond any memory
CASE = case_option("Case that the text is changed to.")
CONTEXT = click.option(
    "--context",
    type=click.IntRange(0, LARGEST_CONTEXT),
    help="Units that a neural model sees at once [default: as it was trained]",
)
UNITS = click.option("--tokenizer", type=PATH, help="Take the text as units of this tokenizer instead of words.")


@click.group()
def lm() -> None:
    """Train, prune, measure and convert language models.

    An n-gram model is an ARPA file (.gz too), or compiled (.npz), which is read in seconds: for `asrtool decode
    --rescore`. A neural model is a file *.pt, for `asrtool rescore`.
    TEXT is a file with a sentence a line (.gz too), or a manifest *.jsonl.gz, whose transcripts are taken. Sentences
    are marked here: <s> and </s> in the text are refused, and <unk>, in any case, is the unknown word. A file OUT that
    exists is replaced if it holds a model of the same form.
    """


@lm.command()
@click.argument("text", type=PATH, nargs=-1, required=True)
@click.argument("out", type=PATH)
@click.option("--order", default=3, type=click.IntRange(1, 5), help="Words in the longest n-grams.")
@click.option("--vocab", type=PATH, help="A word list or a lexicon; other words become <unk>.")
@click.option("--top", default=0, type=click.IntRange(min=0), help="Only the so many most frequent words; 0: all.")
@click.option("--min-count", default=1, type=click.IntRange(min=1), help="Only words seen at least so often.")
@click.option("--cutoffs", default="0", help="Leave out n-grams seen at most so often, by order, such as 0,0,1.")
@click.option("--prune", "threshold", type=POSITIVE, help="As --threshold of `asrtool lm prune`, at once.")
@CASE
@UNITS
def train(text, out, order, vocab, top, min_count, cutoffs, threshold, case, tokenizer) -> None:
    """Train a model with interpolated modified Kneser-Ney smoothing and write it to OUT, *.arpa, *.arpa.gz or *.npz.

    \b
    asrtool lm train text.txt.gz data/lang/3gram.arpa.gz --top 64000 --prune 1e-8
    asrtool lm train text.txt.gz data/lang/4gram.arpa.gz --order 4 --vocab data/lang/lexicon.txt --cutoffs 0,0,1
    asrtool lm train data/train.jsonl.gz data/lang/units.arpa --tokenizer data/lang/tokenizer.json --order 5
    """
    if vocab and (top or min_count > 1):
        raise click.UsageError("--vocab says which words there are; leave out --top and --min-count")
    limits = _cutoffs(cutoffs)
    from asrtool.lm.corpus import limit_vocabulary, read_word_list
    from asrtool.lm.ngram_files import require_lm_output, write_ngrams
    from asrtool.lm.ngram_pruning import prune_ngrams
    from asrtool.lm.ngram_training import train_ngrams

    require_lm_output(out, [*text, *filter(None, (vocab, tokenizer))])
    given = read_word_list(vocab) if vocab else None
    corpus = limit_vocabulary(_corpus(text, case, tokenizer), given, top, min_count)
    model = train_ngrams(corpus, order, limits)
    if threshold:
        model = prune_ngrams(model, threshold)
    write_ngrams(model, out)
    click.echo(f"{out}: {model}")


@lm.command("train-neural")
@click.argument("text", type=PATH, nargs=-1, required=True)
@click.argument("out", type=PATH)
@click.option("--dev", type=PATH, help="Text whose perplexity is measured after each epoch, and at the end.")
@click.option("--vocab-size", default=2000, type=click.IntRange(2, 1_000_000), help="Number of BPE units.")
@click.option("--dim", default=256, type=click.IntRange(2, 1 << 14), help="Width of the model.")
@click.option("--layers", default=6, type=click.IntRange(1, 1000), help="Blocks of the Transformer.")
@click.option("--heads", default=4, type=click.IntRange(1, 1000), help="Heads of the attention.")
@click.option("--dropout", default=0.1, type=Number(0, 1, maximum_open=True), help="Dropout of what each layer adds.")
@click.option(
    "--context",
    default=0,
    type=click.IntRange(0, LARGEST_CONTEXT),
    help="Units seen at once, of a sentence and of those before it; 0: of each sentence alone.",
)
@click.option("--epochs", default=2.0, type=Number(0, 1e6, minimum_open=True), help="How often to go through the text.")
@click.option("--batch", default=4096, type=click.IntRange(1, LARGEST_COUNT), help="Units in a step.")
@click.option("--lr", default=2e-3, type=POSITIVE, help="Highest learning rate.")
@click.option(
    "--precision",
    default="auto",
    type=click.Choice(["fp32", "bf16", "auto"]),
    help="Number format of the products; auto: bf16 where that is fast.",
)
@click.option("--seed", default=1, type=SEED, help="Seed of the weights, the order and the dropout.")
@device_option()
@CASE
def train_neural(text, out, dev, vocab_size, dim, layers, heads, dropout, context, device, case, **plan) -> None:
    """Train a Transformer language model over BPE units, and write it with them to OUT, a file *.pt.

    With --context the lines of TEXT are to follow one another as they were written or said. The same command goes on
    where it was interrupted; under torchrun several processes share the work.

    \b
    asrtool lm train-neural text.txt.gz data/lang/lm.pt --dev data/dev.jsonl.gz --context 256
    torchrun --nproc-per-node 8 -m asrtool lm train-neural text.txt.gz data/lang/lm.pt --dim 512 --layers 12
    """
    if dim % (2 * heads):
        raise click.BadParameter(f"{dim} is not an even multiple of {heads} heads", param_hint="--dim")
    from asrtool.lm.neural_lm import require_neural_output
    from asrtool.lm.transformer_lm import TransformerLmConfig
    from asrtool.training.language_model import Plan, train_from_text

    require_neural_output(out, [*text, *([dev] if dev else [])])
    train_from_text(
        text,
        out,
        vocab_size,
        TransformerLmConfig(dim, layers, heads, dropout, context),
        Plan(**plan),
        dev,
        case,
        device,
    )


@lm.command()
@click.argument("model", type=PATH)
@click.argument("out", type=PATH)
@click.option("--threshold", type=POSITIVE, help="Least relative rise of perplexity that keeps an n-gram.")
@click.option("--size", type=click.IntRange(min=1), help="Number of n-grams to keep, of all orders together.")
def prune(model, out, threshold, size) -> None:
    """Leave out the n-grams whose loss raises the perplexity least (Stolcke 1998, as SRILM's -prune).

    \b
    asrtool lm prune data/lang/4gram.arpa.gz data/lang/small.arpa.gz --threshold 1e-8
    asrtool lm prune data/lang/4gram.arpa.gz data/lang/small.arpa.gz --size 2000000
    """
    if (threshold is None) == (size is None):
        raise click.UsageError("give --threshold or --size, one of them")
    from asrtool.lm.ngram_files import read_ngrams, require_lm_output, write_ngrams
    from asrtool.lm.ngram_pruning import prune_ngrams

    require_lm_output(out, [model])
    smaller = prune_ngrams(read_ngrams(model), threshold, size)
    write_ngrams(smaller, out)
    click.echo(f"{out}: {smaller}")


@lm.command()
@click.argument("model", type=PATH)
@click.argument("text", type=PATH, nargs=-1, required=True)
@click.option("--ngram", type=PATH, help="N-gram model that a neural MODEL is mixed with.")
@click.option("--weight", default=0.5, type=SHARE, help="Weight of the neural model in the mixture.")
@CONTEXT
@CASE
@UNITS
def perplexity(model, text, ngram, weight, context, case, tokenizer) -> None:
    """Perplexity and unknown (OOV) words of a text; beside KenLM's reading of an ARPA file where `kenlm` is installed.

    MODEL may be a binary of KenLM or a neural model (*.pt), too.

    \b
    asrtool lm perplexity data/lang/3gram.arpa.gz data/dev.jsonl.gz
    asrtool lm perplexity data/lang/lm.pt data/dev.jsonl.gz --ngram data/lang/4gram.npz
    """
    from asrtool.lm.perplexity import measure_neural_perplexity, measure_perplexity

    corpus = _corpus(text, case, tokenizer)
    if model.suffix == ".pt":
        click.echo(measure_neural_perplexity(model, corpus, ngram, weight, context))
    elif ngram or context is not None:
        option = "--ngram" if ngram else "--context"
        raise click.UsageError(f"{option} is for a neural model (*.pt), and {model} is none")
    else:
        click.echo(measure_perplexity(model, corpus))


@lm.command()
@click.argument("model", type=PATH)
@click.argument("out", type=PATH)
def convert(model, out) -> None:
    """Write a model in the form that OUT ends in: .npz compiled, .arpa or .arpa.gz as ARPA.

    \b
    asrtool lm convert data/lang/4gram.arpa.gz data/lang/4gram.npz
    """
    from asrtool.lm.ngram_files import read_ngrams, require_lm_output, write_ngrams

    require_lm_output(out, [model])
    read = read_ngrams(model)
    write_ngrams(read, out)
    click.echo(f"{out}: {read}")


def _corpus(text, case, tokenizer):
    from asrtool.lm.corpus import build_corpus, read_word_sequences
    from asrtool.text.tokenizer import load_tokenizer

    return build_corpus(read_word_sequences(text, case, load_tokenizer(tokenizer) if tokenizer else None))


def _cutoffs(text: str) -> list[int]:
    parts = text.split(",")
    if not all(re.fullmatch("[0-9]{1,10}", part.strip()) and int(part) <= LARGEST_COUNT for part in parts):
        raise click.BadParameter(f"'{text}' is not a list of counts such as 0,0,1", param_hint="--cutoffs")
    return [int(part) for part in parts]
