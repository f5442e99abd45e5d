"""`asrtool adapt`."""

import click

from asrtool.cli.options import (
    PATH,
    POSITIVE,
    SEED,
    allow_commands,
    batch_seconds_option,
    checkpoint_option,
    device_option,
    threads_option,
    workers_option,
)


@click.command()
@click.argument("exp", type=PATH)
@click.argument("cuts", type=PATH)
@click.option("--hyps", type=PATH, help="Folder of `asrtool decode` to believe, in the place of the texts of CUTS.")
@click.option("--out", type=PATH, help="Folder to write; EXP/adapted/SET, adapted2 in the second round.")
@click.option(
    "--epochs", default=5, show_default=True, type=click.IntRange(1, 10_000), help="Passes over a speaker's audio."
)
@click.option(
    "--lr", default=2e-4, show_default=True, type=POSITIVE, help="Learning rate of the first step, falling to 0."
)
@batch_seconds_option(40.0)
@click.option("--seed", default=1, show_default=True, type=SEED, help="Seed of dropout and augmentation.")
@click.option("--noise", type=PATH, help="Manifest of noise to mix in as the training's configuration says; none else.")
@checkpoint_option()
@workers_option()
@device_option()
@threads_option()
@allow_commands
def adapt(exp, cuts, hyps, out, checkpoint, workers, device, threads, **how) -> None:
    """Adapt a trained experiment to each speaker of a manifest, by what was recognised of them.

    Each speaker gets all weights of the model, trained on with the experiment's own objective, dropout and
    augmentation. `asrtool decode --adapted` uses them; the better the hypotheses, the better they are. Without --hyps
    the texts of CUTS are believed, say of sentences that the speakers have read out. The same command again goes on
    with the speakers that are left.

    \b
    asrtool decode exp/x data/test.jsonl.gz --method graph --graph data/lang/graph
    asrtool adapt exp/x data/test.jsonl.gz --hyps exp/x/decode/test/graph
    asrtool decode exp/x data/test.jsonl.gz --method graph --graph data/lang/graph --adapted exp/x/adapted/test
    asrtool score exp/x/decode/test/graph_adapted

    What the adapted weights find is better still to learn from, in a second round, again from the model's own weights:

    \b
    asrtool adapt exp/x data/test.jsonl.gz --hyps exp/x/decode/test/graph_adapted
    asrtool decode exp/x data/test.jsonl.gz --method graph --graph data/lang/graph --adapted exp/x/adapted2/test

    torchrun has several processes take turns at the speakers:

    \b
    torchrun --nproc-per-node 8 -m asrtool adapt exp/x data/test.jsonl.gz --hyps exp/x/decode/test/graph
    """
    import torch

    from asrtool.experiment import open_experiment
    from asrtool.training.adaptation import adapt as run
    from asrtool.training.speaker_trainer import AdaptationSettings

    if threads:
        torch.set_num_threads(threads)
    experiment = open_experiment(exp, checkpoint, device)
    noise = how.pop("noise")
    chosen = AdaptationSettings(**how, noise=str(noise) if noise else None)
    made = run(experiment, cuts, out, hyps, chosen, workers)
    if made:  # by the first process
        click.echo(made)
