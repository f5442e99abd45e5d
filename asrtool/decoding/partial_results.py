"""Partial results of a decoding, in files: a store from which an interrupted run resumes.

Each process writes what it has decoded, some batches at a time, into a folder named by the hash of everything that
determines the result (checkpoint, manifest, settings, number of processes), and continues after what is there:

    OUT/parts/RUN/0-000000.jsonl   the first batches of rank 0; of every two if there are two ranks
                  0-000000.gz      their lattices, if there are any
                  0-000001.jsonl   the next ones
                  0-end.json       rank 0 has finished; the number of its files
                  1-000000.jsonl   ...

The first line of a file has its number of batches and of rows, and the times; the others are rows of hyps.jsonl.
The processes do not communicate: the first one waits for the files of the others, and joins them.
"""

import gzip
import itertools
import logging
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from asrtool.device import describe_device
from asrtool.distributed import Ranks
from asrtool.errors import UserError
from asrtool.files import atomic_path, json_line, write_json, write_text
from asrtool.progress import LOG_SECONDS
from asrtool.readers import GZIP_ERRORS, MAX_LINE_BYTES, read_json, read_jsonl

logger = logging.getLogger(__name__)

FILE_KIND = "partial result of a decoding"
BLOCK = 1 << 20  # bytes that are decompressed at once to compare a checksum
POLL_SECONDS = 0.2  # between two looks at the files of other ranks
WAIT_SECONDS = 1800.0  # a rank counts as missing if no rank writes for this long: many times the time of a file


@dataclass
class DecodingTimes:
    """Seconds spent in each part of decoding, without the wait for the first features; audio: seconds decoded."""

    audio: float = 0.0
    model: float = 0.0
    search: float = 0.0
    total: float = 0.0

    @classmethod
    def sum(cls, times: Iterable["DecodingTimes"]) -> "DecodingTimes":
        """Returns the times of work that was done one after the other."""
        result = cls()
        for one in times:
            result.audio += one.audio
            result.model += one.model
            result.search += one.search
            result.total += one.total
        return result

    def facts(self, audio: float, device: torch.device) -> dict:
        """Returns real-time factors (computing time over `audio`, in seconds) and the device that was measured."""
        parts = {"rtf": self.total, "rtf_model": self.model, "rtf_search": self.search}
        factors = {name: round(seconds / max(audio, 1e-9), 5) for name, seconds in parts.items()}
        facts = {"audio_seconds": round(audio, 2), "seconds": round(self.total, 2)}
        return facts | factors | {"device": describe_device(device)}


@dataclass
class DecodedBatches:
    """Some decoded batches of a rank: rows of hyps.jsonl in no order, and lattices as text (in files of their own)."""

    batches: int = 0
    times: DecodingTimes = field(default_factory=DecodingTimes)
    rows: list[dict] = field(default_factory=list)
    lattices: list[str] = field(default_factory=list)


