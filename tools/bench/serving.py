"""Live streams that a server holds in real time: `asrtool serve`, and sherpa-onnx's C++ server with the same model.

    python3 tools/bench/serving.py egs/librispeech/conf/transformer_12l_chunk.yaml --cuts data/dev.jsonl.gz
    python3 tools/bench/serving.py exp/mine --cuts data/dev.jsonl.gz --graph data/lang/graph

Each MODEL is an experiment, or a configuration, whose weights are then random. Rows:

batched          asrtool serve: one step of the model for all streams that have a chunk
batched, bf16    the same with --precision bf16, on a processor that has instructions for it
one at a time    the same with --limit max_batch=1
sherpa-onnx      sherpa-onnx-online-websocket-server with the graph of `asrtool export --runtime sherpa-onnx` (baseline)

Clients in one process of their own send recordings in real time, in packets of --packet seconds, to 127.0.0.1. Servers
and clients share the cores of --cores. Streams count as held if the 99th percentile of the delay of their chunks is at
most --limit-ms (by default the duration of a chunk), delays do not grow, and no result is missing. The delay of a chunk
is from the time at which its last audio was due until its result arrived.

First, a growing load finds the better of several settings of each server, all of which are printed. Then the servers
take turns, and each turn of --seconds halves the interval between the largest number of streams that was held and the
smallest that was not; a server is done when they differ by at most 5 %. `ratio` compares the numbers of streams; its
spread comes from these intervals.

Delays of words are from the end of a word in the audio until it first stood at its place (first), and until it changed
no more (settled), for words that are recognised as in the recording alone. All delays are those of the largest number
of streams held, and `p50/p95/p99` are their percentiles. `compute` is a stream's share of the computing time of a step.
Memory is the proportional set size of a server with its child processes. Linux only.
"""

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from common import parse, parser
from load_models import (
    chunk_timing,
    export_for_sherpa,
    join_recordings,
    random_system,
    words_of_speech,
)
from load_runs import Load
from load_search import Candidate, ServingReport, measure_connections, pick_settings, search_in_turns
from load_servers import asrtool_options, sherpa_binary, sherpa_options

import asrtool
from asrtool.errors import AsrtoolError
from asrtool.precision import uses_bf16

PRESETS = Path(__file__).resolve().parents[2] / "egs" / "librispeech" / "conf"
DEFAULT_MODELS = [str(PRESETS / f"{name}.yaml") for name in ("transformer_12l_chunk", "transformer_xl_12l", "lc_blstm")]
TINY = ["model.layers=1", "model.dim=32", "model.heads=2", "model.ff_dim=32", "model.chunk_size=4"]
SHERPA_THREADS = ["2,1", "1,2"]  # threads for streams, threads of the model in each of them


def options() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    command_line = parser(__doc__, repeats=3)
    add = command_line.add_argument
    add("models", nargs="*", default=DEFAULT_MODELS, metavar="MODEL", help="experiments, packs or configurations")
    add("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE", help="settings of configurations")
    add("--cuts", type=Path, help="manifest of the recordings [default: noise]")
    add("--graph", type=Path, help="decoding graph of experiments [default: greedy search]")
    add(
        "--alignments", type=Path, help="manifest of `asrtool align`, for the ends of words [default: the recogniser's]"
    )
    add("--audio-seconds", type=float, default=180.0, help="audio of --cuts that is looped [default: %(default)g]")
    add("--seconds", type=float, default=15.0, help="duration of a load [default: %(default)g]")
    add("--packet", type=float, default=0.1, help="seconds of audio in a packet [default: %(default)g]")
    add("--limit-ms", type=float, help="99th percentile of the delay of a chunk, at most [default: one chunk]")
    add("--ramp-seconds", type=float, default=8.0, help="duration of a growing load; 0: none [default: %(default)g]")
    add("--first", type=int, default=8, help="streams of the first load without a growing one [default: %(default)s]")
    add("--max-streams", type=int, default=500, help="streams at most [default: %(default)s]")
    add("--threads", type=int, nargs="+", default=[1, 2], help="threads of asrtool, to choose from [default: 1 2]")
    add("--sherpa-threads", nargs="+", default=SHERPA_THREADS, metavar="WORK,MODEL",
        help="work threads of sherpa-onnx and threads of its model, to choose from [default: 2,1 1,2]")  # fmt: skip
    add("--sherpa-batch", type=int, nargs="+", default=[8, 32], help="--max-batch-size, to choose from [default: 8 32]")
    add("--no-sherpa", action="store_true", help="leave sherpa-onnx out")
    add("--no-single", action="store_true", help="leave one stream at a time out")
    add("--exports", type=Path, help="folder for the exports to sherpa-onnx; those in it are used again")
    add("--connections", type=int, default=0, help="short connections, for the growth of memory [default: %(default)s]")
    add("--cores", help="cores of servers and clients, such as 0,1 [default: those of this process]")
    return command_line


