"""`asrtool align`."""

import click

from asrtool.cli.options import PATH


@click.command()
@click.argument("exp", type=PATH)
@click.argument("cuts", type=PATH)
@click.argument("out", type=PATH)
@click.option("--ctm", type=PATH, help="Write the words as CTM, too.")
@click.option("--checkpoint", default="averaged", help="averaged (else best), best, last, or a path.")
@click.option("--batch-seconds", default=200.0, type=click.FloatRange(min=0, min_open=True), help="Audio in a batch.")
@click.option("--workers", default=1, type=click.IntRange(min=0), help="Loader processes.")
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; all cores by default.")
def align(exp, cuts, out, ctm, checkpoint, batch_seconds, workers, device, threads) -> None:
    """Find when each word and unit of the transcripts is said, with a trained experiment.

    OUT is the manifest CUTS with lhotse's alignments "word" and "unit", in seconds from the start of the cut; where a
    word has several pronunciations, that of the best path. Cuts that cannot be aligned are listed and left out.

    \b
    asrtool align exp/transformer data/train.jsonl.gz data/train_aligned.jsonl.gz
    asrtool align exp/transformer data/test.jsonl.gz data/test_aligned.jsonl.gz --ctm exp/transformer/test.ctm
    """
    import torch

    from asrtool.decoding.align import align as run
    from asrtool.decoding.decode import open_experiment

    if threads:
        torch.set_num_threads(threads)
    experiment = open_experiment(exp, checkpoint, device)
    click.echo(f"{out}: {run(experiment, cuts, out, ctm, batch_seconds, workers)}")
