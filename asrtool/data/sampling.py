"""Samplers: which cuts make up each batch, in training (shuffled, bucketed by seconds) and in decoding (in order)."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from asrtool.config import Config
from asrtool.data.augment import (
    draw_speed,
    keyed_generator,
)
from asrtool.data.batch import Position
from asrtool.data.entry_checks import EntryChecks
from asrtool.data.features import MIN_FRAME_SECONDS
from asrtool.data.manifest import speaker_of
from asrtool.data.shards import Entry, entries_with_trees, manifest_files, read_entries
from asrtool.distributed import SINGLE_PROCESS, Ranks
from asrtool.errors import DataError

ROUNDING = 0.001  # seconds: more than a sample, to which a changed speed rounds the length of a cut
BLOCK_CUTS = 50_000  # cuts held for shuffling: about 60 MB, and two seconds to read
BUCKET_BATCHES = 4  # the last batch of a bucket is not full: with fewer batches, that would be many of them


@dataclass(frozen=True)
class CutBatch:
    """The cuts of a batch. `after` is where the data goes on when every rank has had its batch of this round."""

    position: Position
    entries: list[Entry]
    after: Position


class TrainingSampler(Iterable):
    """An endless stream of a rank's items from `start` on: shuffled, bucketed, another order each epoch.

    An epoch is read in blocks of BLOCK_CUTS lines, and a block is parted into batches as a whole. Their order comes
    from (seed, epoch, where the block begins), so that going on in the middle of an epoch reads one block and no more.
    All ranks see the same stream of batches and take turns, across the ends of epochs too. With 2 ranks:

        batch      0 1 2 3 4 | 0 1 2 ...      epoch 0 has five batches
        of rank    0 1 0 1 0 | 1 0 1 ...      each batch has one rank, and each rank has as many as the other
    """

    def __init__(
        self,
        config: Config,
        dropped: frozenset[str] = frozenset(),
        start: Position | None = None,
        ranks: Ranks = SINGLE_PROCESS,
    ):
        self.config, self.dropped, self.start, self.ranks = config, dropped, start or Position(), ranks
        self.files = manifest_files(config.data.train)

    def __iter__(self) -> Iterator[CutBatch]:
        stream = self._stream()
        at, batch = next(stream)
        while True:
            for rank in range(self.ranks.world_size):  # a round
                if rank == self.ranks.rank:
                    mine = at, batch
                at, batch = next(stream)
            yield CutBatch(*mine, after=at)

    def _stream(self) -> Iterator[tuple[Position, list[Entry]]]:
        at, empty = self.start, 0
        while empty < 2:  # ends of epochs since the last batch
            for begin, block in self._blocks(at):
                for number, batch in islice(enumerate(shuffled_batches(block, begin, self.config)), begin.batch, None):
                    empty = 0
                    yield replace(begin, batch=number), batch
                del block  # before the next one is read
            at, empty = Position(at.epoch + 1), empty + 1
        raise DataError(f"nothing of {self.config.data.train} is left to train on", [])

    def _blocks(self, at: Position) -> Iterator[tuple[Position, list[Entry]]]:
        """The blocks of the epoch from the one at `at` on, each with its entries that are kept."""
        begin, kept = at, []
        for number, (file, line, entry) in enumerate(self._lines(at)):
            if number and number % BLOCK_CUTS == 0:
                yield begin, kept
                begin, kept = Position(at.epoch, file, line), []
            if self._is_kept(entry):
                kept.append(entry)
        yield begin, kept

    def _lines(self, at: Position) -> Iterator[tuple[int, int, Entry]]:
        """The epoch's lines from `at` on with where they are. A file is opened once, however many blocks it has."""
        files = list(self.files)
        keyed_generator("files", self.config.seed, at.epoch).shuffle(files)
        first = at.line
        for file in range(at.file, len(files)):
            yield from ((file, line, entry) for line, entry in enumerate(read_entries(files[file], first), first))
            first = 0

    def _is_kept(self, entry: Entry) -> bool:
        return is_trained_on(entry, self.config) and entry.id not in self.dropped


def is_trained_on(entry: Entry, config: Config) -> bool:
    """Whether the cut is as long as the configuration wants them, and has a frame at every speed."""
    shortest = MIN_FRAME_SECONDS * max(config.data.augment.speeds) + ROUNDING
    least = max(config.data.min_seconds, shortest)
    return least <= entry.duration <= config.data.max_seconds


