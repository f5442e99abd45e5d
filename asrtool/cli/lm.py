"""`asrtool lm`: language models."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asrtool.cli.options import (
    CONTEXT,
    COUNT,
    EPOCHS,
    PATH,
    POSITIVE,
    SEED,
    SHARE,
    Number,
    case_option,
    device_option,
    precision_option,
    refuse_options,
)
from asrtool.cli.text_output import print_text

if TYPE_CHECKING:
    from asrtool.lm.corpus import Corpus

MAX_COUNT = 2**31 - 1  # of occurrences, in --cutoffs
CASE = case_option()
TOKENIZER = click.option(
    "--tokenizer", type=PATH, help="Tokenizer file. The text becomes its units, and the model is over units, not words."
)


@click.group()
def lm() -> None:
    """Train, prune, measure and convert language models.

    An n-gram model is an ARPA file (.gz too), or compiled (.npz), which is read in seconds; it is used by `asrtool
    graph` and `asrtool decode`. A neural model is a file *.pt, and is used by `asrtool rescore`.

    TEXT is a file with a sentence a line (.gz too), or a manifest *.jsonl.gz, whose transcripts are used. Each sentence
    gets its marks here: <s> and </s> in the text are refused, and <unk>, in any case, is the unknown word. An existing
    OUT is replaced if it is a model of the same format.
    """


@lm.command()
@click.argument("text", type=PATH, nargs=-1, required=True)
@click.argument("out", type=PATH)
@click.option("--order", default=3, type=click.IntRange(1, 5), help="Number of words in the longest n-grams.")
@click.option(
    "--vocab",
    type=PATH,
    show_default="all words of TEXT",
    help="Word list or lexicon with the vocabulary; other words become <unk>.",
)
@click.option(
    "--top",
    type=COUNT,
    show_default="all words",
    help="Number of words to keep, the most frequent ones.",
)
@click.option(
    "--min-count",
    default=1,
    type=COUNT,
    help="Smallest number of occurrences of a word. Others are left out of the vocabulary.",
)
@click.option(
    "--cutoffs",
    default="0",
    help="Counts up to which n-grams are left out, by order, such as 0,0,1; the last one holds for all further orders.",
)
@click.option(
    "--prune",
    "threshold",
    type=POSITIVE,
    show_default="no pruning",
    help="Threshold for pruning the trained model, as --threshold of `asrtool lm prune`.",
)
@CASE
@TOKENIZER
def train(
    text: tuple[Path, ...],
    out: Path,
    order: int,
    vocab: Path | None,
    top: int | None,
    min_count: int,
    cutoffs: str,
    threshold: float | None,
    case: str,
    tokenizer: Path | None,
) -> None:
    """Train an n-gram model (interpolated modified Kneser-Ney).

    OUT is a file *.arpa, *.arpa.gz or *.npz (compiled).

    \b
    asrtool lm train text.txt.gz data/lang/3gram.arpa.gz --top 64000 --prune 1e-8
    asrtool lm train text.txt.gz data/lang/4gram.arpa.gz --order 4 --vocab data/lang/lexicon.txt --cutoffs 0,0,1
    asrtool lm train data/train.jsonl.gz data/lang/units.arpa --tokenizer data/lang/tokenizer.json --order 5
    """
    if vocab and (top or min_count > 1):
        raise click.UsageError("--vocab says which words there are; leave out --top and --min-count")
    cutoff_by_order = _parse_cutoffs(cutoffs)
    from asrtool.lm.corpus import limit_vocabulary, read_word_list
    from asrtool.lm.ngram_files import require_lm_output, write_ngrams
    from asrtool.lm.ngram_pruning import prune_ngrams
    from asrtool.lm.ngram_training import train_ngrams

    require_lm_output(out, [*text, *filter(None, (vocab, tokenizer))])
    vocabulary = read_word_list(vocab) if vocab else None
    corpus = limit_vocabulary(_read_corpus(text, case, tokenizer), vocabulary, top or 0, min_count)
    model = train_ngrams(corpus, order, cutoff_by_order)
    if threshold:
        model = prune_ngrams(model, threshold)
    write_ngrams(model, out)
    print_text(f"{out}: {model}")


@lm.command("train-neural")
@click.argument("text", type=PATH, nargs=-1, required=True)
@click.argument("out", type=PATH)
@click.option("--dev", type=PATH, help="Text whose perplexity is measured after each epoch and at the end.")
@click.option("--vocab-size", default=2000, type=click.IntRange(2, 1_000_000), help="Number of BPE units.")
@click.option("--dim", default=256, type=click.IntRange(2, 1 << 14), help="Width of the model.")
@click.option("--layers", default=6, type=click.IntRange(1, 1000), help="Number of Transformer blocks.")
@click.option("--heads", default=4, type=click.IntRange(1, 1000), help="Number of attention heads.")
@click.option(
    "--dropout", default=0.1, type=Number(0, 1, maximum_open=True), help="Dropout probability after each layer."
)
@click.option(
    "--context",
    default=0,
    type=CONTEXT,
    help="Number of units, of a sentence and the sentences before it, that the neural model sees at once; 0 is each "
    "sentence alone.",
)
@click.option("--epochs", default=2.0, type=EPOCHS, help="Number of passes over the data.")
@click.option(
    "--batch",
    default=4096,
    type=click.IntRange(1, MAX_COUNT),
    help="Number of units in a step over all processes, padding included.",
)
@click.option("--lr", default=2e-3, type=POSITIVE, help="Peak learning rate.")
@precision_option("auto")
@click.option(
    "--seed",
    default=1,
    type=SEED,
    help="Seed of the random numbers. Initial weights, the order of the text and dropout depend on it.",
)
@device_option()
@CASE
def train_neural(
    text, out, dev, vocab_size, dim, layers, heads, dropout, context, epochs, batch, lr, precision, seed, device, case
) -> None:
    """Train a Transformer language model over BPE units.

    OUT is a file *.pt with the model and its units.

    With --context, consecutive lines of TEXT must be consecutive sentences. The folder lm.training, next to an OUT
    lm.pt, has log.jsonl, TensorBoard files, and a checkpoint from which the same command resumes after an interruption.
    Under torchrun several processes share the work.

    \b
    asrtool lm train-neural text.txt.gz data/lang/lm.pt --dev data/dev.jsonl.gz --context 256
    torchrun --nproc-per-node 8 -m asrtool lm train-neural text.txt.gz data/lang/lm.pt --dim 512 --layers 12
    """
    if dim % (2 * heads):
        raise click.BadParameter(f"{dim} is not an even multiple of {heads} heads", param_hint="--dim")
    from asrtool.lm.neural_lm import require_neural_output
    from asrtool.lm.transformer_lm import TransformerLmConfig
    from asrtool.training.language_model import train_language_model_from_text
    from asrtool.training.lm_session import LmTrainingConfig

    require_neural_output(out, [*text, *([dev] if dev else [])])
    train_language_model_from_text(
        text=text,
        out=out,
        vocab_size=vocab_size,
        model=TransformerLmConfig(dim=dim, layers=layers, heads=heads, dropout=dropout, context=context),
        training=LmTrainingConfig(epochs=epochs, batch=batch, lr=lr, precision=precision, seed=seed),
        dev=dev,
        case=case,
        device=device,
    )


@lm.command()
@click.argument("model", type=PATH)
@click.argument("out", type=PATH)
@click.option(
    "--threshold",
    type=POSITIVE,
    help="Relative rise of the perplexity below which an n-gram is removed; give this or --size.",
)
@click.option(
    "--size",
    type=click.IntRange(min=1),
    help="Number of n-grams to keep, of all orders together; give this or --threshold.",
)
def prune(model: Path, out: Path, threshold: float | None, size: int | None) -> None:
    """Prune an n-gram model by relative entropy (Stolcke 1998).

    The n-grams whose removal raises the perplexity least are removed, as by SRILM's -prune.

    \b
    asrtool lm prune data/lang/4gram.arpa.gz data/lang/small.arpa.gz --threshold 1e-8
    asrtool lm prune data/lang/4gram.arpa.gz data/lang/small.arpa.gz --size 2000000
    """
    if (threshold is None) == (size is None):
        raise click.UsageError("give exactly one of --threshold or --size")
    from asrtool.lm.ngram_files import read_ngrams, require_lm_output, write_ngrams
    from asrtool.lm.ngram_pruning import prune_ngrams

    require_lm_output(out, [model])
    pruned = prune_ngrams(read_ngrams(model), threshold, size)
    write_ngrams(pruned, out)
    print_text(f"{out}: {pruned}")


@lm.command()
@click.argument("model", type=PATH)
@click.argument("text", type=PATH, nargs=-1, required=True)
@click.option("--ngram", type=PATH, help="N-gram model that a neural MODEL is interpolated with.")
@click.option("--weight", default=0.5, type=SHARE, help="Weight of the neural model in the interpolation.")
@click.option(
    "--context",
    type=CONTEXT,
    show_default="the context of its training",
    help="Number of units that the neural model sees at once.",
)
@CASE
@TOKENIZER
def perplexity(
    model: Path,
    text: tuple[Path, ...],
    ngram: Path | None,
    weight: float,
    context: int | None,
    case: str,
    tokenizer: Path | None,
) -> None:
    """Measure the perplexity and count the OOV words of a text.

    MODEL is an n-gram model, a binary of KenLM, or a neural model (*.pt). An ARPA file is scored by KenLM as well where
    the package kenlm is installed, and the two results are compared.

    \b
    asrtool lm perplexity data/lang/3gram.arpa.gz data/dev.jsonl.gz
    asrtool lm perplexity data/lang/lm.pt data/dev.jsonl.gz --ngram data/lang/4gram.npz
    """
    if model.suffix != ".pt":
        refuse_options(("ngram", "context", "weight"), f"a neural model (*.pt), and {model} is not one")
    else:
        refuse_options(("tokenizer",), f"n-gram models over units, and {model} has words, which it splits itself")
        if not ngram:
            refuse_options(("weight",), "the interpolation with a model of --ngram")
    from asrtool.lm.perplexity import measure_neural_perplexity, measure_perplexity

    corpus = _read_corpus(text, case, tokenizer)
    if model.suffix == ".pt":
        print_text(str(measure_neural_perplexity(model, corpus, ngram, weight, context)))
    else:
        print_text(str(measure_perplexity(model, corpus)))


@lm.command()
@click.argument("model", type=PATH)
@click.argument("out", type=PATH)
def convert(model: Path, out: Path) -> None:
    """Convert an n-gram model to the format of OUT's name.

    The formats are .npz (compiled), and .arpa or .arpa.gz (ARPA).

    \b
    asrtool lm convert data/lang/4gram.arpa.gz data/lang/4gram.npz
    """
    from asrtool.lm.ngram_files import convert_ngrams, require_lm_output

    require_lm_output(out, [model])
    ngrams = convert_ngrams(model, out)
    print_text(f"{out}: {ngrams}")


def _read_corpus(text: tuple[Path, ...], case: str, tokenizer: Path | None) -> "Corpus":
    from asrtool.lm.corpus import build_corpus, read_word_sequences
    from asrtool.text.tokenizer import load_tokenizer

    return build_corpus(read_word_sequences(text, case, load_tokenizer(tokenizer) if tokenizer else None))


def _parse_cutoffs(text: str) -> list[int]:
    parts = text.split(",")
    if not all(re.fullmatch("[0-9]{1,10}", part.strip()) and int(part) <= MAX_COUNT for part in parts):
        raise click.BadParameter(f"'{text}' is not a list of counts such as 0,0,1", param_hint="--cutoffs")
    return [int(part) for part in parts]