def open_candidates(arguments: argparse.Namespace, folder: Path, export: Path | None, facts: dict) -> list[Candidate]:
    """Returns the servers to compare, each with its settings to choose from; the baseline is the last one."""
    search = ["--graph", str(arguments.graph)] if arguments.graph else ["--method", "greedy"]
    servers = [("batched", 64, "fp32")]
    if uses_bf16("auto", torch.device("cpu")):
        servers.append(("batched, bf16", 64, "bf16"))
    if not arguments.no_single:
        servers.append(("one at a time", 1, "fp32"))
    candidates = []
    for name, batch, precision in servers:
        settings = {
            f"threads {threads}": asrtool_options(
                threads, batch, arguments.max_streams, [*search, "--precision", precision]
            )
            for threads in arguments.threads
        }
        candidates.append(Candidate(name, "asrtool", folder, settings))
    if export:
        settings = {
            f"work,model threads {threads}, batch {batch}": sherpa_options(export, facts, threads, batch)
            for threads in arguments.sherpa_threads
            for batch in arguments.sherpa_batch
        }
        candidates.append(Candidate("sherpa-onnx", "sherpa-onnx", folder, settings))
    return candidates


def prepare_load(arguments: argparse.Namespace, folder: Path, work: Path) -> Load:
    """Opens the model, and prepares the audio and the words of the load."""
    found = {"graph": arguments.graph} if arguments.graph else {"method": "greedy"}
    with asrtool.load(folder, device="cpu", **found) as model:
        speech = join_recordings(arguments.cuts, arguments.audio_seconds, model.sampling_rate)
        words, source = words_of_speech(model, speech, arguments.alignments)
        timing = chunk_timing(model)
    audio = work / "audio.npy"
    np.save(audio, speech.samples)
    limit = arguments.limit_ms / 1000 if arguments.limit_ms else timing.chunk
    return Load(speech, audio, words, source, timing, arguments.packet, limit)


def measure_model(report: ServingReport, path: str, arguments: argparse.Namespace, work: Path) -> None:
    """Measures all servers with one model."""
    case = Path(path).stem
    is_config = path.endswith(".yaml")
    folder = random_system(Path(path), arguments.overrides, work / "system") if is_config else Path(path)
    load = prepare_load(arguments, folder, work)
    report.fact(f"{case}: seconds of a chunk, limit of the delay", [load.timing.chunk, load.limit])
    report.fact(f"{case}: words", f"{len(load.words)} in {load.speech.seconds:.0f} s; ends of words: {load.source}")
    export, facts = None, {}
    if sherpa_binary() and not arguments.no_sherpa:
        export = (arguments.exports or work / "sherpa") / case
        facts = export_for_sherpa(folder, export, arguments.graph)
        load = load.with_symbols(export / "words.txt")
    candidates = open_candidates(arguments, folder, export, facts)
    for candidate in candidates:
        pick_settings(report, case, candidate, load, arguments, work)
    with ExitStack() as stack:
        search_in_turns(report, case, candidates, load, arguments, work, stack)
        report.add_candidates(case, candidates)
        if arguments.connections:
            for candidate in candidates:
                measure_connections(report, case, candidate, load, arguments.connections, arguments.max_streams)


def main() -> int:
    """Measures and reports."""
    quick = {"models": DEFAULT_MODELS[:1], "overrides": TINY, "seconds": 1.5, "ramp_seconds": 0.0, "first": 2}
    quick |= {"max_streams": 2, "threads": [1], "sherpa_threads": ["1,1"], "sherpa_batch": [8], "limit_ms": 20_000.0}
    arguments = parse(options(), **quick, connections=10)
    if arguments.cores:
        os.sched_setaffinity(0, {int(core) for core in arguments.cores.split(",")})
    report = ServingReport("serving", arguments, "streams")
    try:
        for path in arguments.models:
            with tempfile.TemporaryDirectory() as work:
                measure_model(report, path, arguments, Path(work))
    except AsrtoolError as error:
        print(f"serving.py: error: {error}", file=sys.stderr)
        return error.exit_status
    report.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
