"""`asrtool train` and `asrtool info`."""

from pathlib import Path

import click

PATH = click.Path(path_type=Path)
OVERRIDE = click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change the configuration.")


@click.command()
@click.argument("config", type=PATH)
@click.option("--exp", type=PATH, required=True, help="Experiment folder.")
@click.option("--resume", is_flag=True, help="Continue from the last checkpoint, if there is one.")
@OVERRIDE
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; all cores by default.")
def train(config, exp, resume, overrides, device, threads) -> None:
    """Train an acoustic model.

    The folder gets config.yaml, tokenizer.json, checkpoints/, log.jsonl, tensorboard/, dropped.txt and loss.png.
    Ctrl-C writes a checkpoint; --resume continues to the same weights as if nothing had happened.

    \b
    asrtool train conf/transformer.yaml --exp exp/transformer
    asrtool train conf/transformer.yaml --exp exp/lower --set training.lr=5e-4 --set seed=2
    asrtool train conf/transformer.yaml --exp exp/transformer --resume
    """
    import torch

    from asrtool.config import load_config
    from asrtool.training.train import train as run

    if threads:
        torch.set_num_threads(threads)
    run(load_config(config, overrides), exp, resume, device)


@click.command()
@click.argument("config", type=PATH)
@OVERRIDE
@click.option("--units", type=click.IntRange(min=2), help="Outputs; those of data.tokenizer by default.")
def info(config, overrides, units) -> None:
    """Print size, cost, memory and latency of the model of a configuration.

    Latency is computed from the layers; it says what must have been heard before a frame is known: for the first frame
    of a chunk (at most), and over all frames (on average). The memory is that of a batch of data.batch_seconds.

    \b
    asrtool info conf/transformer_12l.yaml --set model.layers=24 --units 500
    asrtool info conf/transformer_xl_12l.yaml --units 500 --set data.batch_seconds=1200
    asrtool info exp/transformer/config.yaml
    """
    from asrtool.config import load_config
    from asrtool.models.info import model_info
    from asrtool.text.tokenizer import load_tokenizer

    loaded = load_config(config, overrides)
    for name, value in model_info(loaded, units or load_tokenizer(loaded.data.tokenizer).size).lines().items():
        click.echo(f"{name:16} {value}")
