"""`asrtool train` and `asrtool info`."""

import click

from asrtool.cli.options import PATH, POSITIVE, THREADS, allow_commands

OVERRIDE = click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change the configuration.")


@click.command()
@click.argument("config", type=PATH)
@click.option("--exp", type=PATH, required=True, help="Experiment folder.")
@click.option("--resume", is_flag=True, help="Continue from the last checkpoint in --exp, if there is one: everything.")
@click.option("--init-from", type=PATH, help="Begin with the weights of this checkpoint of another training.")
@click.option("--new-output", is_flag=True, help="... but draw the output layer new, for other units than it has.")
@click.option("--init-optimizer", is_flag=True, help="... and the moments of its optimiser.")
@click.option("--init-schedule", is_flag=True, help="... and its place in the schedule of the learning rate.")
@click.option(
    "--phase", type=click.Choice(["main", "warmup"]), default="main", help="warmup: on one machine, at first."
)
@click.option("--warmup-hours", type=POSITIVE, help="Hours of audio to consume in phase warmup.")
@click.option("--dry-run", is_flag=True, help="Two steps, a validation and all checks; leaves nothing behind.")
@click.option("--probe", is_flag=True, help="Find the largest data.batch_seconds that fits this machine, and print it.")
@OVERRIDE
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@click.option("--threads", type=THREADS, help="CPU threads of a process; its share of the cores by default.")
@allow_commands
def train(config, exp, resume, phase, warmup_hours, dry_run, probe, overrides, device, threads, **init) -> None:
    """Train an acoustic model.

    The folder gets config.yaml, tokenizer.json, checkpoints/, log.jsonl, tensorboard/, dropped.txt and loss.png.
    Ctrl-C writes a checkpoint; --resume continues to the same weights as if nothing had happened.

    \b
    asrtool train conf/transformer.yaml --exp exp/transformer
    asrtool train conf/transformer.yaml --exp exp/lower --set training.lr=5e-4 --set seed=2
    asrtool train conf/transformer.yaml --exp exp/transformer --resume

    Fine-tuning begins from the weights of another training, for other units without its output layer:

    \b
    asrtool train conf/mine.yaml --exp exp/mine --init-from exp/big/checkpoints/averaged.pt --new-output

    On many GPUs or machines torchrun starts it; parallel.strategy says how they work together. A warmup on one machine
    comes first:

    \b
    torchrun --standalone --nproc-per-node 8 -m asrtool train conf/transformer.yaml --exp exp/warm \\
        --phase warmup --warmup-hours 1000
    torchrun --nnodes 4 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 --max-restarts 3 \\
        -m asrtool train conf/transformer.yaml --exp exp/main --resume --set parallel.strategy=bmuf \\
        --init-from exp/warm/checkpoints/warmup.pt

    The second command, the same on every machine, also goes on after a machine was replaced: it begins from --init-from
    when there is nothing to resume.
    """
    if (phase == "warmup") != (warmup_hours is not None):
        raise click.UsageError("--phase warmup and --warmup-hours go together")
    _check_init(**init)
    import torch

    from asrtool.config_file import load_config
    from asrtool.training.session import Start
    from asrtool.training.train import dry_run as try_out
    from asrtool.training.train import train as run

    if threads:
        torch.set_num_threads(threads)
    loaded = load_config(config, overrides)
    start = Start(init["init_from"], init["init_optimizer"], init["init_schedule"], init["new_output"])
    if probe:
        from asrtool.training.probe import probe as find

        click.echo(find(loaded, device))
    elif dry_run:
        try_out(loaded, exp, device, start)
    else:
        run(loaded, exp, resume, device, start, warmup_hours)


def _check_init(init_from, init_optimizer, init_schedule, new_output) -> None:
    if not init_from and (init_optimizer or init_schedule or new_output):
        raise click.UsageError("--init-optimizer, --init-schedule and --new-output are for --init-from")
    if init_optimizer and new_output:
        raise click.UsageError("--init-optimizer needs the output layer that --new-output leaves out")


@click.command()
@click.argument("config", type=PATH)
@OVERRIDE
@click.option("--units", type=click.IntRange(2, 10**6), help="Outputs; those of data.tokenizer by default.")
def info(config, overrides, units) -> None:
    """Print size, cost, memory and latency of the model of a configuration.

    Latency is computed from the layers; it says what must have been heard before a frame is known: for the first frame
    of a chunk (at most), and over all frames (on average). The memory is that of a batch of data.batch_seconds.

    \b
    asrtool info conf/transformer_12l.yaml --set model.layers=24 --units 500
    asrtool info conf/transformer_xl_12l.yaml --units 500 --set data.batch_seconds=1200
    asrtool info exp/transformer/config.yaml
    """
    from asrtool.config_file import load_config
    from asrtool.models.info import model_info
    from asrtool.text.tokenizer import load_tokenizer

    loaded = load_config(config, overrides)
    for name, value in model_info(loaded, units or load_tokenizer(loaded.data.tokenizer).size).lines().items():
        click.echo(f"{name:16} {value}")
