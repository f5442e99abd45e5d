"""`asrtool export`."""

from pathlib import Path

import click

from asrtool.cli.options import CHECKPOINT, PATH, THREADS, allow_commands, max_minutes


@click.command()
@click.argument("exp", type=PATH)
@click.argument("out", type=PATH)
@click.option("--checkpoint", default="averaged", help=CHECKPOINT)
@click.option("--cuts", type=PATH, help="Manifest to check the graphs with [default: random features].")
@max_minutes(5)
@click.option("--quantise", type=click.Choice(["int8"]), help="Also write smaller graphs, and measure them.")
@click.option("--opset", default=18, type=click.IntRange(min=18), help="ONNX operator set.")
@click.option("--threads", default=1, type=THREADS, help="Number of CPU threads.")
@allow_commands
def export(exp, out, checkpoint, cuts, max_minutes, quantise, opset, threads) -> None:
    """Write a trained model as ONNX into the folder OUT, for other runtimes, and check it against itself.

    OUT/model.onnx takes whole utterances; OUT/step.onnx, of a model that can stream, one chunk and the stream's state.
    tokens.txt has the units, export.json all else that a runtime must know. onnxruntime runs the graphs over the cuts
    of --cuts, or over random features, step.onnx chunk by chunk; when it gets other log-probs than asrtool, nothing is
    written, and the exit status is 1. Of the graphs with 8-bit weights of --quantise int8 the difference is measured
    and printed.

    OUT is new, empty, or the folder of an earlier export, of which only its own files are replaced.

    \b
    asrtool export exp/transformer exp/transformer/export
    asrtool export exp/chunk exp/chunk/export --quantise int8 --cuts data/test.jsonl.gz

    It needs packages of its own: pip install 'asrtool[export]'.
    """
    import torch

    from asrtool.deploy.export import export as run
    from asrtool.deploy.export import require_packages
    from asrtool.experiment import open_experiment

    require_packages()
    torch.set_num_threads(threads)
    graphs = run(open_experiment(exp, checkpoint, "cpu"), out, opset, cuts, quantise == "int8", max_minutes)
    for name, graph in graphs.items():
        click.echo(_summary(out / name, graph))


def _summary(path: Path, graph: dict) -> str:
    parity = graph["parity"]
    return (
        f"{path}: {graph['bytes'] / 1e6:.1f} MB; log-probs differ by {parity['largest_difference']:.1e} at most, the "
        f"best unit is the same in {100 * parity['best_unit_equal']:.2f} % of {parity['frames']} frames "
        f"({graph['checked_with']})"
    )
