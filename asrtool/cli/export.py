"""`asrtool export`."""

from pathlib import Path

import click

from asrtool.cli.options import PATH, allow_commands, checkpoint_option, max_minutes, threads_option
from asrtool.cli.text_output import print_text


@click.command()
@click.argument("exp", type=PATH)
@click.argument("out", type=PATH)
@checkpoint_option()
@click.option(
    "--cuts",
    type=PATH,
    show_default="random features",
    help="Manifest of cuts. The exported graphs are checked with it.",
)
@max_minutes(5)
@click.option(
    "--quantise",
    type=click.Choice(["int8"]),
    show_default="no quantisation",
    help="Type of quantised weights; the quantised graphs are written as well, and their error is measured.",
)
@click.option(
    "--runtime",
    type=click.Choice(["sherpa-onnx"]),
    show_default="any runtime of ONNX",
    help="Runtime that the folder is for, as above.",
)
@click.option(
    "--graph",
    type=PATH,
    show_default="the graph of a pack",
    help="Decoding graph, a folder of `asrtool graph` (--runtime sherpa-onnx only).",
)
@click.option(
    "--decoding-weights",
    type=PATH,
    show_default="those of a pack for its graph",
    help="Acoustic scale and both penalties, a file of `asrtool tune`, for the copy of the graph (--runtime "
    "sherpa-onnx only).",
)
@click.option("--opset", default=18, type=click.IntRange(min=18), help="Version of the ONNX operator set.")
@threads_option(1)
@allow_commands
def export(exp, out, checkpoint, cuts, max_minutes, quantise, runtime, graph, decoding_weights, opset, threads) -> None:
    """Export a trained model as ONNX graphs and check them.

    The folder OUT is for other runtimes. OUT/model.onnx takes whole utterances. OUT/step.onnx, for models that can
    stream, takes one chunk and the state of the stream. tokens.txt lists the units; export.json has everything else
    that a runtime needs.

    The check runs the graphs in onnxruntime, step.onnx chunk by chunk, over --cuts or over random features. If their
    log-probs differ from the model's by more than rounding, nothing is written and the exit status is 1. --quantise
    int8 also writes graphs with 8-bit weights, and prints how much their log-probs differ.

    With --runtime sherpa-onnx, OUT is for the tools of sherpa-onnx, with the commands in OUT/README.md. streaming.onnx,
    instead of step.onnx, is for its online recogniser, and model.onnx for its offline recogniser. The decoding graph of
    --graph, or of a pack, is copied with its words.

    OUT must be new, empty, or the folder of an earlier export, of which only the exported files are replaced.

    \b
    asrtool export exp/transformer exp/transformer/export
    asrtool export exp/chunk exp/chunk/export --quantise int8 --cuts data/test.jsonl.gz
    asrtool export exp/chunk exp/chunk/sherpa --runtime sherpa-onnx --graph data/lang/graph

    The command needs further packages: pip install 'asrtool[export]'.
    """
    import torch

    from asrtool.experiment import open_experiment
    from asrtool.export.export import export as export_graphs
    from asrtool.export.export import require_packages

    require_packages()
    torch.set_num_threads(threads)
    experiment = open_experiment(exp, checkpoint, "cpu")
    files = {"graph": graph, "decoding_weights": decoding_weights}
    given = {name: path for name, path in files.items() if path}
    graphs = export_graphs(experiment, out, opset, cuts, quantise == "int8", max_minutes, runtime, given)
    for name, graph in graphs.items():
        print_text(_summary(out / name, graph))
    if runtime and not experiment.model.can_stream:
        print_text(f"{out} has no streaming.onnx: this model needs whole utterances")


def _summary(path: Path, graph: dict) -> str:
    parity = graph["parity"]
    size = f"{graph['bytes'] / 1e6:.1f} MB"
    difference = f"log-probs differ by at most {parity['largest_difference']:.1e}"
    equal = f"the best unit is the same in {100 * parity['best_unit_equal']:.2f} % of {parity['frames']} frames"
    return f"{path}: {size}; {difference}, {equal} ({graph['checked_with']})"
