"""`asrtool clean`."""

import click

from asrtool.cli.options import PATH, POSITIVE, SHARE, model_options
from asrtool.cli.search_options import graph_decoding_weights_option, graph_option
from asrtool.cli.text_output import print_text


@click.command()
@click.argument("cuts", type=PATH)
@click.argument("model", type=PATH)
@click.argument("out", type=PATH)
@click.option(
    "--max-z",
    default=5.0,
    type=POSITIVE,
    help="Largest robust z-score of an utterance's alignment cost for each unit, within its set.",
)
@click.option(
    "--max-share",
    default=0.1,
    type=SHARE,
    help="Largest share of a transcript that is not in the audio, and of speech that is not in the transcript.",
)
@graph_option
@graph_decoding_weights_option
@model_options
def clean(
    cuts,
    model,
    out,
    max_z,
    max_share,
    checkpoint,
    max_minutes,
    batch_seconds,
    workers,
    device,
    precision,
    threads,
    **options,
) -> None:
    """List utterances whose transcript the audio contradicts.

    OUT is a folder with the manifest CUTS without them (clean.jsonl.gz), their list with hypotheses (bad.jsonl), the
    scores of all utterances (scores.jsonl), and a page to listen to them (bad.html). The model should have been trained
    on similar data; it may have been trained on CUTS themselves.

    With a decoding graph, of --graph or of a pack, the bad utterances are recognised in words, and list and page show
    how these differ from the transcript. Models whose units are words or parts of them need no graph for this.

    \b
    asrtool clean data/train.jsonl.gz exp/transformer data/train_clean
    asrtool clean data/train.jsonl.gz exp/transformer data/train_clean --graph exp/lang/graph
    """
    import torch

    from asrtool.decoding.cleaning import Limits
    from asrtool.decoding.cleaning_report import clean as run
    from asrtool.experiment import open_experiment

    if threads:
        torch.set_num_threads(threads)
    experiment = open_experiment(model, checkpoint, device, precision)
    given = {name: value for name, value in options.items() if value is not None}
    for line in run(experiment, cuts, out, Limits(max_z, max_share), given, batch_seconds, workers, max_minutes):
        print_text(line)
