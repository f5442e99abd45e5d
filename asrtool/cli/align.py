"""`asrtool align`."""

import click

from asrtool.cli.options import PATH, model_options


@click.command()
@click.argument("exp", type=PATH)
@click.argument("cuts", type=PATH)
@click.argument("out", type=PATH)
@click.option("--ctm", type=PATH, help="CTM file to write the words to as well.")
@model_options
def align(exp, cuts, out, ctm, checkpoint, max_minutes, batch_seconds, workers, device, threads) -> None:
    """Find the times of each word and unit of the transcripts.

    OUT is the manifest CUTS with lhotse's alignments "word" and "unit", in seconds from the start of the cut. Of
    several pronunciations of a word, the one on the best path is aligned. Cuts that cannot be aligned are listed and
    left out. A CTM identifies a word's audio by the recording only, so each recording needs its own id, without white
    space.

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
