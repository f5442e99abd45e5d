"""`asrtool stream`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asrtool.cli.json_output import json_option
from asrtool.cli.options import (
    PATH,
    Number,
    allow_commands,
    checkpoint_option,
    device_option,
    max_minutes,
    precision_option,
    refuse_options,
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
from asrtool.cli.text_output import print_text

if TYPE_CHECKING:
    from asrtool.live.live import LiveSource

CHUNK_MS = Number(1, 60_000)  # from less than a frame to a minute


def _print_devices(context: click.Context, _option: click.Parameter, is_given: bool) -> None:
    if is_given and not context.resilient_parsing:
        from asrtool.live.input_devices import input_devices

        print_text("\n".join(input_devices()))
        context.exit()


@click.command()
@click.argument("exp", type=PATH)
@click.argument("cuts", type=PATH, nargs=-1)
@click.option("--microphone", is_flag=True, help="Recognise what an input device records.")
@click.option(
    "--input-device",
    show_default="the system's",
    help="Input device of --microphone, its number or a part of its name.",
)
@click.option(
    "--list-devices",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_devices,
    help="Show the input devices, the default one with *.",
)
@click.option(
    "--pcm",
    metavar="RATE[:TYPE[:CHANNELS]]",
    help="Recognise raw PCM on standard input; TYPE is s16le (if not given), s32le or f32le.",
)
@click.option("--wav", type=PATH, help="Audio file to recognise as if it was spoken now; - is standard input.")
@json_option
@click.option(
    "--method",
    type=METHOD,
    show_default="the best that EXP has the files for; for CUTS greedy",
    help="Search method.",
)
@click.option(
    "--chunk-ms",
    type=CHUNK_MS,
    show_default="100; for CUTS the model's chunk, at least 100",
    help="Audio that arrives at a time, in milliseconds.",
)
@click.option(
    "--endpoint",
    "rules",
    multiple=True,
    show_default="default; for CUTS none",
    help="Endpointing rule that ends an utterance, as above; repeatable.",
)
@click.option("--alignments", type=PATH, help="Manifest with alignments of the words, if CUTS have none.")
@beam_option
@prefix_search_options
@hotwords_option
@graph_option
@graph_search_options
@checkpoint_option()
@click.option("--out", type=PATH, show_default="EXP/stream", help="Folder for the results, OUT/SET/METHOD.")
@set_options
@max_minutes(60)
@device_option("cpu")
@precision_option("fp32")
@threads_option(1)
@allow_commands
def stream(
    exp, cuts, microphone, input_device, pcm, wav, as_json, method, chunk_ms, rules, alignments, checkpoint, out, names,
    tag, overwrite, max_minutes, device, precision, threads, **options,
) -> None:  # fmt: skip
    """Recognise live audio, or recordings chunk by chunk as if they were live.

    The model must be one that can stream. EXP may be a pack, whose files are used as in `asrtool decode`, but without
    rescoring.

    Live audio comes from one of --microphone, --pcm and --wav, at any sampling rate. A line shows start and end of an
    utterance in seconds, and its words; partial results end in "...". With --json, each line is an object with the
    words, their times and, when they are final, their confidence. When the audio ends, or with Ctrl-C at a microphone
    or a pipe, the last utterance is finished; the exit status is 0.

    With CUTS, the command writes EXP/stream/SET/METHOD/hyps.jsonl, which `asrtool score` reads, and stream.json;
    --name, --tag and --overwrite are as in `asrtool decode`. It prints the real-time factor, the computing time of a
    chunk, the latency of model and features, and the emission delay: the time from the end of a word in the alignment
    until the word is final. If EXP/decode/SET/METHOD exists, it prints how many words agree.

    An utterance ends with its recording, or where a rule of --endpoint is met; the next one begins right there. A rule
    is one or more of: words (there is a word), trailing=SECONDS (silence at the end), cost=COST (of the best final
    state of the graph, compared with the best path), length=SECONDS. "default" stands for four rules after
    Kaldi's, "none" for no rule.

    \b
    asrtool stream exp/chunk --microphone
    arecord -q -t raw -f S16_LE -r 16000 | asrtool stream exp/chunk --pcm 16000
    ffmpeg -loglevel error -i talk.mp4 -f f32le -ac 2 -ar 48000 - | asrtool stream exp/chunk --pcm 48000:f32le:2 --json
    asrtool stream exp/chunk --wav talk.wav --graph exp/lang/graph
    asrtool stream exp/chunk data/test.jsonl.gz
    asrtool stream exp/chunk data/test.jsonl.gz --method graph --graph exp/lang/graph --alignments data/aligned.jsonl.gz
    asrtool stream exp/chunk data/talks.jsonl.gz --endpoint words,trailing=1.2 --endpoint length=20
    """
    import torch

    from asrtool.decoding.options import require_effect
    from asrtool.decoding.result_folder import set_names
    from asrtool.decoding.runs import plan_streams
    from asrtool.decoding.system_options import search_options, warn_of_unused_weights
    from asrtool.experiment import open_experiment
    from asrtool.streaming.endpointing import parse_rules
    from asrtool.streaming.recogniser import Recogniser
    from asrtool.streaming.report import summary_lines
    from asrtool.streaming.search_setup import open_streaming_search
    from asrtool.streaming.stream import stream_run

    _require_one_input({"CUTS": cuts, "--microphone": microphone, "--pcm": pcm, "--wav": wav})
    _require_use(
        "CUTS", cuts, {"alignments": alignments, "out": out, "name": names, "tag": tag, "overwrite": overwrite}
    )
    _require_use("--microphone", microphone, {"input-device": input_device})
    _require_use("--microphone, --pcm or --wav", not cuts, {"json": as_json})
    given = {name: value for name, value in options.items() if value is not None}
    method = method or ("greedy" if cuts else None)
    if method:
        require_effect([method], given)
    endpointing = parse_rules(rules)
    torch.set_num_threads(threads)
    chunk = chunk_ms and chunk_ms / 1000
    if not cuts:
        refuse_options(("max_minutes",), "CUTS")
        source = _open_source(input_device, pcm, wav)
        system = {"method": method, "checkpoint": checkpoint, "device": device, "precision": precision, **given}
        _print_live(exp, system, source, as_json, rules, chunk)
        return
    sets = dict(zip(set_names(cuts, names), cuts, strict=True))
    experiment = open_experiment(exp, checkpoint, device, precision)
    used = search_options(experiment, method, given, streaming=True)
    warn_of_unused_weights(experiment, method, used)
    setup = open_streaming_search(method, experiment.tokenizer, used, experiment.config.objective.topology)
    recogniser = Recogniser(experiment, setup.new_search, endpointing)
    chosen = given | {"chunk_ms": chunk_ms, "endpoints": rules, "alignments": alignments}
    for run in plan_streams(experiment, sets, method, chosen, checkpoint, tag, overwrite, max_minutes, out):
        facts = stream_run(recogniser, run, setup.settings, chunk, alignments, 60 * max_minutes)
        print_text("\n".join(summary_lines(facts)))


def _require_one_input(inputs: dict[str, Any]) -> None:
    """Raises UserError unless exactly one input was given."""
    from asrtool.errors import UserError

    given = [name for name, value in inputs.items() if value]
    if len(given) != 1:
        found = f"not {' and '.join(given)}" if given else "none is given"
        raise UserError(f"give one input, --microphone, --pcm FORMAT, --wav FILE, or manifests of cuts; {found}")


def _require_use(needed: str, is_there: Any, values: dict[str, Any]) -> None:
    """Raises UserError for an option that was given without the input that it needs."""
    from asrtool.errors import UserError

    for name, value in values.items():
        if value and not is_there:
            raise UserError(f"--{name} has no effect without {needed}")


def _open_source(input_device: str | None, pcm: str | None, wav: Path | None) -> "LiveSource":
    from asrtool.data.pcm import parse_pcm_format
    from asrtool.live.live_sources import AudioFile, PcmPipe
    from asrtool.live.microphone import Microphone

    if pcm:
        return PcmPipe(parse_pcm_format(pcm))
    return AudioFile(wav) if wav else Microphone(input_device)


def _print_live(
    exp: Path, system: dict[str, Any], source: "LiveSource", as_json: bool, rules: Sequence[str], chunk: float | None
) -> None:
    from asrtool.inference.model import load
    from asrtool.live.live import PIECE_SECONDS, print_live
    from asrtool.live.live_output import JsonPrinter, TextPrinter

    printer = JsonPrinter() if as_json else TextPrinter()
    print_live(load(exp, **system), source, printer, rules or ("default",), chunk or PIECE_SECONDS)
