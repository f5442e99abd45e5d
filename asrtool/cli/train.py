"""`asrtool train` and `asrtool info`."""

import click

from asrtool.cli.completion import complete_override
from asrtool.cli.options import PATH, POSITIVE, allow_commands, device_option, threads_option
from asrtool.errors import UserError

OVERRIDE = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    shell_complete=complete_override,
    help="Key of the configuration to change, and its value; EXP/config.yaml lists all keys; repeatable.",
)
vocab_size_option = click.option(
    "--vocab-size",
    type=click.IntRange(2, 1_000_000),
    show_default="that of data.tokenizer",
    help="Number of units. Blank included.",
)
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
@click.option("--dry-run", is_flag=True, help="Run two steps, a validation and all checks, and leave nothing behind.")
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

        click.echo(run_probe(loaded, device))
    elif dry_run:
        run_dry(loaded, exp, device, initial)
    else:
        run_training(loaded, exp, resume, device, initial, warmup_hours)


@click.command()
@click.argument("config", type=PATH)
@OVERRIDE
@vocab_size_option
def info(config, overrides, vocab_size) -> None:
    """Print the size, cost, memory and latency of a model, or the facts of a pack.

    CONFIG is a configuration file, an experiment folder, or a pack, whose model card is printed once all its files have
    been verified. The cost is the number of operations for a second of audio. The memory is what a
    training batch of data.batch_seconds needs.

    The latency is computed from the layers. It is the amount of audio after a frame that the model needs before it can
    output that frame: at most (for the first frame of a chunk), and on average over all frames.

    `asrtool plan` predicts a whole training from the same figures.

    \b
    asrtool info conf/transformer_12l.yaml --set model.layers=24 --vocab-size 500
    asrtool info conf/transformer_xl_12l.yaml --vocab-size 500 --set data.batch_seconds=1200
    asrtool info exp/transformer
    asrtool info packs/english
    """
    from asrtool.errors import one_line
    from asrtool.logs import printable
    from asrtool.pack_manifest import is_pack

    for name, value in (_pack_lines if is_pack(config) else _model_lines)(config, overrides, vocab_size).items():
        click.echo(printable(one_line(f"{name:16} {value}")))


def _pack_lines(pack, overrides, vocab_size) -> dict[str, str]:
    """Returns the facts of a pack."""
    from asrtool.deploy.model_card import manifest_lines
    from asrtool.pack_manifest import open_pack

    if overrides or vocab_size:
        raise click.UsageError("--set and --vocab-size have no effect on a pack; give a configuration file")
    return manifest_lines(open_pack(pack, large_files=True))


def _model_lines(config, overrides, vocab_size) -> dict[str, str]:
    """Returns the facts of the model of a configuration file, or of an experiment folder."""
    from asrtool.models.info import model_info

    return model_info(*read_model_config(config, overrides, vocab_size)).lines()


def read_model_config(config, overrides, vocab_size):
    """Returns the configuration of a file or an experiment folder, and the number of outputs of its model.

    It has `vocab_size` units, or the units of its own tokenizer.
    """
    from asrtool.config_file import load_config
    from asrtool.text.outputs import num_outputs
    from asrtool.text.tokenizer import load_tokenizer

    folder = config if config.is_dir() else None
    if not config.exists() or (folder and not (folder / "config.yaml").exists()):
        reason = "has no config.yaml and no model.json" if folder else "does not exist"
        raise UserError(f"{config} is neither an experiment folder, a pack nor a configuration file: it {reason}")
    loaded = load_config(folder / "config.yaml" if folder else config, overrides)
    tokenizer = folder / "tokenizer.json" if folder else loaded.data.tokenizer
    return loaded, num_outputs(loaded.objective.topology, vocab_size or load_tokenizer(tokenizer).size)
