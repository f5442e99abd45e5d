"""`asrtool decode`, `asrtool tune` and `asrtool score`."""

import click

from asrtool.cli.options import (
    JOBS,
    NOT_NEGATIVE,
    NUMBER,
    PATH,
    POSITIVE,
    SHARE,
    device_option,
    model_options,
    set_options,
)

METHOD = click.Choice(["greedy", "prefix", "graph"])
MOST_HYPOTHESES = 1000  # of an utterance: rescoring gains nothing from more than some hundreds
LONGEST_CONTEXT = 100_000  # words: an hour of speech has 10,000
SHOWN = 5  # of the scales that `asrtool tune` has tried


def _search_options(command):
    """The options of searches; those not given are None, and do not count as given."""
    options = [
        click.option("--beam", type=POSITIVE, help="prefix: prefixes kept [default: 8]. graph: cost beam [16]."),
        click.option("--nbest", type=click.IntRange(1, MOST_HYPOTHESES), help="Hypotheses in hyps.jsonl [default: 1]."),
        click.option("--insertion-penalty", type=NUMBER, help="Cost of a word; prefix: of a word or unit of --lm."),
        click.option("--lm", type=PATH, help="prefix: n-gram model, ARPA, .npz or KenLM binary."),
        click.option("--lm-weight", type=NOT_NEGATIVE, help="prefix: weight of the LM's log-probs [default: 0.5]."),
        click.option("--lm-units", is_flag=True, default=None, help="prefix: the model of --lm is over units."),
        click.option("--graph", type=PATH, help="graph: folder of `asrtool graph`."),
        click.option("--engine", type=click.Choice(["kaldi", "k2"]), help="graph: decoder; k2 for GPUs and batches."),
        click.option("--max-active", type=click.IntRange(min=2), help="graph: most states a frame [default: 7000]."),
        click.option("--min-active", type=click.IntRange(min=0), help="graph: least states a frame [default: 20]."),
        click.option("--acoustic-scale", type=POSITIVE, help="graph: scale of the log-probs [default: 1]."),
        click.option("--blank-penalty", type=NUMBER, help="graph: cost of each blank frame [default: 0]."),
        click.option("--scales", type=PATH, help="graph: the scale and both penalties, from `asrtool tune`."),
        click.option("--priors", type=PATH, help="graph: JSON list of class counts, divided out of the log-probs."),
        click.option("--lattices", is_flag=True, default=None, help="graph: write lat.gz, a text archive of Kaldi."),
        click.option("--lattice-beam", type=POSITIVE, help="graph: cost beam of the lattices [default: 8]."),
        click.option("--rescore", type=PATH, help="graph: n-gram model that replaces the one of the graph."),
        click.option("--graph-lm", type=PATH, help="graph: n-gram model that the graph was built from, for --rescore."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@click.argument("exp", type=PATH)
@click.argument("cuts", type=PATH, nargs=-1, required=True)
@click.option("--method", "methods", type=METHOD, multiple=True, default=["greedy"], help="Search; repeatable.")
@_search_options
@click.option("--jobs", default=1, type=JOBS, help="graph: number of search processes.")
@click.option("--adapted", type=PATH, help="Folder of weights for each speaker, of `asrtool adapt`.")
@model_options
@set_options
def decode(
    exp, cuts, methods, jobs, adapted, checkpoint, names, tag, overwrite, max_minutes, batch_seconds, workers, device,
    threads, **options,
) -> None:  # fmt: skip
    """Recognise the cuts of one or more manifests with a trained experiment.

    Writes EXP/decode/SET/METHOD/hyps.jsonl and decode.json, and prints the real-time factor of each. SET is the
    manifest's name without .jsonl.gz, or that of --name; METHOD is "rescored" for graph with --rescore. With --adapted
    it is METHOD_adapted, METHOD_adapted2 in the second round; with --tag it ends in -TAG.

    The same command again goes on where an interrupted one was, or replaces its own result. A result of other options
    stays: --tag keeps both, --overwrite replaces it. A new result removes the old scores beside it.

    Cuts longer than --max-minutes are refused. A cut without a whole frame has an empty hypothesis and is named. Cuts
    need no transcript.

    \b
    asrtool decode exp/transformer data/test.jsonl.gz
    asrtool decode exp/transformer data/dev.jsonl.gz data/test.jsonl.gz --method greedy --method prefix
    asrtool decode exp/transformer a/test.jsonl.gz b/test.jsonl.gz --name a --name b
    asrtool decode exp/transformer data/test.jsonl.gz --checkpoint last --tag last
    asrtool decode exp/transformer data/test.jsonl.gz --method prefix --beam 16 --lm data/lang/4gram.arpa
    asrtool decode exp/transformer data/test.jsonl.gz --method graph --graph exp/lang/graph --jobs 4
    asrtool decode exp/transformer data/test.jsonl.gz --method graph --graph exp/lang/graph --lattices \\
        --nbest 10 --rescore data/lang/4gram.npz --graph-lm data/lang/3gram.arpa
    asrtool decode exp/transformer data/test.jsonl.gz --method graph --graph exp/lang/graph --engine k2
    asrtool decode exp/transformer data/test.jsonl.gz --method graph --graph exp/lang/graph \\
        --adapted exp/transformer/adapted/test

    torchrun shares the batches among processes, on one machine or on several that see the same folders; each takes a
    GPU of its own where there are some. The words are those that one process finds, the real-time factor is that of the
    slowest process, and the first one prints. With --max-restarts, or with the same command again, killed processes go
    on where they were, to half a minute. torchrun does not make a result again that is there: delete its folder first.

    \b
    torchrun --nproc-per-node 2 -m asrtool decode exp/transformer data/test.jsonl.gz
    torchrun --nproc-per-node 8 --max-restarts 3 -m asrtool decode exp/transformer data/test.jsonl.gz --method prefix
    torchrun --nproc-per-node 4 -m asrtool decode exp/transformer data/test.jsonl.gz --device cpu --threads 4
    """
    import torch

    from asrtool.decoding.options import check_options
    from asrtool.decoding.result_folder import set_names
    from asrtool.decoding.runs import decode_runs, plan_runs
    from asrtool.experiment import open_experiment

    given = {name: value for name, value in options.items() if value is not None}
    check_options(methods, given)
    sets = dict(zip(set_names(cuts, names), cuts, strict=True))
    if threads:
        torch.set_num_threads(threads)
    experiment = open_experiment(exp, checkpoint, device)
    runs = plan_runs(experiment, sets, methods, given, checkpoint, adapted, tag, overwrite, max_minutes)
    for facts in decode_runs(experiment, runs, given, jobs, batch_seconds, workers):
        click.echo(_summary(facts))


def _summary(facts: dict) -> str:
    processes = f", {facts['ranks']} processes" if facts["ranks"] > 1 else ""
    return (
        f"{facts['set']} {facts['method']}: {facts['utterances']} utterances, {facts['audio_seconds']:.0f} s of audio, "
        f"RTF {facts['rtf']:.4f} (model {facts['rtf_model']:.4f}, search {facts['rtf_search']:.4f}) "
        f"on {facts['device']}, batches of {facts['batch_seconds']:.0f} s{processes}"
    )


@click.command()
@click.argument("exp", type=PATH)
@click.argument("cuts", type=PATH)
@click.option("--graph", required=True, type=PATH, help="Folder of `asrtool graph`.")
@click.option("--beam", type=POSITIVE, help="Cost beam of the search [default: 16].")
@click.option("--lattice-beam", type=POSITIVE, help="Cost beam of the lattices [default: 8].")
@click.option("--priors", type=PATH, help="JSON list of class counts, divided out of the log-probs.")
@click.option(
    "--also", type=(PATH, PATH, PATH), multiple=True, metavar="EXP CUTS GRAPH", help="A further system; repeatable."
)
@click.option("--out", type=PATH, help="JSON file to write [default: EXP/decode/SET/scales.json].")
@click.option(
    "--rounds", default=2, type=click.IntRange(0, 20), help="Number of refinements, each with half the steps."
)
@click.option("--jobs", default=1, type=JOBS, help="Number of search processes.")
@model_options
def tune(
    exp, cuts, graph, also, out, rounds, jobs, checkpoint, max_minutes, batch_seconds, workers, device, threads,
    **options,
) -> None:  # fmt: skip
    """Find the acoustic scale, blank penalty and insertion penalty with the lowest WER on a development set.

    Stores log-probs in EXP/decode/SET/log_probs and searches each utterance once; prints the WER of the best of the
    scales tried, and writes EXP/decode/SET/scales.json for `asrtool decode --scales`, which has them all.

    Scales follow the speakers they are tuned on: few of them are better for those, and worse for others. --also takes
    the other folds of a cross-validation, each with its own graph, and adds up the errors of all.

    \b
    asrtool tune exp/transformer data/dev.jsonl.gz --graph exp/lang/graph
    asrtool decode exp/transformer data/test.jsonl.gz --method graph --graph exp/lang/graph \\
        --scales exp/transformer/decode/dev/scales.json
    """
    import torch

    from asrtool.decoding.checks import check_cuts
    from asrtool.decoding.options import LATTICE_BEAM, open_search
    from asrtool.decoding.tuning import Grid, Scales, System, tune_systems
    from asrtool.errors import UserError
    from asrtool.experiment import open_experiment

    if threads:
        torch.set_num_threads(threads)
    if also and options["priors"]:
        raise UserError("--priors are of one system's classes, and --also names another; tune each system alone")
    given = {"lattice_beam": LATTICE_BEAM} | {name: value for name, value in options.items() if value is not None}
    systems = []
    for folder, manifest, its_graph in ((exp, cuts, graph), *also):
        experiment = open_experiment(folder, checkpoint, device)
        check_cuts(manifest, max_minutes, experiment.config.data.max_seconds)
        experiment.max_seconds = 60 * max_minutes
        search, _ = open_search("graph", experiment.tokenizer, given | {"graph": its_graph}, jobs)
        systems.append(System(experiment, manifest, search))
    facts = tune_systems(systems, out or systems[0].folder / "scales.json", Grid(rounds=rounds), batch_seconds, workers)
    for row in sorted(facts["tried"], key=lambda row: row["wer"])[:SHOWN]:
        click.echo(f"WER {row.pop('wer'):.2f} %: {Scales(**row)}")
    click.echo(f"best: WER {facts['wer']:.2f} % in the lattices, {facts['decoded']:.2f} % decoded: ", nl=False)
    click.echo(f"{Scales(**facts['best'])}; {facts['before']:.2f} % without any")


@click.command()
@click.argument("folder", type=PATH)
@click.argument("out", type=PATH)
@click.option("--lm", "neural", type=PATH, help="Neural language model, of `asrtool lm train-neural`.")
@click.option("--ngram", type=PATH, help="n-gram model of --rescore that FOLDER was decoded with; needed with --lm.")
@click.option("--weight", default=0.5, type=SHARE, help="Weight of the neural model in the mixture of both.")
@click.option(
    "--context",
    type=click.IntRange(0, LONGEST_CONTEXT),
    help="Words of context, at most those of training.",
)
@click.option("--mbr", is_flag=True, help="Take the hypothesis with the fewest expected word errors.")
@click.option("--overwrite", is_flag=True, help="Replace a result of other options in OUT.")
@device_option()
def rescore(folder, out, neural, ngram, mbr, overwrite, **options) -> None:
    """Choose from n-best lists: by a mixture of an n-gram and a neural language model, minimum Bayes risk, or both.

    A model with a context takes an utterance as what comes after the best hypotheses of the same speaker's ones before.
    --mbr takes the scores for log-probs of what was said, and of the n hypotheses the one that is nearest to it.

    \b
    asrtool decode exp/transformer data/test.jsonl.gz --method graph --graph data/lang/graph \\
        --rescore data/lang/4gram.npz --graph-lm data/lang/3gram.arpa --nbest 100
    asrtool rescore exp/transformer/decode/test/rescored exp/transformer/decode/test/neural \\
        --lm data/lang/lm.pt --ngram data/lang/4gram.npz --mbr
    asrtool rescore exp/transformer/decode/test/rescored exp/transformer/decode/test/mbr --mbr
    """
    if (neural is None) != (ngram is None):
        raise click.UsageError("--lm and --ngram go together")
    if neural is None and not mbr:
        raise click.UsageError("give --lm and --ngram, or --mbr, or both")
    from asrtool.decoding.rescoring import Models, rescore_folder

    facts = rescore_folder(folder, out, Models(neural, ngram, **options) if neural else None, mbr, overwrite)
    seconds, device = facts["rescoring_seconds"], facts["rescoring_device"]
    click.echo(f"{out}: {facts.get('utterances', '')} utterances, {seconds:.1f} s on {device}")


@click.command()
@click.argument("folders", type=PATH, nargs=-1, required=True)
@click.option("--name", help="Name of the set [default: the one that it was decoded under].")
@click.option("--pool", "pooled", metavar="NAME", help="Also score all utterances as one set of this name.")
@click.option("--against", type=PATH, multiple=True, help="Folder to compare with, by paired bootstrap; repeatable.")
def score(folders, name, pooled, against) -> None:
    """Word error rate of decoded folders, with its 95 % bootstrap interval: one line a folder.

    Beside hyps.jsonl it writes wer.json, report.txt (confusions, speakers), and alignments.txt and .jsonl (every
    utterance).

    \b
    asrtool score exp/transformer/decode/test/greedy
    asrtool score exp/transformer/decode/*/prefix
    asrtool score fold_*/exp/transformer/decode/held_out/graph --pool "all folds"
    asrtool score exp/transformer/decode/test/graph --against exp/blstm/decode/test/graph
    """
    from asrtool.scoring.folder import compare_folders, score_folder, score_pooled, set_name
    from asrtool.scoring.report import difference_line, speaker_interval_lines, summary_line

    def print_difference(scored_folders):
        if against:
            click.echo(difference_line(compare_folders(scored_folders, against)))

    for folder in folders:
        click.echo(summary_line(name or set_name(folder), score_folder(folder, name)))
        print_difference([folder])
    if pooled:
        pooled_score = score_pooled(folders)
        click.echo(summary_line(pooled, pooled_score))
        for line in speaker_interval_lines(pooled_score):
            click.echo(line)
        print_difference(folders)
