"""`asrtool stream`."""

import click

from asrtool.cli.options import (
    NOT_NEGATIVE,
    NUMBER,
    PATH,
    POSITIVE,
    Number,
    allow_commands,
    checkpoint_option,
    device_option,
    max_minutes,
    set_options,
    threads_option,
)

CHUNK_MS = Number(1, 60_000)  # from less than the samples of a frame to a minute


@click.command()
@click.argument("exp", type=PATH)
@click.argument("cuts", type=PATH, nargs=-1)
@click.option("--wav", type=PATH, help="Audio file to recognise and print while it is read; no CUTS.")
@click.option("--method", default="greedy", type=click.Choice(["greedy", "prefix", "graph"]), help="Search.")
@click.option(
    "--chunk-ms", type=CHUNK_MS, help="Audio that comes at a time [default: the model's chunk, at least 100]."
)
@click.option("--endpoint", "rules", multiple=True, help="Rule that ends an utterance; repeatable. See above.")
@click.option("--alignments", type=PATH, help="Manifest with alignments of the words, if CUTS have none.")
@click.option("--beam", type=POSITIVE, help="prefix: prefixes kept [default: 8]. graph: cost beam [16].")
@click.option("--insertion-penalty", type=NUMBER, help="Cost of a word; prefix: of a word or unit of --lm.")
@click.option("--lm", type=PATH, help="prefix: n-gram model, ARPA, .npz or KenLM binary.")
@click.option("--lm-weight", type=NOT_NEGATIVE, help="prefix: weight of the LM's log-probs [default: 0.5].")
@click.option("--lm-units", is_flag=True, default=None, help="prefix: the model of --lm is over units.")
@click.option("--graph", type=PATH, help="graph: folder of `asrtool graph`.")
@click.option("--max-active", type=click.IntRange(min=2), help="graph: most states a frame [default: 7000].")
@click.option("--min-active", type=click.IntRange(min=0), help="graph: least states a frame [default: 20].")
@click.option("--acoustic-scale", type=POSITIVE, help="graph: scale of the log-probs [default: 1].")
@click.option("--blank-penalty", type=NUMBER, help="graph: cost of each blank frame [default: 0].")
@click.option("--scales", type=PATH, help="graph: the scale and both penalties, from `asrtool tune`.")
@click.option("--priors", type=PATH, help="graph: JSON list of class counts, divided out of the log-probs.")
@checkpoint_option()
@set_options
@max_minutes(60)
@device_option("cpu")
@threads_option(1)
@allow_commands
def stream(
    exp, cuts, wav, method, chunk_ms, rules, alignments, checkpoint, names, tag, overwrite, max_minutes, device,
    threads, **options,
) -> None:  # fmt: skip
    """Recognise recordings as if they were spoken now, chunk by chunk from raw audio, with a model that can stream.

    Writes EXP/stream/SET/METHOD/hyps.jsonl, which `asrtool score` takes, and stream.json; --name, --tag and --overwrite
    are as in `asrtool decode`. Prints the real-time factor,
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

    from asrtool.decoding.options import check_options
    from asrtool.decoding.result_folder import set_names
    from asrtool.decoding.runs import plan_streams
    from asrtool.errors import UserError
    from asrtool.experiment import open_experiment
    from asrtool.streaming.endpointing import parse_rules
    from asrtool.streaming.live import show
    from asrtool.streaming.recogniser import open_streaming_search
    from asrtool.streaming.stream import stream as run
    from asrtool.streaming.stream import summary_lines

    if bool(cuts) == bool(wav):
        raise UserError("give one or more manifests of cuts, or --wav FILE")
    given = {name: value for name, value in options.items() if value is not None}
    check_options([method], given)
    torch.set_num_threads(threads)
    endpointing = parse_rules(rules or ["default"] if wav else rules)
    sets = dict(zip(set_names(cuts, names), cuts, strict=True))
    experiment = open_experiment(exp, checkpoint, device)
    setup, chunk = open_streaming_search(method, experiment.tokenizer, given), chunk_ms and chunk_ms / 1000
    if wav:
        show(experiment, setup, wav, chunk, endpointing)
    chosen = given | {"chunk_ms": chunk_ms, "endpoints": rules, "alignments": alignments}
    for one in plan_streams(experiment, sets, method, chosen, checkpoint, tag, overwrite, max_minutes):
        search = (one.cuts, one.out, one.name, method, setup, chunk, endpointing, alignments)
        facts = run(experiment, *search, options=one.options, max_seconds=60 * max_minutes)
        click.echo("\n".join(summary_lines(facts)))
