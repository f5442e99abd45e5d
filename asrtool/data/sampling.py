"""Samplers: which cuts make up each batch, in training (shuffled, in buckets by length) and in decoding (in order)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from asrtool.config_data import DataConfig
from asrtool.data.augment import draw_speed, keyed_generator
from asrtool.data.batch import Position
from asrtool.data.batch_cost import LINEAR_COST, UtteranceCost, pack, pairs_of_batches
from asrtool.data.corpus_lines import epoch_lines, is_trained_on
from asrtool.data.entry_checks import EntryChecks
from asrtool.data.manifest import speaker_of
from asrtool.data.mixing import CorpusMixture, CorpusSize, measure_corpora
from asrtool.data.shards import Entry, entries_with_dicts, manifest_files
from asrtool.distributed import SINGLE_PROCESS, Ranks
from asrtool.errors import DataError

BLOCK_CUTS = 50_000  # cuts held for shuffling: about 60 MB, and two seconds to read


@dataclass(frozen=True)
class CutBatch:
    """The manifest entries of one batch, from which a loader process makes a `Batch`."""

    position: Position
    entries: list[Entry]
    next_position: Position  # where the data goes on after every rank's batch of this round


class TrainingSampler(Iterable[CutBatch]):
    """An endless stream of a rank's batches from `start` on: shuffled, bucketed, in another order each epoch.

    An epoch is read in blocks of BLOCK_CUTS lines, and each block is divided into batches. Their order depends on
    (seed, epoch, where the block begins), so that resuming in the middle of an epoch reads one block and no more.
    All ranks see the same stream of batches and take turns, across the ends of epochs too. `dropped` has the ids of
    cuts that are left out. Several corpora are mixed (asrtool/data/mixing.py); `sizes` has what is trained on of each,
    and is measured if it is not given. `cost` says what an utterance costs the model: all batches cost about the same,
    at most `data.batch_seconds`, so that ranks do not wait for each other. With 2 ranks:

        batch      0 1 2 3 4 | 0 1 2 ...      epoch 0 has five batches
        of rank    0 1 0 1 0 | 1 0 1 ...      each batch has one rank, and each rank has as many as the other
    """

    def __init__(
        self,
        data: DataConfig,
        seed: int,
        dropped: frozenset[str] = frozenset(),
        start: Position | None = None,
        ranks: Ranks = SINGLE_PROCESS,
        sizes: Sequence[CorpusSize] | None = None,
        cost: UtteranceCost = LINEAR_COST,
    ):
        self.data = data
        self.seed = seed
        self.dropped = dropped
        self.start = start or Position()
        self.ranks = ranks
        self.cost = cost
        self.mixture: CorpusMixture | None = None
        if isinstance(data.train, tuple):
            self.mixture = CorpusMixture(data, seed, dropped, sizes or measure_corpora(data, dropped))

    def __iter__(self) -> Iterator[CutBatch]:
        stream = self._batches_of_all_ranks()
        position, entries = next(stream)  # one batch ahead: its position is where the next round begins
        while True:
            for rank in range(self.ranks.world_size):  # one round: a batch for each rank
                if rank == self.ranks.rank:
                    own_position, own_entries = position, entries
                position, entries = next(stream)
            yield CutBatch(own_position, own_entries, next_position=position)

    def _batches_of_all_ranks(self) -> Iterator[tuple[Position, list[Entry]]]:
        blocks = self.mixture.blocks(self.start, BLOCK_CUTS) if self.mixture else self._blocks()
        for begin, block in blocks:
            batches = shuffled_batches(block, begin, self.data, self.seed, self.cost)
            for number in range(begin.batch, len(batches)):
                yield replace(begin, batch=number), batches[number]
            del block, batches  # before the next block is read

    def _blocks(self) -> Iterator[tuple[Position, list[Entry]]]:
        """Yields the blocks of a single corpus without end. Raises DataError if nothing of it is trained on."""
        begin = self.start
        num_empty = 0  # epochs in a row; the first one may have been resumed at its end, the second one is whole
        while num_empty < 2:
            num_empty += 1
            for position, block in self._epoch_blocks(begin):
                num_empty = 0 if block else num_empty
                yield position, block
            begin = Position(begin.epoch + 1)
        raise DataError(f"nothing of {self.data.train} is left to train on", [])

    def _epoch_blocks(self, start: Position) -> Iterator[tuple[Position, list[Entry]]]:
        """Yields the blocks of the epoch from the one at `start` on, each with its entries that are trained on."""
        (manifest,) = self.data.train_manifests
        begin = start
        block: list[Entry] = []
        lines = epoch_lines(manifest_files(manifest), self.seed, start.epoch, start.file, start.line)
        for number, (file, line, entry) in enumerate(lines):
            if number and number % BLOCK_CUTS == 0:
                yield begin, block
                begin = Position(start.epoch, file, line)
                block = []
            if is_trained_on(entry, self.data) and entry.id not in self.dropped:
                block.append(entry)
        yield begin, block


def shuffled_batches(
    block: list[Entry], begin: Position, data: DataConfig, seed: int, cost: UtteranceCost = LINEAR_COST
) -> list[list[Entry]]:
    """Divides a block into batches of about the same cost, in an order drawn from (seed, epoch, file, line).

    The cuts of a batch have similar lengths, and batches 2 n and 2 n + 1 are neighbours in cost (see pairs_of_batches).
    """
    generator = keyed_generator("batches", seed, begin.epoch, begin.file, begin.line)
    shuffled = list(block)
    generator.shuffle(shuffled)
    timed = [
        (entry.duration / draw_speed(entry.id, data.augment, seed, entry_epoch(entry, begin)), entry)
        for entry in shuffled
    ]
    pairs = pairs_of_batches(timed, data.num_buckets, data.batch_seconds, cost)
    generator.shuffle(pairs)
    return [[entry for _, entry in batch] for pair in pairs for batch in pair]


def entry_epoch(entry: Entry, position: Position) -> int:
    """Returns the epoch from which the augmentation of a cut is drawn: its corpus's epoch where several are mixed."""
    return position.epoch if entry.epoch is None else entry.epoch


