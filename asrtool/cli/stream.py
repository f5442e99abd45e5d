"""`asrtool stream`."""

import click

from asrtool.cli.options import PATH, POSITIVE


@click.command()
@click.argument("exp", type=PATH)
@click.argument("cuts", type=PATH, nargs=-1)
@click.option("--wav", type=PATH, help="Show what is understood of this recording while it comes; no CUTS.")
@click.option("--method", default="greedy", type=click.Choice(["greedy", "prefix", "graph"]), help="Search.")
@click.option("--chunk-ms", type=POSITIVE, help="Audio that comes at a time; the model's own chunk, at least 100.")
@click.option("--endpoint", "rules", multiple=True, help="Rule to end an utterance by; repeatable. See above.")
@click.option("--alignments", type=PATH, help="Manifest with alignments of the words, if CUTS have none.")
@click.option("--beam", type=POSITIVE, help="prefix: number kept, 8. graph: how much worse a path may be, 16.")
@click.option("--insertion-penalty", type=float, help="Cost of a word; prefix: of a word or unit of --lm.")
@click.option("--lm", type=PATH, help="prefix: an n-gram model, ARPA or KenLM's binary.")
@click.option("--lm-weight", type=click.FloatRange(min=0), help="prefix: of ln P; 0.5.")
@click.option("--lm-units", is_flag=True, default=None, help="prefix: --lm is over units, not words.")
@click.option("--graph", type=PATH, help="graph: folder of `asrtool graph`.")
@click.option("--max-active", type=click.IntRange(min=2), help="graph: states a frame; 7000.")
@click.option("--min-active", type=click.IntRange(min=0), help="graph: states kept whatever the beam; 20.")
@click.option("--acoustic-scale", type=POSITIVE, help="graph: of log-probs; 1.")
@click.option("--blank-penalty", type=float, help="graph: cost of each frame of blank.")
@click.option("--scales", type=PATH, help="graph: the last two and --insertion-penalty from `asrtool tune`.")
@click.option("--priors", type=PATH, help="graph: JSON list of class counts, divided out of the log-probs.")
@click.option("--checkpoint", default="averaged", help="averaged (else best), best, last, or a path.")
@click.option("--device", default="cpu", help="auto, cpu, cuda or cuda:N.")
@click.option("--threads", default=1, type=click.IntRange(min=1), help="CPU threads.")
def stream(exp, cuts, wav, method, chunk_ms, rules, alignments, checkpoint, device, threads, **options) -> None:
    """Recognise recordings as if they were spoken now, chunk by chunk from raw audio, with a model that can stream.

    Writes EXP/stream/SET/METHOD/hyps.jsonl, which `asrtool score` takes, and stream.json. Prints the real-time factor,
    what each chunk costs, the latency of model and features, and the emission delay: from the end of a word, where
    alignments say it, until it was there for good. Beside EXP/decode/SET/METHOD it says how many words are the same.

    An utterance ends with its recording, or where an --endpoint has it; the next one begins right there. A rule is one
    or more of: words (there are some), trailing=SECONDS of silence, cost=COST of the best final state of the graph
    against the best path, length=SECONDS. "default" stands for Kaldi's five rules; --wav has them if none is given.

    \b
    asrtool stream exp/chunk data/test.jsonl.gz
    asrtool stream exp/chunk data/test.jsonl.gz --method graph --graph exp/lang/graph --alignments data/aligned.jsonl.gz
    asrtool stream exp/chunk data/talks.jsonl.gz --endpoint words,trailing=1.2 --endpoint length=20
    asrtool stream exp/chunk --wav talk.wav --method prefix
    """
    import torch

    from asrtool.decoding.decode import open_experiment
    from asrtool.decoding.endpointing import parse_rules
    from asrtool.decoding.options import check_options
    from asrtool.decoding.recogniser import open_stream_search
    from asrtool.decoding.stream import stream as run
    from asrtool.decoding.stream import summary_lines
    from asrtool.errors import UserError

    if bool(cuts) == bool(wav):
        raise UserError("give one or more manifests of cuts, or --wav FILE")
    given = {name: value for name, value in options.items() if value is not None}
    check_options([method], given)
    torch.set_num_threads(threads)
    endpointing = parse_rules(rules or ["default"] if wav else rules)
    experiment = open_experiment(exp, checkpoint, device)
    setup, chunk = open_stream_search(method, experiment.tokenizer, given), chunk_ms and chunk_ms / 1000
    if wav:
        from asrtool.decoding.live import show

        show(experiment, setup, wav, chunk, endpointing)
    for path in cuts:
        name = path.name.split(".")[0]
        out = exp / "stream" / name / method
        click.echo(
            "\n".join(summary_lines(run(experiment, path, out, name, method, setup, chunk, endpointing, alignments)))
        )