def shuffled_batches(block: list[Entry], at: Position, config: Config) -> list[list[Entry]]:
    """Batches of cuts of similar length, otherwise in any order, which comes from (seed, epoch, file, line)."""
    data, seed, block = config.data, config.seed, list(block)
    draw = keyed_generator("batches", seed, at.epoch, at.file, at.line)
    draw.shuffle(block)
    timed = [(entry.duration / draw_speed(entry.id, data.augment, seed, at.epoch), entry) for entry in block]
    buckets = _buckets(timed, data.num_buckets, data.batch_seconds)
    found = [batch for bucket in buckets for batch in _fill(bucket, data.batch_seconds)]
    draw.shuffle(found)
    return found


Timed = tuple[float, Entry]  # seconds at the speed that was drawn


def _buckets(timed: list[Timed], most: int, batch_seconds: float) -> list[list[Timed]]:
    """Parts of similar length, each with about the same amount of audio, and no fewer than BUCKET_BATCHES batches."""
    total = sum(seconds for seconds, _ in timed)
    count = max(1, min(most, int(total / (BUCKET_BATCHES * batch_seconds))))
    bounds, passed = [], 0.0
    for seconds in sorted(seconds for seconds, _ in timed):
        passed += seconds
        if passed > total * (len(bounds) + 1) / count:
            bounds.append(seconds)
    buckets = [[] for _ in range(len(bounds) + 1)]
    for item in timed:
        buckets[bisect_left(bounds, item[0])].append(item)
    return buckets


class OrderedSampler(Iterable):
    """Every cut of a manifest once, in batches of at most `batch_seconds` with similar lengths together.

    `apart`: one speaker alone in each batch. Raises DataError with all cuts whose line tells that they cannot be used:
    an id that was there before, several supervisions, no audio.
    """

    def __init__(
        self,
        path: Path,
        batch_seconds: float,
        dropped: frozenset[str] = frozenset(),
        ranks: Ranks = SINGLE_PROCESS,
        apart: bool = False,
    ):
        self.path, self.batch_seconds, self.dropped, self.ranks, self.apart = path, batch_seconds, dropped, ranks, apart
        manifest_files(path)

    def __iter__(self) -> Iterator[CutBatch]:
        return islice(self._all(), self.ranks.rank, None, self.ranks.world_size)

    def _all(self) -> Iterator[CutBatch]:
        number, problems = 0, []
        kept = self._checked(problems)
        while window := list(islice(kept, BLOCK_CUTS)):
            if problems:
                raise DataError(f"{len(problems)} cuts of {self.path} cannot be used; mend the manifest", problems)
            for batch in self._batches(window):
                yield CutBatch(Position(batch=number), batch, Position(batch=number + 1))
                number += 1

    def _checked(self, problems: list[str]) -> Iterator[Entry]:
        """The entries that are kept; what is wrong with them is added to `problems`."""
        checks = EntryChecks()
        for entry, tree in entries_with_trees(self.path):
            if entry.id not in self.dropped:
                problem = checks.problem(tree)
                problems += [f"{entry.id}: {problem}"] if problem else []
                yield entry

    def _batches(self, window: list[Entry]) -> Iterator[list[Entry]]:
        groups = [window]
        if self.apart:
            by_speaker: dict[str | None, list[Entry]] = {}
            for entry in window:
                by_speaker.setdefault(speaker_of(entry.tree()), []).append(entry)
            groups = by_speaker.values()
        for group in groups:
            yield from ordered_batches(group, self.batch_seconds)


def ordered_batches(cuts: Iterable[Entry], batch_seconds: float) -> Iterator[list[Entry]]:
    """Batches of at most `batch_seconds`, padding included, the shortest cuts first; a longer cut comes alone."""
    return _fill(sorted(((cut.duration, cut) for cut in cuts), key=lambda item: (item[0], item[1].id)), batch_seconds)


def _fill(timed: Iterable[Timed], batch_seconds: float) -> Iterator[list[Entry]]:
    """Runs of cuts whose padded size stays within `batch_seconds`; a longer cut comes alone."""
    batch, longest = [], 0.0
    for seconds, entry in timed:
        longest = max(longest, seconds)
        if batch and longest * (len(batch) + 1) > batch_seconds:
            yield batch
            batch, longest = [], seconds
        batch.append(entry)
    if batch:
        yield batch
