"""What the processes of a decoding have found so far, in files.

Each process writes what it has decoded, some batches at a time, into a folder named for all that decides over the
result (checkpoint, manifest, settings, number of processes), and begins behind what is there already:

    OUT/parts/RUN/0-000000.json    the first batches of rank 0, of every two if there are two ranks
                  0-000000.gz      their lattices, if there are any
                  0-000001.json    the next ones
                  0-end.json       rank 0 is done, and wrote so many parts
                  1-000000.json    ...

The processes need not talk to each other: the first one waits for the files of the others, and joins them.
"""

import gzip
import itertools
import logging
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import astuple, dataclass, field
from pathlib import Path

import torch

from asrtool.device import describe_device
from asrtool.distributed import Ranks
from asrtool.errors import UserError
from asrtool.files import atomic_path, json_line, write_json, write_text
from asrtool.progress import LOG_SECONDS
from asrtool.readers import GZIP_ERRORS, read_json

logger = logging.getLogger(__name__)

BLOCK = 1 << 20  # bytes that are decompressed at once to compare a checksum
POLL_SECONDS = 0.2  # between two looks for what other ranks have written
WAIT_SECONDS = 1800.0  # without a new part of anybody, after which a rank counts as missing: many times a part's


@dataclass
class DecodingTimes:
    """Seconds spent in each part of decoding, without the wait for the first features."""

    audio: float = 0.0
    model: float = 0.0
    search: float = 0.0
    total: float = 0.0

    @classmethod
    def sum(cls, clocks: Iterable["DecodingTimes"]) -> "DecodingTimes":
        """Of parts that came one after another."""
        return cls(*map(sum, zip(*map(astuple, clocks), strict=True)))

    def facts(self, audio: float, device: torch.device) -> dict:
        """Real-time factors (seconds of computing per second of `audio`), with what they were measured on."""
        parts = {"rtf": self.total, "rtf_model": self.model, "rtf_search": self.search}
        rates = {name: round(seconds / max(audio, 1e-9), 5) for name, seconds in parts.items()}
        return {
            "audio_seconds": round(audio, 2),
            "seconds": round(self.total, 2),
            **rates,
            "device": describe_device(device),
        }


@dataclass
class DecodedBatches:
    """Some batches of a rank, decoded: the rows of hyps.jsonl in no order, and lattices as text (in files apart)."""

    batches: int = 0
    clock: DecodingTimes = field(default_factory=DecodingTimes)
    rows: list[dict] = field(default_factory=list)
    lattices: list[str] = field(default_factory=list)


class PartialResults:
    """The parts of one run, of all its ranks, in `out`/parts/RUN. Every file appears whole or not at all."""

    def __init__(self, out: Path, run: str, ranks: Ranks):
        self.folder, self.ranks = out / "parts" / run, ranks

    def write(self, number: int, part: DecodedBatches) -> None:
        """The part `number` of this rank; its JSON last, for that is what says that it is there."""
        path = self._path(self.ranks.rank, number)
        if part.lattices:
            with atomic_path(path.with_suffix(".gz")) as temporary:
                temporary.write_bytes(gzip.compress("".join(part.lattices).encode(), mtime=0))
        tree = {"batches": part.batches, "clock": vars(part.clock), "rows": part.rows}
        write_text(path, json_line(tree))

    def end(self, number: int) -> None:
        """This rank is done, with `number` parts."""
        write_json(self._end(self.ranks.rank), number)

    def ended(self, rank: int) -> bool:
        """Whether `rank` is done."""
        return self._end(rank).is_file()

    def own(self) -> list[DecodedBatches]:
        """What this rank has decoded so far, up to the first part that is missing or damaged; the others go."""
        found = []
        with suppress(UserError):
            for number in itertools.count():
                found.append(_read_part(self._path(self.ranks.rank, number), self._hint))
        for number in itertools.count(len(found)):  # their batches are decoded again, in parts of other sizes
            path = self._path(self.ranks.rank, number)
            if not path.is_file():
                return found
            path.unlink()

    def share(self, rank: int) -> list[DecodedBatches]:
        """All that a rank that is done has decoded. It said how many: a shared folder may list its files late.

        UserError for a part that is missing or damaged.
        """
        return [_read_part(self._path(rank, part), self._hint) for part in range(self._count(rank))]

    def _count(self, rank: int) -> int:
        number = read_json(self._end(rank), "part of a decoding", self._hint)
        if type(number) is not int or number < 0:
            raise UserError(f"{self._end(rank)} is damaged; {self._hint}")
        return number

    @property
    def _hint(self) -> str:
        return f"delete {self.folder} and repeat the command"

    def join_lattices(self, out: Path) -> None:
        """All lattices in one file, or no such file when there are none. (Gzipped files in a row are one.)"""
        counts = [self._count(rank) for rank in range(self.ranks.world_size)]
        numbers = [(rank, number) for rank, count in enumerate(counts) for number in range(count)]
        paths = [self._path(*place).with_suffix(".gz") for place in numbers]
        if not any(path.is_file() for path in paths):
            out.unlink(missing_ok=True)
            return
        with atomic_path(out) as temporary, open(temporary, "wb") as file:
            for path in filter(Path.is_file, paths):
                _check_gzip(path, self._hint)
                with open(path, "rb") as source:
                    shutil.copyfileobj(source, file)

    def wait(self) -> None:
        """Until all ranks are done; UserError with those that are not when nobody has written for WAIT_SECONDS."""
        files, written = 0, time.monotonic()
        said = written
        while missing := [rank for rank in range(self.ranks.world_size) if not self.ended(rank)]:
            now, before, files = time.monotonic(), files, sum(1 for _ in self.folder.iterdir())
            written = written if files == before else now
            if now - written > WAIT_SECONDS:
                problem = f"{self._names(missing)} wrote nothing into {self.folder} for {WAIT_SECONDS:.0f} s"
                raise UserError(f"{problem}; see what went wrong there, and repeat the command to go on")
            if now - said > LOG_SECONDS:
                said = now
                logger.info(f"waiting for {self._names(missing)}")
            time.sleep(POLL_SECONDS)

    def remove(self) -> None:
        """All parts, of other runs too. Away by name first: what is left of a run must not look like its beginning."""
        old = self.folder.with_name("old")
        shutil.rmtree(old, ignore_errors=True)
        if self.folder.is_dir():
            self.folder.rename(old)
        shutil.rmtree(old.parent, ignore_errors=True)

    def _path(self, rank: int, number: int) -> Path:
        return self.folder / f"{rank}-{number:06d}.json"

    def _end(self, rank: int) -> Path:
        return self.folder / f"{rank}-end.json"

    def _names(self, ranks: list[int]) -> str:
        return f"rank {', '.join(map(str, ranks))} of 0 to {self.ranks.world_size - 1}"


def _read_part(path: Path, hint: str) -> DecodedBatches:
    """A part without its lattices; UserError when it is missing or damaged."""
    tree = read_json(path, "part of a decoding", hint)
    try:
        clock = DecodingTimes(**{name: float(seconds) for name, seconds in tree["clock"].items()})
        if type(tree["batches"]) is not int or not all(isinstance(row["id"], str) for row in tree["rows"]):
            raise TypeError("another type")
        return DecodedBatches(tree["batches"], clock, tree["rows"])
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged; {hint}") from error


def _check_gzip(path: Path, hint: str) -> None:
    """UserError for lattices whose checksum differs."""
    try:
        with gzip.open(path, "rb") as source:
            while source.read(BLOCK):
                pass
    except (*GZIP_ERRORS, OSError) as error:
        raise UserError(f"{path} is damaged ({error}); {hint}") from error
