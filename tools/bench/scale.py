"""The cost of large manifests: seconds until the first batch, cuts per second, and memory.

python tools/bench/scale.py exp/big                                # a folder, e.g. from tools/simulate_manifest.py
python tools/bench/scale.py exp/big.jsonl.gz --lines 20000000

Each case runs in its own process, to measure its memory (on Linux only):

    stream      TrainingSampler, from its construction to its first batch, and on to batch --batches; no audio is
                loaded. Baseline: lhotse's DynamicBucketingSampler with the same seconds in a batch, buckets and seed
    resume      TrainingSampler from 90 % of epoch 0 on, of its files or of the --lines of one file, to its first batch
    inspection  the scan of the first --inspect cuts before training starts, with a tokenizer of characters

Cuts per second count all batches and the whole time, which includes reading ahead for later batches: with more batches
this weighs less. Audio is never opened.
"""

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path

import corpus
import torch
from common import environment, parse, parser, write_json
from lhotse import CutSet
from lhotse.dataset import DynamicBucketingSampler

from asrtool.config import Config
from asrtool.data import inspection
from asrtool.data.batch import Position
from asrtool.data.sampling import TrainingSampler
from asrtool.data.shards import entries, manifest_files
from asrtool.errors import AsrtoolError, UserError
from asrtool.models.acoustic import AcousticModel
from asrtool.objectives.ctc import min_frames
from asrtool.text.tokenizer import Tokenizer, load_tokenizer
from asrtool.text.tokenizer_training import train_tokenizer

RESUMED = 0.9  # of an epoch
TOKENIZER_CUTS = 10_000  # whose characters form the tokenizer; give --tokenizer for languages with more characters
TINY = {"dim": 16, "layers": 1, "heads": 2, "ff_dim": 32}  # inspection asks a model for its subsampling alone
Work = Callable[[argparse.Namespace], dict[str, float]]


def our_stream(arguments: argparse.Namespace) -> dict[str, float]:
    """Measures asrtool's sampler."""
    return stream(lambda: (len(item.entries) for item in sampler(arguments)), arguments.batches)


def lhotse_stream(arguments: argparse.Namespace) -> dict[str, float]:
    """Measures lhotse's sampler."""

    def sizes() -> Iterator[int]:
        cuts = CutSet.from_files(manifest_files(arguments.manifest), seed=1)
        data = config(arguments).data
        options = {"num_buckets": data.num_buckets, "shuffle": True, "seed": 1}
        return map(len, DynamicBucketingSampler(cuts, max_duration=data.batch_seconds, **options))

    return stream(sizes, arguments.batches)


def stream(sizes: Callable[[], Iterator[int]], batches: int) -> dict[str, float]:
    """What so many batches cost, given the numbers of their cuts as an iterator."""
    found, begin, cuts, early = {"MB, imports alone": memory()}, time.perf_counter(), 0, batches // 10
    for number, size in enumerate(islice(sizes(), batches), 1):
        cuts += size
        if number == 1:
            found |= {"s to the first batch": time.perf_counter() - begin, "MB at the first batch": memory()}
        if number <= early:
            before = memory()
    found |= {"batches": number, "cuts": cuts, "cuts a second": cuts / (time.perf_counter() - begin)}
    found |= {f"MB after {early} batches": before, "MB at the end": memory(), "MB at most": memory("VmHWM")}
    return found | {"MB grown between": found["MB at the end"] - before}


def resume(arguments: argparse.Namespace) -> dict[str, float]:
    """Measures asrtool's sampler when it resumes late in an epoch."""
    begin = time.perf_counter()
    next(iter(sampler(arguments, late(arguments))))
    return {"s to the first batch": time.perf_counter() - begin, "MB at most": memory("VmHWM")}


def sampler(arguments: argparse.Namespace, start: Position | None = None) -> TrainingSampler:
    """The sampler of training, from `start` on."""
    chosen = config(arguments)
    return TrainingSampler(chosen.data, chosen.seed, start=start)


def late(arguments: argparse.Namespace) -> Position:
    """RESUMED of epoch 0, without counting cuts."""
    files = len(manifest_files(arguments.manifest))
    if files > 1:
        return Position(file=int(RESUMED * files))
    return Position(line=int(RESUMED * arguments.lines))


