"""`asrtool pack`."""

import click

from asrtool.cli.options import PATH, allow_commands, checkpoint_option
from asrtool.cli.search_options import (
    METHOD,
    graph_option,
    packed_beam_option,
    packed_lattice_beam_option,
    prefix_search_options,
    priors_option,
)
from asrtool.cli.text_output import print_text


@click.command()
@click.argument("exp", type=PATH)
@click.argument("out", type=PATH)
@graph_option
@click.option(
    "--graph-lm",
    type=PATH,
    help="N-gram model that the graph was built from; needed with --rescore to subtract its scores.",
)
@click.option(
    "--rescore",
    type=PATH,
    help="N-gram model for lattice rescoring; it replaces the one that the graph was built from.",
)
@click.option(
    "--decoding-weights",
    "--weights",
    type=PATH,
    help="Acoustic scale and both penalties, a file of `asrtool tune` (--method graph only).",
)
@priors_option
@click.option("--calibration", type=PATH, show_default="EXP/calibration.json", help="Calibration of confidences.")
@prefix_search_options
@click.option(
    "--method",
    type=METHOD,
    show_default="the most accurate that there are files for",
    help="Search method of `asrtool transcribe`.",
)
@packed_beam_option
@packed_lattice_beam_option
@checkpoint_option()
@click.option("--train-cuts", type=PATH, help="Manifest of the training data; the model card states its hours.")
@click.option("--licence", help="Terms of use, any text; the model card states them.")
@click.option("--export", is_flag=True, help="Add the ONNX graphs of `asrtool export`.")
@allow_commands
def pack(exp, out, checkpoint, method, train_cuts, licence, export, **options) -> None:
    """Pack a trained experiment and all it needs for recognition into one folder.

    OUT gets the weights (safetensors), the configuration, the units, what the options name, model.json (facts, and the
    sha256 of each file) and README.md, a model card with the results in EXP/decode and EXP/stream. The folder can be
    moved to another machine and needs nothing outside itself. It is verified whenever it is opened. EXP/priors.json and
    EXP/calibration.json are packed where they exist.

    Every command that takes an experiment takes a pack as well. `asrtool decode OUT CUTS --method graph` uses the
    graph, priors, decoding weights and language models of the pack. EXP may be a pack: the new one has the same files,
    and those that the options name.

    \b
    asrtool pack exp/transformer packs/english --graph data/lang/graph --licence "CC BY 4.0"
    asrtool pack exp/transformer packs/english --graph data/lang/graph --graph-lm data/lang/3gram.arpa.gz \\
        --rescore data/lang/4gram.npz --export \\
        --decoding-weights exp/transformer/decode/dev/decoding_weights.json
    asrtool pack packs/english packs/english2 --calibration calibration.json
    """
    from asrtool.experiment import open_experiment
    from asrtool.packs.pack import PackSettings, write_pack

    if export:
        from asrtool.export.export import require_packages

        require_packages()
    given = {name: value for name, value in options.items() if value is not None}
    experiment = open_experiment(exp, checkpoint, "cpu")
    settings = PackSettings(method=method, licence=licence, train_cuts=train_cuts, export=export)
    manifest = write_pack(experiment, out, given, settings)
    size = sum(entry.bytes for entry in manifest.hashes.values())
    print_text(f"{out}: {len(manifest.hashes)} files, {size / 1e6:,.1f} MB; default method {manifest.default_method}")
