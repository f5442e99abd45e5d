"""`asrtool adapt`."""

import click

from asrtool.cli.options import (
    EPOCHS,
    PATH,
    POSITIVE,
    SEED,
    allow_commands,
    batch_seconds_option,
    checkpoint_option,
    device_option,
    precision_option,
    pseudo_labels_option,
    threads_option,
    transforms_option,
    workers_option,
)
from asrtool.cli.text_output import print_text


@click.command()
@click.argument("exp", type=PATH)
@click.argument("cuts", type=PATH)
@pseudo_labels_option
@click.option(
    "--out",
    type=PATH,
    show_default="EXP/adapted/SET, in the second round EXP/adapted2/SET",
    help="Folder for the adapted weights.",
)
@click.option("--epochs", default=5.0, type=EPOCHS, help="Number of passes over the audio of a speaker.")
@click.option(
    "--lr",
    default=2e-4,
    type=POSITIVE,
    help="Peak learning rate. Training begins with it, and it falls to 0 along a cosine.",
)
@batch_seconds_option(40.0)
@click.option("--seed", default=1, type=SEED, help="Seed of the random numbers. Dropout and augmentation depend on it.")
@transforms_option
@click.option("--noise", type=PATH, help="Manifest of noise to mix in, as in training; without it there is none.")
@checkpoint_option()
@workers_option()
@device_option()
@precision_option(None, "training.precision of the experiment")
@threads_option()
@allow_commands
def adapt(exp, cuts, hyps, out, transforms, checkpoint, workers, device, precision, threads, **settings) -> None:
    """Adapt a trained experiment to each speaker of a manifest.

    Each speaker gets all weights of the model, trained further on hypotheses as pseudo-labels, with the experiment's
    own objective, dropout and augmentation. `asrtool decode --adapted` uses them. Better hypotheses give better
    weights. Without --hyps the texts of CUTS are the labels, for example of sentences that the speakers have read. The
    same command again continues with the speakers that have no weights yet.

    \b
    asrtool decode exp/x data/test.jsonl.gz --method graph --graph data/lang/graph
    asrtool adapt exp/x data/test.jsonl.gz --hyps exp/x/decode/test/graph
    asrtool decode exp/x data/test.jsonl.gz --method graph --graph data/lang/graph --adapted exp/x/adapted/test
    asrtool score exp/x/decode/test/graph_adapted

    A second round learns from the hypotheses of the adapted weights, and starts from the model's own weights again:

    \b
    asrtool adapt exp/x data/test.jsonl.gz --hyps exp/x/decode/test/graph_adapted
    asrtool decode exp/x data/test.jsonl.gz --method graph --graph data/lang/graph --adapted exp/x/adapted2/test

    With torchrun, several processes share the speakers:

    \b
    torchrun --nproc-per-node 8 -m asrtool adapt exp/x data/test.jsonl.gz --hyps exp/x/decode/test/graph
    """
    import torch

    from asrtool.experiment import open_experiment
    from asrtool.training.adaptation import adapt as run
    from asrtool.training.speaker_trainer import AdaptationSettings

    if threads:
        torch.set_num_threads(threads)
    experiment = open_experiment(exp, checkpoint, device, precision or "fp32")
    if transforms:
        experiment.load_transforms(transforms, [cuts])
    noise = settings.pop("noise")
    chosen = AdaptationSettings(**settings, noise=str(noise) if noise else None, precision=precision)
    summary = run(experiment, cuts, out, hyps, chosen, workers)
    if summary:  # of the first process
        print_text(summary)
