"""`asrtool tree`."""

import click

from asrtool.cli.options import COUNT, PATH, model_options, refuse_options
from asrtool.cli.text_output import print_text


@click.command()
@click.argument("cuts", type=PATH)
@click.argument("out", type=PATH)
@click.option(
    "--tokenizer", required=True, type=PATH, help="Tokenizer file of type phone, whose phones CUTS are aligned with."
)
@click.option(
    "--units",
    type=click.Choice(["biphone", "triphone"]),
    default="biphone",
    help="Context of a phone in the new units.",
)
@click.option(
    "--leaves",
    type=click.IntRange(1, 1_000_000),
    default=1000,
    help="Largest number of leaves of all trees, which are the new units.",
)
@click.option(
    "--min-frames",
    type=COUNT,
    default=300,
    help="Smallest number of frames in a leaf: of 10 ms with --statistics features, of the model with log-probs.",
)
@click.option(
    "--statistics",
    type=click.Choice(["features", "log-probs"]),
    default="features",
    help="Values whose Gaussians decide the splits: cepstra of the features, or log-probs of the model.",
)
@click.option("--model", type=PATH, help="Experiment folder of the model for --statistics log-probs.")
@model_options
def tree(
    cuts,
    out,
    tokenizer,
    units,
    leaves,
    min_frames,
    statistics,
    model,
    checkpoint,
    max_minutes,
    batch_seconds,
    workers,
    device,
    precision,
    threads,
) -> None:
    """Grow decision trees that tie phones in context to units.

    CUTS is a manifest that a phone system has aligned (`asrtool align`). OUT is a tokenizer *.json of the new units;
    an existing OUT is replaced if it is a tokenizer. A biphone depends on the phone before it, a triphone on those
    before and after it, across words. Silence is not split. For units that are not tied, see `asrtool tokenizer`.

    \b
    asrtool tree data/train_aligned.jsonl.gz data/lang/biphones.json --tokenizer data/lang/phones.json --leaves 1000
    asrtool tree data/train_aligned.jsonl.gz data/lang/triphones.json --tokenizer data/lang/phones.json \\
        --units triphone --statistics log-probs --model exp/phones
    """
    if (statistics == "log-probs") != (model is not None):
        raise click.UsageError("--statistics log-probs needs --model EXP, and --model is for log-probs only")
    if statistics == "features":
        refuse_options(("checkpoint", "batch_seconds", "workers", "precision"), "--statistics log-probs")
    import torch

    from asrtool.decoding.context_tree import grow_units
    from asrtool.experiment import open_experiment

    if threads:
        torch.set_num_threads(threads)
    experiment = open_experiment(model, checkpoint, device, precision) if model else None
    summary = grow_units(
        cuts, out, tokenizer, units, leaves, min_frames, experiment, batch_seconds, workers, max_minutes
    )
    print_text(f"{out}: {summary}")
