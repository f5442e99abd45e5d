"""`asrtool decode`, `asrtool tune` and `asrtool score`."""

import click

from asrtool.cli.options import PATH, POSITIVE

METHOD = click.Choice(["greedy", "prefix", "graph"])
RESCORED = "rescored"  # the folder of graph with --rescore, beside that without
SHOWN = 5  # of the scales that `asrtool tune` has tried


def _search_options(command):
    """The options of searches; those not given are None, and do not count as given."""
    options = [
        click.option("--beam", type=POSITIVE, help="prefix: number kept, 8. graph: how much worse a path may be, 16."),
        click.option("--nbest", type=click.IntRange(min=1), help="Hypotheses in hyps.jsonl."),
        click.option("--insertion-penalty", type=float, help="Cost of a word; prefix: of a word or unit of --lm."),
        click.option("--lm", type=PATH, help="prefix: an n-gram model, ARPA or KenLM's binary."),
        click.option("--lm-weight", type=click.FloatRange(min=0), help="prefix: of ln P; 0.5."),
        click.option("--lm-units", is_flag=True, default=None, help="prefix: --lm is over units, not words."),
        click.option("--graph", type=PATH, help="graph: folder of `asrtool graph`."),
        click.option("--engine", type=click.Choice(["kaldi", "k2"]), help="graph: kaldi, or k2 for GPUs and batches."),
        click.option("--max-active", type=click.IntRange(min=2), help="graph: states a frame; 7000. Not of lattices."),
        click.option("--min-active", type=click.IntRange(min=0), help="graph: states kept whatever the beam; 20."),
        click.option("--acoustic-scale", type=POSITIVE, help="graph: of log-probs; 1."),
        click.option("--blank-penalty", type=float, help="graph: cost of each frame of blank."),
        click.option("--scales", type=PATH, help="graph: the last three and --insertion-penalty from `asrtool tune`."),
        click.option("--priors", type=PATH, help="graph: JSON list of class counts, divided out of the log-probs."),
        click.option("--lattices", is_flag=True, default=None, help="graph: write lat.gz, a text archive of Kaldi."),
        click.option("--lattice-beam", type=POSITIVE, help="graph: how much worse a path in a lattice may be; 8."),
        click.option("--rescore", type=PATH, help="graph: an n-gram model to take the place of the graph's own."),
        click.option("--graph-lm", type=PATH, help="graph: that one, for --rescore."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@click.argument("exp", type=PATH)
@click.argument("cuts", type=PATH, nargs=-1, required=True)
@click.option("--method", "methods", type=METHOD, multiple=True, default=["greedy"], help="Search; repeatable.")
@_search_options
@click.option("--jobs", default=1, type=click.IntRange(min=1), help="graph: processes that search.")
@click.option("--adapted", type=PATH, help="Weights for each speaker, of `asrtool adapt`.")
@click.option("--checkpoint", default="averaged", help="averaged (else best), best, last, or a path.")
@click.option("--batch-seconds", default=200.0, type=POSITIVE, help="Audio in a batch.")
@click.option("--workers", default=1, type=click.IntRange(min=0), help="Loader processes.")
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; all cores by default.")
def decode(exp, cuts, methods, jobs, adapted, checkpoint, batch_seconds, workers, device, threads, **options) -> None:
    """Recognise the cuts of one or more manifests with a trained experiment.

    Writes EXP/decode/SET/METHOD/hyps.jsonl and decode.json, where SET is the manifest's name and METHOD "rescored" for
    graph with --rescore, and prints the real-time factor of each. With --adapted it is METHOD_adapted, METHOD_adapted2
    in the second round. The same command again goes on where an interrupted one was.

    \b
    asrtool decode exp/transformer data/test.jsonl.gz
    asrtool decode exp/transformer data/dev.jsonl.gz data/test.jsonl.gz --method greedy --method prefix
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

    from asrtool.decoding.decode import decode as run
    from asrtool.decoding.decode import open_experiment
    from asrtool.decoding.options import check_options, open_search

    given = {name: value for name, value in options.items() if value is not None}
    check_options(methods, given)
    if threads:
        torch.set_num_threads(threads)
    experiment = open_experiment(exp, checkpoint, device)
    for method in methods:
        find, settings = open_search(method, experiment.tokenizer, given, jobs)
        for path in cuts:
            name = path.name.split(".")[0]
            words = RESCORED if method == "graph" and "rescore" in given else method
            experiment.adapt(adapted, path)
            out = exp / "decode" / name / (words + (experiment.adapted.suffix if adapted else ""))
            sizes = {"batch_seconds": batch_seconds, "workers": workers}
            facts = run(experiment, path, out, name, method, find=find, settings=settings, **sizes)
            if facts:  # of the first process
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
@click.option("--beam", type=POSITIVE, help="Of the search: how much worse than the best a path may be; 16.")
@click.option("--lattice-beam", type=POSITIVE, help="How much worse a path may be that is kept to be tried; 8.")
@click.option("--priors", type=PATH, help="JSON list of class counts, divided out of the log-probs.")
@click.option("--also", type=(PATH, PATH, PATH), multiple=True, metavar="EXP CUTS GRAPH", help="As well; repeatable.")
@click.option("--out", type=PATH, help="File to write; EXP/decode/SET/scales.json.")
@click.option("--rounds", default=2, type=click.IntRange(min=0), help="Refinements, each with half the steps.")
@click.option("--jobs", default=1, type=click.IntRange(min=1), help="Processes that make the lattices.")
@click.option("--checkpoint", default="averaged", help="averaged (else best), best, last, or a path.")
@click.option("--batch-seconds", default=200.0, type=POSITIVE, help="Audio in a batch.")
@click.option("--workers", default=1, type=click.IntRange(min=0), help="Loader processes.")
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; all cores by default.")
def tune(
    exp, cuts, graph, also, out, rounds, jobs, checkpoint, batch_seconds, workers, device, threads, **options
) -> None:
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

    from asrtool.decoding.decode import open_experiment
    from asrtool.decoding.options import LATTICE_BEAM, open_search
    from asrtool.decoding.tuning import Grid, Scales, System, tune_systems
    from asrtool.errors import UserError

    if threads:
        torch.set_num_threads(threads)
    if also and options["priors"]:
        raise UserError("--priors are of one system's classes, and --also names another; tune each system alone")
    given = {"lattice_beam": LATTICE_BEAM} | {name: value for name, value in options.items() if value is not None}
    systems = []
    for folder, manifest, its_graph in ((exp, cuts, graph), *also):
        experiment = open_experiment(folder, checkpoint, device)
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
@click.option("--lm", "neural", type=PATH, help="Of `asrtool lm train-neural`.")
@click.option("--ngram", type=PATH, help="For --lm: that FOLDER was decoded with, as --rescore.")
@click.option("--weight", default=0.5, type=click.FloatRange(0, 1), help="Of the neural model in the mixture of both.")
@click.option("--context", type=click.IntRange(0), help="As --context of its training, which is the default, or fewer.")
@click.option("--mbr", is_flag=True, help="Take the hypothesis with the fewest expected word errors.")
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
def rescore(folder, out, neural, ngram, mbr, **options) -> None:
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

    facts = rescore_folder(folder, out, Models(neural, ngram, **options) if neural else None, mbr)
    seconds, device = facts["rescoring_seconds"], facts["rescoring_device"]
    click.echo(f"{out}: {facts.get('utterances', '')} utterances, {seconds:.1f} s on {device}")


@click.command()
@click.argument("folders", type=PATH, nargs=-1, required=True)
@click.option("--name", help="Name of the set; that it was decoded under by default.")
@click.option("--pool", "pooled", metavar="NAME", help="Also all utterances as one set of this name.")
@click.option("--against", type=PATH, multiple=True, help="A folder to compare with, by paired bootstrap; or several.")
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
    from asrtool.scoring.folder import compare, pool, score_folder, set_name
    from asrtool.scoring.report import difference_line, speakers_lines, summary_line

    def say(line, of):
        click.echo(line)
        if against:
            click.echo(difference_line(compare(of, against)))

    for folder in folders:
        say(summary_line(name or set_name(folder), score_folder(folder, name)), [folder])
    if pooled:
        found = pool(folders)
        say("\n".join([summary_line(pooled, found), *speakers_lines(found)]), folders)
