"""`asrtool info`."""

import click

from asrtool.cli.options import PATH
from asrtool.cli.text_output import print_text
from asrtool.cli.train import OVERRIDE
from asrtool.errors import UserError

vocab_size_option = click.option(
    "--vocab-size",
    type=click.IntRange(2, 1_000_000),
    show_default="that of data.tokenizer",
    help="Number of units, blank included.",
)


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
    from asrtool.pack_manifest import is_pack

    for name, value in (_pack_lines if is_pack(config) else _model_lines)(config, overrides, vocab_size).items():
        print_text(one_line(f"{name:16} {value}"))


def _pack_lines(pack, overrides, vocab_size) -> dict[str, str]:
    """Returns the facts of a pack."""
    from asrtool.pack_manifest import open_pack
    from asrtool.packs.model_card import manifest_lines

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