class OrderedSampler(Iterable[CutBatch]):
    """Every cut of a manifest once, in batches of at most `batch_seconds`, cuts of similar length together.

    With `separate_speakers` a batch has cuts of one speaker only. Entries are read in blocks of BLOCK_CUTS. Raises
    DataError with all cuts of a block whose line shows that they cannot be used: a repeated id, several supervisions,
    no audio.
    """

    def __init__(
        self,
        path: Path,
        batch_seconds: float,
        dropped: frozenset[str] = frozenset(),
        ranks: Ranks = SINGLE_PROCESS,
        separate_speakers: bool = False,
    ):
        self.path = path
        self.batch_seconds = batch_seconds
        self.dropped = dropped
        self.ranks = ranks
        self.separate_speakers = separate_speakers
        manifest_files(path)  # raises an error where there are none

    def __iter__(self) -> Iterator[CutBatch]:
        return islice(self._batches_of_all_ranks(), self.ranks.rank, None, self.ranks.world_size)

    def _batches_of_all_ranks(self) -> Iterator[CutBatch]:
        problems: list[str] = []
        entries = self._checked_entries(problems)
        number = 0
        while block := list(islice(entries, BLOCK_CUTS)):
            if problems:
                raise DataError(f"{len(problems)} cuts of {self.path} cannot be used; fix the manifest", problems)
            for group in self._group_by_speaker(block) if self.separate_speakers else [block]:
                for batch in ordered_batches(group, self.batch_seconds):
                    yield CutBatch(Position(batch=number), batch, next_position=Position(batch=number + 1))
                    number += 1

    def _checked_entries(self, problems: list[str]) -> Iterator[Entry]:
        """Yields the entries that are not dropped; adds what is wrong with them to `problems`."""
        checks = EntryChecks()
        for entry, cut_dict in entries_with_dicts(self.path):
            if entry.id in self.dropped:
                continue
            if problem := checks.problem(cut_dict):
                problems.append(f"{entry.id}: {problem}")
            yield entry

    @staticmethod
    def _group_by_speaker(block: list[Entry]) -> Iterable[list[Entry]]:
        groups: dict[str | None, list[Entry]] = {}
        for entry in block:
            groups.setdefault(speaker_of(entry.to_dict()), []).append(entry)
        return groups.values()


def ordered_batches(entries: Iterable[Entry], batch_seconds: float) -> Iterator[list[Entry]]:
    """Yields batches of at most `batch_seconds`, padding included, the shortest cuts first; longer cuts are alone."""
    in_order = sorted(entries, key=lambda entry: (entry.duration, entry.id))
    for batch in pack(((entry.duration, entry) for entry in in_order), batch_seconds, LINEAR_COST):
        yield [entry for _, entry in batch]
