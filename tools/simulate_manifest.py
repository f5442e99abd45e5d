"""Writes a manifest as large as for 65,000 hours of audio, without the audio, to measure the cost of so many cuts.

python tools/simulate_manifest.py exp/big                                             # a folder, 20 M cuts, 2.3 GB
python tools/simulate_manifest.py exp/big.jsonl.gz --hours 650 --shape single
python tools/simulate_manifest.py exp/small --hours 10 --audio some.flac              # every recording is this file

Lines are as `asrtool prepare` writes them: cuts of 2 to 20 s, 11.7 s on average, as LibriSpeech's, about three words a
second, 50 cuts in a row of one speaker. They are assembled as text, which is a hundred times faster than
through lhotse's objects. The same options give the same bytes for any --jobs; each file has its own random numbers.

Audio paths do not exist unless --audio is given; then no cut is longer than that file.
"""

import argparse
import gzip
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asrtool.data.audio import InvalidEntry, inspect_mono_audio
from asrtool.errors import AsrtoolError, UserError
from asrtool.files import atomic_path
from asrtool.forking import fork_context
from asrtool.progress import progress

SHORTEST, LONGEST, MEAN = 2.0, 20.0, 11.7  # seconds
SKEW = 2.1, 1.8  # of the beta distribution between them: its mean is MEAN, most are above it
TICK = 0.005  # seconds; lengths are multiples of it, as LibriSpeech's
RATE = 16000  # Hz
WORDS_A_SECOND = 3.0
SPEAKER_CUTS = 50
STOCK = 20_000  # words in a row, of which each text is a stretch
WORDS = """
    a about after again all always am among an and any are as asked at away back be because been before better between
    both boy brought but by called came can children city come could country dark day dear did do door down each earth
    end even ever every eyes face father felt few find fire first for found friend from gave girl give go god gone good
    great had hand happy hard has have he head heard heart her here high him his home horse house how i if in indeed
    into is it its just king knew know land large last left less let life light like little live long look lord love
    made make man many may me men might mind moment more morning most mother much must my name near never new next
    night no not nothing now of off often old on once one only open or other our out over own part people perhaps place
    poor present put quite read right river room round said same saw say sea second see seemed seen set shall she side
    since small so some something soon stood such sun take tell than that the their them then there these they thing
    think this those though thought three through time to together told too took toward tree turned two under until up
    upon us very voice was water way we well went were what when where which while white who whole why will window with
    without woman wood word work world would year yet you young your
"""


class Audio(NamedTuple):
    """The file that all recordings are."""

    path: str
    rate: int  # Hz
    samples: int


class File(NamedTuple):
    """What a file of the manifest is made from."""

    number: int
    cuts: int
    seed: int
    audio: Audio | None


def files(hours: float, cuts_per_file: int, seed: int, audio: Audio | None) -> list[File]:
    """The files that together have about so many hours; the last one is not full."""
    mean = min(MEAN, audio.samples / audio.rate) if audio else MEAN
    cuts = max(1, round(3600 * hours / mean))
    starts = range(0, cuts, cuts_per_file)
    return [File(number, min(cuts_per_file, cuts - start), seed, audio) for number, start in enumerate(starts)]


def make(file: File) -> bytes:
    """The file, compressed, without the time that gzip would write into it."""
    return gzip.compress("".join(lines(file)).encode(), 1, mtime=0)


def lines(file: File) -> Iterator[str]:
    """Yields the lines of a file, one for each cut."""
    draw = np.random.default_rng([file.seed, file.number])
    ticks = np.rint((SHORTEST + (LONGEST - SHORTEST) * draw.beta(*SKEW, file.cuts)) / TICK).astype(int)
    starts, text = stock(file.seed)
    counts = np.maximum(1, np.rint(ticks * TICK * WORDS_A_SECOND)).astype(int)
    first = draw.integers(STOCK - counts)
    spans = zip(starts[first].tolist(), (starts[first + counts] - 1).tolist(), strict=True)
    for number, (tick, (begin, end)) in enumerate(zip(ticks.tolist(), spans, strict=True)):
        speaker = f"{file.number:06d}-{number // SPEAKER_CUTS:04d}"
        yield line(speaker, number % SPEAKER_CUTS, tick / round(1 / TICK), text[begin:end], file.audio)


