"""`asrtool decode`."""

import click

from asrtool.cli.options import JOBS, PATH, model_options, set_options, transforms_option
from asrtool.cli.search_options import (
    METHOD,
    beam_option,
    graph_option,
    graph_search_options,
    hotwords_option,
    nbest_option,
    no_rescore_option,
    prefix_search_options,
    rescoring_options,
)
from asrtool.cli.text_output import print_text


@click.command()
@click.argument("exp", type=PATH)
@click.argument("cuts", type=PATH, nargs=-1, required=True)
@click.option("--method", "methods", type=METHOD, multiple=True, default=["greedy"], help="Search method; repeatable.")
@beam_option
@nbest_option
@prefix_search_options
@hotwords_option
@graph_option
@click.option(
    "--engine",
    type=click.Choice(["kaldi", "k2"]),
    show_default="kaldi",
    help="Decoder of the graph: kaldi on CPUs, k2 for batches and GPUs (--method graph only).",
)
@graph_search_options
@click.option(
    "--lattices", is_flag=True, default=None, help="Write lat.gz, a text archive of Kaldi (--method graph only)."
)
@rescoring_options
@no_rescore_option
@click.option("--jobs", default=1, type=JOBS, help="Number of processes. Graph search runs in them.")
@click.option("--adapted", type=PATH, help="Weights of each speaker, a folder of `asrtool adapt`.")
@transforms_option
@model_options
@click.option("--out", type=PATH, show_default="EXP/decode", help="Folder for the results, OUT/SET/METHOD.")
@set_options
def decode(
    exp, cuts, methods, jobs, adapted, transforms, checkpoint, out, names, tag, overwrite, max_minutes, batch_seconds,
    workers, device, precision, threads, **options,
) -> None:  # fmt: skip
    """Recognise the cuts of manifests with a trained experiment.

    EXP is a folder of `asrtool train`, or a pack, whose graph, language models, priors and decoding weights are used
    where no option names others.

    Writes EXP/decode/SET/METHOD/hyps.jsonl and decode.json, and prints the real-time factor of each. SET is the name of
    --name, or of the manifest without .jsonl.gz. METHOD is "rescored" for graph with --rescore. With --adapted the
    folder is METHOD_adapted, in the second round METHOD_adapted2, with --transforms METHOD_fmllr; with --tag it ends in
    -TAG.

    The same command again resumes an interrupted run, or replaces its own result. A result of other options is not
    replaced: --tag keeps both, --overwrite replaces it. A new result deletes the scores of the old one.

    Cuts longer than --max-minutes are refused. A cut without a whole frame gets an empty hypothesis, and is listed.
    Cuts need no transcript.

    \b
    asrtool decode exp/transformer data/test.jsonl.gz
    asrtool decode exp/transformer data/dev.jsonl.gz data/test.jsonl.gz --method greedy --method prefix
    asrtool decode exp/transformer a/test.jsonl.gz b/test.jsonl.gz --name a --name b
    asrtool decode packs/english data/test.jsonl.gz --method graph --out results
    asrtool decode exp/transformer data/test.jsonl.gz --checkpoint last --tag last
    asrtool decode exp/transformer data/test.jsonl.gz --method prefix --beam 16 --lm data/lang/4gram.arpa
    asrtool decode exp/transformer data/test.jsonl.gz --method graph --graph exp/lang/graph --jobs 4
    asrtool decode exp/transformer data/test.jsonl.gz --method graph --graph exp/lang/graph --lattices \\
        --nbest 10 --rescore data/lang/4gram.npz --graph-lm data/lang/3gram.arpa
    asrtool decode exp/transformer data/test.jsonl.gz --method graph --graph exp/lang/graph --engine k2
    asrtool decode exp/transformer data/test.jsonl.gz --method graph --graph exp/lang/graph \\
        --adapted exp/transformer/adapted/test

    With torchrun, several processes share the batches, on one machine or on several with the same file system; each
    uses its own GPU, if there are any. The hypotheses equal a single process's, and the real-time factor is that
    of the slowest process. With --max-restarts, or with the same command again, killed processes resume; at most half a
    minute of decoding is lost. torchrun does not decode again what has a result: delete its folder first.

    \b
    torchrun --nproc-per-node 2 -m asrtool decode exp/transformer data/test.jsonl.gz
    torchrun --nproc-per-node 8 --max-restarts 3 -m asrtool decode exp/transformer data/test.jsonl.gz --method prefix
    torchrun --nproc-per-node 4 -m asrtool decode exp/transformer data/test.jsonl.gz --device cpu --threads 4
    """
    import torch

    from asrtool.decoding.options import require_effect
    from asrtool.decoding.result_folder import set_names
    from asrtool.decoding.runs import decode_runs, plan_runs
    from asrtool.experiment import open_experiment

    given = {name: value for name, value in options.items() if value is not None}
    require_effect(methods, given)
    sets = dict(zip(set_names(cuts, names), cuts, strict=True))
    if threads:
        torch.set_num_threads(threads)
    experiment = open_experiment(exp, checkpoint, device, precision)
    runs = plan_runs(
        experiment, sets, methods, given, checkpoint, adapted, transforms, tag, overwrite, max_minutes, out
    )
    for facts in decode_runs(experiment, runs, jobs, batch_seconds, workers):
        print_text(_summary(facts))


def _summary(facts: dict) -> str:
    processes = f", {facts['ranks']} processes" if facts["ranks"] > 1 else ""
    return (
        f"{facts['set']} {facts['method']}: {facts['utterances']} utterances, {facts['audio_seconds']:.0f} s of audio, "
        f"RTF {facts['rtf']:.4f} (model {facts['rtf_model']:.4f}, search {facts['rtf_search']:.4f}) "
        f"on {facts['device']} in {facts['precision']}, batches of {facts['batch_seconds']:.0f} s{processes}"
    )
