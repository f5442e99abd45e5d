"""`asrtool stream`."""

import click

from asrtool.cli.options import (
    PATH,
    Number,
    allow_commands,
    checkpoint_option,
    device_option,
    max_minutes,
    set_options,
    threads_option,
)
from asrtool.cli.search_options import (
    METHOD,
    beam_option,
    graph_option,
    graph_search_options,
    hotwords_option,
    prefix_search_options,
)

CHUNK_MS = Number(1, 60_000)  # from less than a frame to a minute


@click.command()
@click.argument("exp", type=PATH)
@click.argument("cuts", type=PATH, nargs=-1)
@click.option("--wav", type=PATH, help="Audio file to recognise, printed while it is read; instead of CUTS.")
@click.option("--method", default="greedy", type=METHOD, help="Search method.")
@click.option(
    "--chunk-ms",
    type=CHUNK_MS,
    show_default="the model's chunk, at least 100",
    help="Audio that arrives at a time, in milliseconds.",
)
@click.option(
    "--endpoint",
    "rules",
    multiple=True,
    show_default="none; with --wav Kaldi's five rules",
    help="Endpointing rule that ends an utterance, as above; repeatable.",
)
@click.option("--alignments", type=PATH, help="Manifest with alignments of the words, if CUTS have none.")
@beam_option
@prefix_search_options
@hotwords_option
@graph_option
@graph_search_options
@checkpoint_option()
@click.option(
    "--out", type=PATH, show_default="EXP/stream", help="File or folder to write. Results get OUT/SET/METHOD."
)
@set_options
@max_minutes(60)
@device_option("cpu")
@threads_option(1)
@allow_commands
def stream(
    exp, cuts, wav, method, chunk_ms, rules, alignments, checkpoint, out, names, tag, overwrite, max_minutes, device,
    threads, **options,
) -> None:  # fmt: skip
    """Recognise recordings chunk by chunk, as a live stream.

    The model must be one that can stream. EXP may be a pack, whose files are used as in `asrtool decode`, but without
    rescoring. The command writes EXP/stream/SET/METHOD/hyps.jsonl, which `asrtool score` reads, and stream.json;
    --name, --tag and --overwrite are as in `asrtool decode`. It prints the real-time factor, the computing time of a
    chunk, the latency of model and features, and the emission delay: the time from the end of a word in the alignment
    until the word is final. If EXP/decode/SET/METHOD exists, it prints how many words agree.

    An utterance ends with its recording, or where a rule of --endpoint is met; the next one begins right there. A rule
    is one or more of: words (there is a word), trailing=SECONDS (silence at the end), cost=COST (of the best final
    state of the graph, compared with the best path), length=SECONDS. "default" stands for Kaldi's five rules, which
    --wav uses if no rule is given.

    \b
    asrtool stream exp/chunk data/test.jsonl.gz
    asrtool stream exp/chunk data/test.jsonl.gz --method graph --graph exp/lang/graph --alignments data/aligned.jsonl.gz
    asrtool stream exp/chunk data/talks.jsonl.gz --endpoint words,trailing=1.2 --endpoint length=20
    asrtool stream exp/chunk --wav talk.wav --method prefix
    """
    import torch

    from asrtool.decoding.options import require_effect
    from asrtool.decoding.result_folder import set_names
    from asrtool.decoding.runs import plan_streams
    from asrtool.decoding.system_options import search_options
    from asrtool.errors import UserError
    from asrtool.experiment import open_experiment
    from asrtool.streaming.endpointing import parse_rules
    from asrtool.streaming.live import print_recording
    from asrtool.streaming.recogniser import Recogniser
    from asrtool.streaming.report import summary_lines
    from asrtool.streaming.search_setup import open_streaming_search
    from asrtool.streaming.stream import stream_run

    if bool(cuts) == bool(wav):
        raise UserError("give one or more manifests of cuts, or --wav FILE, not both")
    given = {name: value for name, value in options.items() if value is not None}
    require_effect([method], given)
    torch.set_num_threads(threads)
    endpointing = parse_rules(rules or ["default"] if wav else rules)
    sets = dict(zip(set_names(cuts, names), cuts, strict=True))
    experiment = open_experiment(exp, checkpoint, device)
    used = search_options(experiment, method, given, streaming=True)
    setup = open_streaming_search(method, experiment.tokenizer, used)
    recogniser = Recogniser(experiment, setup.new_search, endpointing)
    chunk = chunk_ms and chunk_ms / 1000
    if wav:
        print_recording(recogniser, wav, chunk)
    chosen = given | {"chunk_ms": chunk_ms, "endpoints": rules, "alignments": alignments}
    for run in plan_streams(experiment, sets, method, chosen, checkpoint, tag, overwrite, max_minutes, out):
        facts = stream_run(recogniser, run, setup.settings, chunk, alignments, 60 * max_minutes)
        click.echo("\n".join(summary_lines(facts)))