class PartialResults:
    """The partial results of one run, of all its ranks, in `out`/parts/RUN. Each file is written atomically."""

    def __init__(self, out: Path, run: str, ranks: Ranks):
        self.folder = out / "parts" / run
        self.ranks = ranks

    def write(self, number: int, decoded: DecodedBatches) -> None:
        """Writes file `number` of this rank. The rows are written last, since they mark the file as complete.

        Raises UserError for a row that is too long for a reader of hyps.jsonl.
        """
        path = self._path(self.ranks.rank, number)
        if decoded.lattices:
            with atomic_path(path.with_suffix(".gz")) as temporary:
                temporary.write_bytes(gzip.compress("".join(decoded.lattices).encode(), mtime=0))
        head = {"batches": decoded.batches, "times": asdict(decoded.times), "rows": len(decoded.rows)}
        lines = [json_line(head), *map(json_line, decoded.rows)]
        for row, line in zip(decoded.rows, lines[1:], strict=True):
            if len(line.encode()) > MAX_LINE_BYTES:
                problem = f"the hypotheses of {row['id']} take more than {MAX_LINE_BYTES >> 20} MB"
                raise UserError(f"{problem}; give a smaller --nbest, or shorter cuts")
        write_text(path, "".join(lines))

    def finish(self, num_files: int) -> None:
        """Marks this rank as finished, after `num_files` files."""
        write_json(self._end_path(self.ranks.rank), num_files)

    def is_finished(self, rank: int) -> bool:
        """Returns True if `rank` has finished."""
        return self._end_path(rank).is_file()

    def resume(self) -> tuple[int, int]:
        """Returns the number of files that this rank has written so far, and of the batches in them.

        They end before the first missing or damaged file. Those after it are deleted: their batches are decoded again,
        in files of other sizes.
        """
        num_files = num_batches = 0
        with suppress(UserError):
            while True:
                num_batches += _read_file(self._path(self.ranks.rank, num_files), self._hint).batches
                num_files += 1
        for number in itertools.count(num_files):
            path = self._path(self.ranks.rank, number)
            if not path.is_file():
                break
            path.unlink()
        return num_files, num_batches

    def read_rank(self, rank: int) -> list[DecodedBatches]:
        """Returns everything that a finished rank has decoded. Raises UserError for a missing or damaged file.

        The rank has written the number of its files, since a shared file system may list them late.
        """
        return [_read_file(self._path(rank, number), self._hint) for number in range(self._num_files(rank))]

    def _num_files(self, rank: int) -> int:
        count = read_json(self._end_path(rank), FILE_KIND, self._hint)
        if type(count) is not int or count < 0:
            raise UserError(f"{self._end_path(rank)} is damaged; {self._hint}")
        return count

    @property
    def _hint(self) -> str:
        return f"delete {self.folder} and repeat the command"

    def join_lattices(self, out: Path) -> None:
        """Writes all lattices into one file; deletes `out` when there are none.

        Concatenated gzip files are one gzip file.
        """
        counts = [self._num_files(rank) for rank in range(self.ranks.world_size)]
        paths = [
            self._path(rank, number).with_suffix(".gz") for rank, count in enumerate(counts) for number in range(count)
        ]
        if not any(path.is_file() for path in paths):
            out.unlink(missing_ok=True)
            return
        with atomic_path(out) as temporary, open(temporary, "wb") as file:
            for path in filter(Path.is_file, paths):
                _check_gzip(path, self._hint)
                with open(path, "rb") as source:
                    shutil.copyfileobj(source, file)

    def wait(self) -> None:
        """Waits until all ranks have finished. Raises UserError with the others when none writes for WAIT_SECONDS."""
        num_files = 0
        last_write = last_log = time.monotonic()
        while missing := [rank for rank in range(self.ranks.world_size) if not self.is_finished(rank)]:
            now = time.monotonic()
            previous, num_files = num_files, sum(1 for _ in self.folder.iterdir())
            if num_files != previous:
                last_write = now
            if now - last_write > WAIT_SECONDS:
                problem = f"{self._describe(missing)} wrote nothing into {self.folder} for {WAIT_SECONDS:.0f} s"
                raise UserError(f"{problem}; see what went wrong there, and repeat the command to continue")
            if now - last_log > LOG_SECONDS:
                last_log = now
                logger.info(f"waiting for {self._describe(missing)}")
            time.sleep(POLL_SECONDS)

    def remove(self) -> None:
        """Deletes all partial results, also of other runs.

        The folder is renamed first: a half-deleted run must not look like the beginning of one.
        """
        old = self.folder.with_name("old")
        shutil.rmtree(old, ignore_errors=True)
        if self.folder.is_dir():
            self.folder.rename(old)
        shutil.rmtree(old.parent, ignore_errors=True)

    def _path(self, rank: int, number: int) -> Path:
        return self.folder / f"{rank}-{number:06d}.jsonl"

    def _end_path(self, rank: int) -> Path:
        return self.folder / f"{rank}-end.json"

    def _describe(self, ranks: list[int]) -> str:
        return f"rank {', '.join(map(str, ranks))} of 0 to {self.ranks.world_size - 1}"


def _read_file(path: Path, hint: str) -> DecodedBatches:
    """Returns a file's content without its lattices. Raises UserError when it is missing or damaged."""
    lines = read_jsonl(path, hint)
    try:
        head, rows = next(lines), list(lines)
        times = DecodingTimes(**{name: float(seconds) for name, seconds in head["times"].items()})
        if type(head["batches"]) is not int or not all(isinstance(row["id"], str) for row in rows):
            raise TypeError("another type")
        if len(rows) != head["rows"]:
            raise ValueError("rows are missing")
        return DecodedBatches(head["batches"], times, rows)
    except (StopIteration, LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged; {hint}") from error


def _check_gzip(path: Path, hint: str) -> None:
    """Raises UserError for lattices whose checksum differs."""
    try:
        with gzip.open(path, "rb") as source:
            while source.read(BLOCK):
                pass
    except (*GZIP_ERRORS, OSError) as error:
        raise UserError(f"{path} is damaged ({error}); {hint}") from error
