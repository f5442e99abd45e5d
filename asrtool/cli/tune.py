"""`asrtool tune`."""

import click

from asrtool.cli.options import JOBS, PATH, model_options
from asrtool.cli.search_options import graph_option, lattice_search_beams, priors_option
from asrtool.cli.text_output import print_text

NUM_PRINTED = 5  # decoding weights that `asrtool tune` prints, of those it has tried


@click.command()
@click.argument("exp", type=PATH)
@click.argument("cuts", type=PATH)
@graph_option
@lattice_search_beams
@priors_option
@click.option(
    "--also",
    type=(PATH, PATH, PATH),
    multiple=True,
    metavar="EXP CUTS GRAPH",
    help="Further system that is tuned together with the first; repeatable.",
)
@click.option(
    "--out",
    type=PATH,
    show_default="EXP/decode/SET/decoding_weights.json",
    help="JSON file of decoding weights to write.",
)
@click.option(
    "--rounds",
    default=2,
    type=click.IntRange(0, 20),
    help="Number of refinements of the grid, each with half the steps.",
)
@click.option("--jobs", default=1, type=JOBS, help="Number of processes. The search runs in them.")
@model_options
def tune(
    exp, cuts, graph, also, out, rounds, jobs, checkpoint, max_minutes, batch_seconds, workers, device, precision,
    threads, **options,
) -> None:  # fmt: skip
    """Find the decoding weights with the lowest WER on a dev set.

    The decoding weights are acoustic scale, blank penalty and insertion penalty. The command stores log-probs in
    EXP/decode/SET/log_probs and searches each utterance once. It prints the WER of the best weights that it has tried,
    and writes all of them to EXP/decode/SET/decoding_weights.json for `asrtool decode --decoding-weights`. EXP may be a
    pack, whose graph and priors are used where no option names others.

    Weights that are tuned on few speakers are better for these and worse for others. --also adds the other folds of a
    cross-validation, each with its own graph; the errors of all are summed.

    \b
    asrtool tune exp/transformer data/dev.jsonl.gz --graph exp/lang/graph
    asrtool decode exp/transformer data/test.jsonl.gz --method graph --graph exp/lang/graph \\
        --decoding-weights exp/transformer/decode/dev/decoding_weights.json
    """
    import torch

    from asrtool.decoding.checks import check_cuts
    from asrtool.decoding.lattice_weights import DecodingWeights
    from asrtool.decoding.options import DEFAULT_LATTICE_BEAM
    from asrtool.decoding.search_setup import open_graph_search
    from asrtool.decoding.system_options import tuning_options
    from asrtool.decoding.tuning import Grid, TunedSystem, tune_systems
    from asrtool.errors import UserError
    from asrtool.experiment import open_experiment

    if threads:
        torch.set_num_threads(threads)
    if also and options["priors"]:
        raise UserError("--priors are of one system's classes, and --also names another; tune each system alone")
    given = {name: value for name, value in options.items() if value is not None}
    given.setdefault("lattice_beam", DEFAULT_LATTICE_BEAM)
    systems = []
    for folder, manifest, graph_folder in ((exp, cuts, graph), *also):
        experiment = open_experiment(folder, checkpoint, device, precision)
        check_cuts(manifest, max_minutes, experiment.config.data.max_seconds)
        experiment.max_seconds = 60 * max_minutes
        search_options = tuning_options(experiment, graph_folder, given)
        search, _ = open_graph_search(experiment.tokenizer, search_options, jobs, experiment.config.objective.topology)
        systems.append(TunedSystem(experiment, manifest, search))
    out = out or systems[0].folder / "decoding_weights.json"
    facts = tune_systems(systems, out, Grid(rounds=rounds), batch_seconds, workers)
    for row in sorted(facts["tried"], key=lambda row: row["wer"])[:NUM_PRINTED]:
        print_text(f"WER {row.pop('wer'):.2f} %: {DecodingWeights(**row)}")
    decoded = f"{facts['decoded']:.2f} % decoded with a beam of {search.options.beam:g}"
    best = f"best: WER {facts['wer']:.2f} % in the lattices, {decoded}"
    print_text(f"{best}: {DecodingWeights(**facts['best'])}; {facts['before']:.2f} % with the default weights")
