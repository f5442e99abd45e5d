"""`asrtool calibrate`."""

import click

from asrtool.cli.options import JOBS, PATH, model_options
from asrtool.cli.search_options import (
    METHOD,
    graph_option,
    graph_search_options,
    hotwords_option,
    lattice_search_beam_option,
    lattice_search_options,
    no_rescore_option,
    prefix_search_options,
)
from asrtool.cli.text_output import print_text


@click.command()
@click.argument("exp", type=PATH)
@click.argument("cuts", type=PATH)
@click.option(
    "--method",
    "methods",
    type=METHOD,
    multiple=True,
    show_default="the best that EXP has the files for",
    help="Search method; repeatable.",
)
@lattice_search_beam_option
@prefix_search_options
@hotwords_option
@graph_option
@graph_search_options
@lattice_search_options
@no_rescore_option
@click.option("--jobs", default=1, type=JOBS, help="Number of processes. Graph search runs in them.")
@click.option("--out", type=PATH, show_default="EXP/calibration.json", help="JSON file to write.")
@model_options
def calibrate(
    exp,
    cuts,
    methods,
    jobs,
    out,
    checkpoint,
    max_minutes,
    batch_seconds,
    workers,
    device,
    precision,
    threads,
    **options,
) -> None:
    """Turn the posteriors of words into probabilities, on a dev set.

    CUTS are recognised with the options of the method, and the words compared with the transcripts. The confidence of a
    word is then the probability that it is correct; the confidence of an utterance is its expected word accuracy. The
    maps are small and monotone (logistic regression); which posteriors they read is chosen by cross-validation over
    speakers. They are written to EXP/calibration.json, a part for each method, which `asrtool decode`, `asrtool
    transcribe` and `asrtool pack` use from then on.

    Graph search builds lattices, as in `asrtool transcribe`, unless --max-active is given.

    The command prints how good the confidences are on speakers that they were not fitted on: normalised cross entropy
    (NCE: 1 is perfect), expected calibration error (ECE), and the errors among the most confident words.

    \b
    asrtool calibrate exp/transformer data/dev.jsonl.gz --method greedy --method prefix
    asrtool calibrate exp/transformer data/dev.jsonl.gz --method graph --graph exp/lang/graph --jobs 4
    """
    import torch

    from asrtool.decoding.calibrate import calibrate as run
    from asrtool.decoding.calibrate import output_type
    from asrtool.decoding.checks import check_cuts
    from asrtool.decoding.system_options import best_method, options_by_method
    from asrtool.experiment import open_experiment
    from asrtool.scoring.utterance_confidence import utterance_quality_line

    if threads:
        torch.set_num_threads(threads)
    given = {name: value for name, value in options.items() if value is not None}
    experiment = open_experiment(exp, checkpoint, device, precision)
    check_cuts(cuts, max_minutes, experiment.config.data.max_seconds)
    experiment.max_seconds = 60 * max_minutes
    all_options = options_by_method(experiment, methods or (best_method(experiment),), given)
    for method, own_options in all_options.items():
        label, fitted = run(experiment, cuts, method, own_options, out, jobs, batch_seconds, workers)
        counted = output_type(experiment, method)
        print_text(f"{label}, without calibration: {_quality(fitted.raw, counted)}")
        print_text(f"{label}, cross-validated: {_quality(fitted.words, counted)}")
        print_text(f"{label}, cross-validated: {utterance_quality_line(fitted.utterances, counted)}")


def _quality(quality, counted: str) -> str:
    nce = "-" if quality.nce is None else f"{quality.nce:.3f}"
    rates = ", ".join(f"{rate:.2f} % of the {100 * share:g} %" for share, rate in quality.error_rates.items())
    counts = f"{quality.count - quality.correct} of {quality.count} {counted} wrong"
    return f"NCE {nce}, ECE {quality.ece:.4f}; {counts}, {rates} most confident"
