"""`asrtool train`."""

import click

from asrtool.cli.completion import complete_override
from asrtool.cli.options import PATH, POSITIVE, allow_commands, device_option, refuse_options, threads_option
from asrtool.cli.text_output import print_text

OVERRIDE = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    shell_complete=complete_override,
    help="Key of the configuration to change, and its value; EXP/config.yaml lists all keys; repeatable.",
)
STARTING_OPTIONS = ("init_from", "new_output", "init_optimizer", "init_schedule")
PHASES = click.Choice(["main", "warmup"])


@click.command()
@click.argument("config", type=PATH)
@click.option("--exp", type=PATH, required=True, help="Experiment folder to write.")
@click.option("--resume", is_flag=True, help="Continue from the last checkpoint in --exp if there is one.")
@click.option("--init-from", type=PATH, help="Checkpoint, experiment or pack whose weights this one starts from.")
@click.option(
    "--new-output",
    is_flag=True,
    help="With --init-from, initialise the output layer; for other units.",
)
@click.option("--init-optimizer", is_flag=True, help="With --init-from, also load the moments of the optimiser.")
@click.option("--init-schedule", is_flag=True, help="With --init-from, also load the position in the schedule.")
@click.option("--phase", type=PHASES, default="main", help="Phase of the training; warmup runs on one machine, first.")
@click.option("--warmup-hours", type=POSITIVE, help="Hours of audio to train on; with --phase warmup only.")
@click.option("--dry-run", is_flag=True, help="Run all checks, two steps and a validation, and leave nothing behind.")
@click.option(
    "--probe",
    is_flag=True,
    help="Print the largest data.batch_seconds that fits into memory, and stop; minutes on a CPU.",
)
@OVERRIDE
@device_option()
@threads_option(default_text="its share of the cores")
@allow_commands
def train(
    config, exp, resume, init_from, new_output, init_optimizer, init_schedule, phase, warmup_hours, dry_run, probe,
    overrides, device, threads,
) -> None:  # fmt: skip
    """Train an acoustic model.

    The experiment folder gets config.yaml, tokenizer.json, checkpoints/, log.jsonl, tensorboard/, dropped.txt and
    loss.png. Ctrl-C writes a checkpoint; with --resume the training continues, and ends with the same weights as
    without the interruption.

    \b
    asrtool train conf/transformer.yaml --exp exp/transformer
    asrtool train conf/transformer.yaml --exp exp/lower --set training.lr=5e-4 --set seed=2
    asrtool train conf/transformer.yaml --exp exp/transformer --resume

    Fine-tuning starts from the weights of another training; for other units it needs a new output layer:

    \b
    asrtool train conf/mine.yaml --exp exp/mine --init-from exp/big/checkpoints/averaged.pt --new-output

    Training on several GPUs or machines is started by torchrun; the key parallel.strategy selects how their gradients
    or weights are combined. A warmup on one machine can come first:

    \b
    torchrun --standalone --nproc-per-node 8 -m asrtool train conf/transformer.yaml --exp exp/warm \\
        --phase warmup --warmup-hours 1000
    torchrun --nnodes 4 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 --max-restarts 3 \\
        -m asrtool train conf/transformer.yaml --exp exp/main --resume --set parallel.strategy=bmuf \\
        --init-from exp/warm/checkpoints/warmup.pt

    The second command is the same on every machine. It also continues the training after a machine was replaced: it
    starts from --init-from only if there is no checkpoint to resume from.
    """
    if probe:
        refuse_options((*STARTING_OPTIONS, "phase", "warmup_hours", "resume", "dry_run"), "a training, without --probe")
    if dry_run:
        refuse_options(("phase", "warmup_hours"), "a training, without --dry-run")
    if (phase == "warmup") != (warmup_hours is not None):
        raise click.UsageError("--phase warmup and --warmup-hours go together: give both or none")
    if not init_from and (init_optimizer or init_schedule or new_output):
        raise click.UsageError("--init-optimizer, --init-schedule and --new-output need --init-from CHECKPOINT")
    if init_optimizer and new_output:
        raise click.UsageError("--init-optimizer needs the output layer that --new-output leaves out")
    import torch

    from asrtool.checkpoint import initial_checkpoint
    from asrtool.config_file import load_config
    from asrtool.training.resume import InitialWeights
    from asrtool.training.train import dry_run as run_dry
    from asrtool.training.train import train as run_training

    if threads:
        torch.set_num_threads(threads)
    loaded = load_config(config, overrides)
    initial = None
    if init_from:
        initial = InitialWeights(initial_checkpoint(init_from), init_optimizer, init_schedule, new_output)
    if probe:
        from asrtool.training.probe import probe_batch_seconds as run_probe

        print_text(run_probe(loaded, device))
    elif dry_run:
        run_dry(loaded, exp, device, initial, resume)
    else:
        run_training(loaded, exp, resume, device, initial, warmup_hours)