@lru_cache(maxsize=1)
def stock(seed: int) -> tuple[np.ndarray, str]:
    """STOCK words as one text, and where each of them begins, and where a next one would."""
    words = np.random.default_rng(seed).choice(WORDS.split(), STOCK).tolist()
    return np.cumsum([0, *(len(word) + 1 for word in words)]), " ".join(words) + " "


def line(speaker: str, number: int, seconds: float, text: str, audio: Audio | None) -> str:
    """A cut of a recording of its own."""
    name = f"{speaker}-{number:04d}"
    path, rate, samples = audio or (f"/none/{speaker[:6]}/{speaker}/{name}.flac", RATE, round(seconds * RATE))
    length = samples / rate
    seconds = min(seconds, length)
    return (
        f'{{"id": "{name}", "start": 0.0, "duration": {seconds}, "channel": 0, "supervisions": [{{"id": "{name}", '
        f'"recording_id": "{name}", "start": 0.0, "duration": {seconds}, "channel": 0, "text": "{text}", '
        f'"speaker": "{speaker}"}}], "recording": {{"id": "{name}", "sources": [{{"type": "file", "channels": [0], '
        f'"source": "{path}"}}], "sampling_rate": {rate}, "num_samples": {samples}, "duration": {length}, '
        f'"channel_ids": [0]}}, "type": "MonoCut"}}\n'
    )


def write(out: Path, shape: str, wanted: list[File], jobs: int) -> int:
    """Make the files and write them, one after the other; returns their bytes together."""
    if out.is_file() or out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out} is there already; delete it, or give another name")
    with fork_context().Pool(jobs) as pool:
        made = progress(pool.imap(make, wanted), f"writing {out.name}", len(wanted), "files")
        return write_single(out, made) if shape == "single" else write_folder(out, made)


def write_single(out: Path, made: Iterator[bytes]) -> int:
    """One file: gzip reads compressed files in a row as if they were one."""
    with atomic_path(out) as temporary, open(temporary, "wb") as file:
        return sum(file.write(content) for content in made)


def write_folder(out: Path, made: Iterator[bytes]) -> int:
    """Writes a folder of files, named by their numbers; returns the bytes."""
    out.mkdir(parents=True, exist_ok=True)
    return sum((out / f"{number:06d}.jsonl.gz").write_bytes(content) for number, content in enumerate(made))


def find_audio(path: Path) -> Audio:
    """Returns the facts of the file --audio. Raises UserError."""
    try:
        return Audio(str(path.absolute()), *inspect_mono_audio(str(path)))
    except InvalidEntry as problem:
        raise UserError(f"--audio: {problem}") from problem


def options() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    command_line = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command_line.add_argument("out", type=Path, help="folder to write or, with --shape single, file *.jsonl.gz")
    command_line.add_argument("--hours", type=float, default=65000, help="hours of audio [default: %(default)g]")
    command_line.add_argument("--cuts-per-file", type=int, default=10_000, help="cuts per file [default: %(default)s]")
    command_line.add_argument(
        "--shape",
        choices=["folder", "single"],
        default="folder",
        help="one file or a folder of files [default: %(default)s]",
    )
    command_line.add_argument("--audio", type=Path, help="mono file that every recording refers to")
    command_line.add_argument("--seed", type=int, default=1, help="seed [default: %(default)s]")
    command_line.add_argument("--jobs", type=int, default=2, help="processes [default: %(default)s]")
    return command_line


def main() -> int:
    """Writes the manifest; exit status 2 for a usage error."""
    arguments = options().parse_args()
    try:
        audio = find_audio(arguments.audio) if arguments.audio else None
        wanted = files(arguments.hours, arguments.cuts_per_file, arguments.seed, audio)
        size = write(arguments.out, arguments.shape, wanted, arguments.jobs)
    except AsrtoolError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    cuts = sum(file.cuts for file in wanted)
    print(f"{arguments.out}: {cuts} cuts in {len(wanted)} parts, {size / 1e9:.2f} GB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
