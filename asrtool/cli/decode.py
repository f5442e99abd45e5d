"""`asrtool decode`, `asrtool tune`, `asrtool rescore` and `asrtool score`."""

import click

from asrtool.cli.options import (
    CONTEXT,
    JOBS,
    PATH,
    SHARE,
    device_option,
    model_options,
    overwrite_out_option,
    refuse_options,
    set_options,
    transforms_option,
)
from asrtool.cli.search_options import (
    METHOD,
    beam_option,
    graph_option,
    graph_search_options,
    hotwords_option,
    lattice_beam_option,
    nbest_option,
    no_rescore_option,
    prefix_search_options,
    priors_option,
    rescoring_options,
)

NUM_PRINTED = 5  # decoding weights that `asrtool tune` prints, of those it has tried


@click.command()
@click.argument("exp", type=PATH)
@click.argument("cuts", type=PATH, nargs=-1, required=True)
@click.option("--method", "methods", type=METHOD, multiple=True, default=["greedy"], help="Search method. Repeatable.")
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
@click.option(
    "--out", type=PATH, show_default="EXP/decode", help="File or folder to write. Results get OUT/SET/METHOD."
)
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
        click.echo(_summary(facts))


def _summary(facts: dict) -> str:
    processes = f", {facts['ranks']} processes" if facts["ranks"] > 1 else ""
    return (
        f"{facts['set']} {facts['method']}: {facts['utterances']} utterances, {facts['audio_seconds']:.0f} s of audio, "
        f"RTF {facts['rtf']:.4f} (model {facts['rtf_model']:.4f}, search {facts['rtf_search']:.4f}) "
        f"on {facts['device']} in {facts['precision']}, batches of {facts['batch_seconds']:.0f} s{processes}"
    )


@click.command()
@click.argument("exp", type=PATH)
@click.argument("cuts", type=PATH)
@graph_option
@beam_option
@lattice_beam_option
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
    help="File or folder to write. A JSON file of weights.",
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
        options = tuning_options(experiment, graph_folder, given)
        search, _ = open_graph_search(experiment.tokenizer, options, jobs, experiment.config.objective.topology)
        systems.append(TunedSystem(experiment, manifest, search))
    out = out or systems[0].folder / "decoding_weights.json"
    facts = tune_systems(systems, out, Grid(rounds=rounds), batch_seconds, workers)
    for row in sorted(facts["tried"], key=lambda row: row["wer"])[:NUM_PRINTED]:
        click.echo(f"WER {row.pop('wer'):.2f} %: {DecodingWeights(**row)}")
    click.echo(f"best: WER {facts['wer']:.2f} % in the lattices, {facts['decoded']:.2f} % decoded: ", nl=False)
    click.echo(f"{DecodingWeights(**facts['best'])}; {facts['before']:.2f} % with the default weights")


@click.command()
@click.argument("folder", type=PATH)
@click.argument("out", type=PATH)
@click.option("--lm", "neural", type=PATH, help="Language model. A neural one, of `asrtool lm train-neural`.")
@click.option(
    "--ngram", type=PATH, help="N-gram model. The one of `asrtool decode --rescore` for FOLDER; needed with --lm."
)
@click.option("--weight", default=0.5, type=SHARE, help="Weight of the neural model in the interpolation.")
@click.option(
    "--context",
    type=CONTEXT,
    show_default="the context of its training",
    help="Number of units that the neural model sees at once. At most the context of its training.",
)
@click.option("--mbr", is_flag=True, help="Choose by minimum Bayes risk: the fewest expected word errors.")
@overwrite_out_option
@device_option()
def rescore(folder, out, neural, ngram, mbr, overwrite, **options) -> None:
    """Rescore n-best lists by a neural LM or minimum Bayes risk.

    The neural language model is interpolated with the n-gram model that `asrtool decode --rescore` used. One with a
    context reads an utterance after the best hypotheses of the same speaker's earlier utterances. --mbr takes the
    scores as log-probs, and chooses the hypothesis with the fewest expected word errors; without it the highest score
    is chosen.

    \b
    asrtool decode exp/transformer data/test.jsonl.gz --method graph --graph data/lang/graph \\
        --rescore data/lang/4gram.npz --graph-lm data/lang/3gram.arpa --nbest 100
    asrtool rescore exp/transformer/decode/test/rescored exp/transformer/decode/test/neural \\
        --lm data/lang/lm.pt --ngram data/lang/4gram.npz --mbr
    asrtool rescore exp/transformer/decode/test/rescored exp/transformer/decode/test/mbr --mbr
    """
    if (neural is None) != (ngram is None):
        raise click.UsageError("--lm and --ngram go together: give both or none")
    if neural is None and not mbr:
        raise click.UsageError("give --lm and --ngram, or --mbr, or both")
    if neural is None:
        refuse_options(("weight", "context"), "a neural model, of --lm")
    from asrtool.decoding.rescoring import LmMixtureFiles, rescore_folder

    files = LmMixtureFiles(neural, ngram, **options) if neural else None
    facts = rescore_folder(folder, out, files, mbr, overwrite)
    seconds, device = facts["rescoring_seconds"], facts["rescoring_device"]
    click.echo(f"{out}: {facts.get('utterances', '')} utterances, {seconds:.1f} s on {device}")


@click.command()
@click.argument("folders", type=PATH, nargs=-1, required=True)
@click.option("--name", show_default="the name that it was decoded under", help="Name of the set.")
@click.option("--pool", "pooled", metavar="NAME", help="Also score all utterances as one set of this name.")
@click.option("--against", type=PATH, multiple=True, help="Folder to compare with by paired bootstrap; repeatable.")
@click.option(
    "--normalise",
    type=PATH,
    show_default="none",
    help="Rules file of `asrtool normalise`. It is applied to references and hypotheses before scoring.",
)
def score(folders, name, pooled, against, normalise) -> None:
    """Print the word error rate of each decoded folder.

    Each line has the 95 % bootstrap interval. Next to hyps.jsonl the command writes wer.json, report.txt (confusions,
    speakers), and alignments.txt and alignments.jsonl (every utterance).

    \b
    asrtool score exp/transformer/decode/test/greedy
    asrtool score exp/transformer/decode/*/prefix
    asrtool score fold_*/exp/transformer/decode/held_out/graph --pool "all folds"
    asrtool score exp/transformer/decode/test/graph --against exp/blstm/decode/test/graph
    asrtool score other_system/test --normalise conf/normalise.yaml
    """
    from asrtool.scoring.folder import compare_folders, score_folder, score_pooled, set_name
    from asrtool.scoring.report import difference_line, speaker_interval_lines, summary_line
    from asrtool.text.normalisation_rules import load_rules

    rules = load_rules(normalise) if normalise else None

    def print_difference(scored_folders):
        if against:
            click.echo(difference_line(compare_folders(scored_folders, against, rules)))

    for folder in folders:
        click.echo(summary_line(name or set_name(folder), score_folder(folder, name, rules)))
        print_difference([folder])
    if pooled:
        pooled_score = score_pooled(folders, rules)
        click.echo(summary_line(pooled, pooled_score))
        for line in speaker_interval_lines(pooled_score):
            click.echo(line)
        print_difference(folders)
