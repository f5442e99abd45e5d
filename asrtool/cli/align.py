"""`asrtool align`."""

import click

from asrtool.cli.options import PATH, model_options


@click.command()
@click.argument("exp", type=PATH)
@click.argument("cuts", type=PATH)
@click.argument("out", type=PATH)
@click.option("--ctm", type=PATH, help="CTM file to write the words to, too.")
@model_options
def align(exp, cuts, out, ctm, checkpoint, max_minutes, batch_seconds, workers, device, threads) -> None:
    """Find when each word and unit of the transcripts is said, with a trained experiment.

    OUT is the manifest CUTS with lhotse's alignments "word" and "unit", in seconds from the start of the cut; where a
    word has several pronunciations, that of the best path. Cuts that cannot be aligned are listed and left out. A CTM
    names words by their recording alone, so each recording needs an id of its own, without white space.

    \b
    asrtool align exp/transformer data/train.jsonl.gz data/train_aligned.jsonl.gz
    asrtool align exp/transformer data/test.jsonl.gz data/test_aligned.jsonl.gz --ctm exp/transformer/test.ctm
    """
    import torch

    from asrtool.decoding.align import align as run
    from asrtool.experiment import open_experiment

    if threads:
        torch.set_num_threads(threads)
    experiment = open_experiment(exp, checkpoint, device)
    click.echo(f"{out}: {run(experiment, cuts, out, ctm, batch_seconds, workers, max_minutes)}")