def inspect(arguments: argparse.Namespace) -> dict[str, float]:
    """Measures the scan of a manifest before training."""
    inspection.MAX_CUTS = arguments.inspect
    tokenizer, chosen = find_tokenizer(arguments), config(arguments)
    model = AcousticModel(chosen.model, chosen.features.num_bins, tokenizer.size)
    requirements = inspection.CutRequirements(
        data=chosen.data,
        sampling_rate=chosen.features.sampling_rate,
        tokenizer=tokenizer,
        min_frames=min_frames,
        out_length=model.out_length,
    )
    before, begin = memory(), time.perf_counter()
    found = inspection.inspect_cuts(arguments.manifest, requirements)
    seconds, cuts = time.perf_counter() - begin, found.cuts + len(found.dropped)
    return {"cuts": cuts, "s": seconds, "cuts a second": cuts / seconds, "MB grown": memory("VmHWM") - before}


def find_tokenizer(arguments: argparse.Namespace) -> Tokenizer:
    """That given, or one of the characters of the first cuts."""
    if arguments.tokenizer:
        return load_tokenizer(arguments.tokenizer)
    cuts = (entry.to_dict() for entry in islice(entries(arguments.manifest), TOKENIZER_CUTS))
    return train_tokenizer("char", [s.get("text") or "" for cut in cuts for s in cut.get("supervisions", ())])


def config(arguments: argparse.Namespace) -> Config:
    """The default configuration for the manifest, but for the seconds in a batch and the size of the model."""
    return corpus.config(arguments.manifest, data={"batch_seconds": arguments.batch_seconds}, model=TINY)


def memory(kind: str = "VmRSS") -> float:
    """Returns the current memory of this process in MB, or with "VmHWM" its peak."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) * 1024 / 1e6


def measure(work: Work, arguments: argparse.Namespace) -> dict[str, float]:
    """The medians of what `work` finds in --repeats fresh processes, fewer when --limit is over."""
    turns, begin = [], time.perf_counter()
    while len(turns) < arguments.repeats and (not turns or time.perf_counter() - begin < arguments.limit):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            turns.append(pool.submit(work, arguments).result())
    return {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}


def options() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    command_line = parser(__doc__, repeats=1)
    command_line.add_argument("manifest", type=Path, help="manifest file, a folder of manifest files, or Shar")
    command_line.add_argument("--batches", type=int, default=2000, help="batches of `stream` [default: %(default)s]")
    text = "of audio in a batch: many, so that the stream is of several blocks [default: %(default)g]"
    command_line.add_argument("--batch-seconds", type=float, default=800, help=text)
    command_line.add_argument("--lines", type=int, help="lines of a manifest in one file; needed by `resume`")
    command_line.add_argument(
        "--inspect",
        type=int,
        default=inspection.MAX_CUTS,
        help="cuts to scan in `inspection`, as training does [default: %(default)s]",
    )
    command_line.add_argument("--tokenizer", type=Path, help="tokenizer to use [default: characters]")
    command_line.add_argument(
        "--cases", nargs="+", choices=["stream", "resume", "inspection"], help="cases to measure [default: all]"
    )
    return command_line


def cases(arguments: argparse.Namespace) -> Iterator[tuple[str, str, Work]]:
    """What is measured, of whom, and how. Raises UserError."""
    known = len(manifest_files(arguments.manifest)) > 1 or arguments.lines
    if arguments.batches < 10:
        raise UserError("--batches must be 10 or more: memory is looked at after a tenth of them")
    yield "stream", "asrtool", our_stream
    yield "stream", "lhotse", lhotse_stream
    if known:
        yield "resume", "asrtool", resume
    yield "inspection", "asrtool", inspect


def run(arguments: argparse.Namespace) -> dict:
    """All figures, printed as they come. Raises UserError."""
    out, chosen = sys.stderr if arguments.json == "-" else sys.stdout, list(cases(arguments))
    size = sum(file.stat().st_size for file in manifest_files(arguments.manifest))
    sizes = {name: value for name, value in vars(arguments).items() if name != "json"} | {"bytes": size}
    facts = {"benchmark": "scale", **environment(), "sizes": sizes, "rows": [], "facts": {}}
    print(f"scale: {facts['device']}, {facts['cores']} cores, load {facts['load']}; {size / 1e9:.3g} GB", file=out)
    for case, what, work in chosen:
        if arguments.cases and case not in arguments.cases:
            continue
        figures = measure(work, arguments)
        facts["rows"].append({"case": case, "what": what, "baseline": what == "lhotse", **figures})
        for name, value in figures.items():
            print(f"{case:12} {what:8} {name:26} {value:12,.{2 if value < 1000 else 0}f}", file=out, flush=True)
    return facts


def main() -> int:
    """Measures and reports; exit status 2 for a usage error."""
    arguments = parse(options(), batches=20, inspect=1000)
    torch.set_num_threads(1)
    try:
        write_json(run(arguments), arguments.json)
    except AsrtoolError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
