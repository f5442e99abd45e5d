"""Batches for training and decoding: lazy manifests, bucketing by seconds, features in loader processes.

The sampler runs in the training process and sends the few cuts of a batch to a loader process; nobody holds a manifest.
A batch is named by its position, and everything random in it is drawn from that (asrtool/data/augment.py).
"""

import sys
import traceback
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import filterfalse, islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lhotse import MonoCut
from torch.utils.data import DataLoader, Dataset

from asrtool.config import Config
from asrtool.data.augment import (
    change_audio,
    change_speed,
    change_vocal_tract,
    generator,
    mask_batch,
    spec_augment,
    speed_of,
)
from asrtool.data.entry_checks import LONGEST_SECONDS, EntryChecks
from asrtool.data.features import FRAME_SHIFT, SHORTEST_SECONDS, TOO_SHORT, load, too_short
from asrtool.data.manifest import said_in, speaker_of
from asrtool.data.shards import Entry, entries_with_trees, manifest_files, read
from asrtool.data.sources import Bad
from asrtool.errors import AsrtoolError, DataError, UserError
from asrtool.interrupts import start_worker
from asrtool.ranks import ALONE, Ranks
from asrtool.text.tokenizer import BLANK, Tokenizer

ROUNDING = 0.001  # seconds: more than a sample, to which a changed speed rounds the length of a cut
NO_LABEL = -100  # the index that torch leaves out of a cross entropy
BLOCK_CUTS = 50_000  # cuts held for shuffling: about 60 MB, and two seconds to read
BUCKET_BATCHES = 4  # the last batch of a bucket is not full: with fewer batches, that would be many of them


@dataclass(frozen=True)
class Position:
    """A place in the data: batch `batch` of the block that begins at line `line` of the epoch's `file`-th file."""

    epoch: int = 0
    file: int = 0
    line: int = 0
    batch: int = 0


@dataclass(frozen=True)
class Item:
    """The cuts of a batch. `after` is where the data goes on when every rank has had its batch of this round."""

    position: Position
    entries: list[Entry]
    after: Position


class Skipped(NamedTuple):
    """A cut that cannot be in a batch, since it has not even one frame, and why."""

    id: str
    text: str
    speaker: str | None
    reason: str


@dataclass
class Batch:
    """Padded features and targets. Padding is zero and must have no influence on anything.

    Without training, cuts shorter than a frame are in `skipped` alone; N may then be 0.
    """

    position: Position
    after: Position
    ids: list[str]
    texts: list[str]
    features: torch.Tensor  # (N, T, F) float32
    feature_lens: torch.Tensor  # (N,) int64, frames
    targets: torch.Tensor  # (N, U) int64 unit numbers; empty in decoding
    target_lens: torch.Tensor  # (N,) int64
    seconds: float  # audio, padding not counted
    labels: torch.Tensor | None = None  # (N, T) int64 aligned unit of each frame, for objective ce; else NO_LABEL
    speakers: list[str | None] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


class SpeechDataset(Dataset):
    """Turns the cuts of one batch into tensors; holds the configuration and no cuts.

    `tokenizer` None leaves the targets empty; `training` switches augmentation on. A cut of more than `max_seconds` is
    an error before its audio is read; None is no limit. What goes wrong comes back as a value, since an exception that
    crosses a process arrives wrapped in the text of two tracebacks.
    """

    def __init__(
        self,
        config: Config,
        tokenizer: Tokenizer | None,
        training: bool,
        max_seconds: float | None = LONGEST_SECONDS,
    ):
        self.features, self.augment, self.seed = config.features, config.data.augment, config.seed
        self.max_seconds = max_seconds
        self.tokenizer, self.training, self.aligned = tokenizer, training, config.objective.aligned
        self.factor = config.model.subsampling.factor

    def __getitem__(self, item: Item) -> Batch | AsrtoolError:
        try:
            return self._batch(item)
        except AsrtoolError as error:
            return error
        except Bad as problem:
            return DataError("stopped at unreadable data; check the manifest with `asrtool prepare`", [str(problem)])

    def _batch(self, item: Item) -> Batch:
        at = item.position
        cuts = sorted((self._cut(entry, at.epoch) for entry in item.entries), key=lambda cut: (-cut.duration, cut.id))
        short = [] if self.training else list(filter(too_short, cuts))
        if short:
            cuts = list(filterfalse(too_short, cuts))
        features = [self._features(cut, at.epoch) for cut in cuts]
        lens = torch.tensor([len(f) for f in features], dtype=torch.int64)
        padded = _pad(features, torch.zeros(0, 0, self.features.num_bins))
        if self.training and self.augment.spec_augment:
            padded = mask_batch(spec_augment(self.augment.spec_augment), padded, lens, self.seed, *vars(at).values())
        texts, speakers = [said_in(cut)[0] for cut in cuts], [said_in(cut)[1] for cut in cuts]
        targets, target_lens = self._targets(texts)
        seconds, names = sum(cut.duration for cut in cuts), [cut.id for cut in cuts]
        labels = self._labels(cuts, lens) if self.aligned and self.tokenizer and cuts else None
        skipped = [Skipped(cut.id, *said_in(cut), TOO_SHORT) for cut in short]
        tensors = (padded, lens, targets, target_lens)
        return Batch(at, item.after, names, texts, *tensors, seconds, labels, speakers, skipped)

    def _labels(self, cuts: list[MonoCut], lens: torch.Tensor) -> torch.Tensor:
        """What each frame is aligned with: blank between units, and for an output frame where equal ones meet."""
        numbers = {symbol: number for number, symbol in enumerate(self.tokenizer.symbols)}
        labels = torch.full((len(cuts), int(lens.max())), NO_LABEL)
        for row, cut, length in zip(labels, cuts, lens.tolist(), strict=True):
            items = ((cut.supervisions[0].alignment or {}).get("unit") or []) if cut.supervisions else []
            if items:
                row[:length] = BLANK
            for item, after in pairwise([*items, None]):
                begin, end = (round(time / FRAME_SHIFT) for time in (item.start, item.end))
                if after and after.symbol == item.symbol:
                    end = min(end, round(after.start / FRAME_SHIFT) - self.factor)
                row[begin : min(end, length)] = numbers.get(item.symbol, NO_LABEL)
        return labels

    def _cut(self, entry: Entry, epoch: int) -> MonoCut:
        cut = entry.cut()
        return change_speed(cut, self.augment, self.seed, epoch) if self.training else cut

    def _features(self, cut: MonoCut, epoch: int) -> torch.Tensor:
        if cut.sampling_rate != self.features.sampling_rate:
            wanted = f"the configuration says features.sampling_rate={self.features.sampling_rate}"
            raise Bad(f"{cut.id}: {cut.sampling_rate} Hz, {wanted}; see `asrtool prepare --resample`")
        if not self.training:  # stored features and computed ones are the same: take what the manifest has
            source = "stored" if cut.has_features else "on_the_fly"
            return load(cut, source, self.features.num_bins, self.max_seconds)
        if self.features.source == "on_the_fly":
            cut = change_audio(cut, self.augment, self.seed, epoch)
        features = load(cut, self.features.source, self.features.num_bins, self.max_seconds)
        if most := self.augment.vocal_tract:
            warp = 1 + generator("warp", self.seed, epoch, cut.id).uniform(-most, most)
            features = change_vocal_tract(features, warp, self.features.sampling_rate)
        return features

    def _targets(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        known = [t if self.tokenizer and not self.tokenizer.unknown(t) else "" for t in texts]
        units = [torch.tensor(self.tokenizer.encode(t) if t else [], dtype=torch.int64) for t in known]
        lens = torch.tensor([len(u) for u in units], dtype=torch.int64)
        return _pad(units, torch.zeros(0, 0, dtype=torch.int64)), lens


def _pad(rows: list[torch.Tensor], empty: torch.Tensor) -> torch.Tensor:
    """Rows of several lengths as one tensor; `empty` where there are none."""
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True) if rows else empty


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
        ranks: Ranks = ALONE,
    ):
        self.config, self.dropped, self.start, self.ranks = config, dropped, start or Position(), ranks
        self.files = manifest_files(config.data.train)

    def __iter__(self) -> Iterator[Item]:
        stream = self._stream()
        at, batch = next(stream)
        while True:
            for rank in range(self.ranks.size):  # a round
                if rank == self.ranks.rank:
                    mine = at, batch
                at, batch = next(stream)
            yield Item(*mine, after=at)

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
        generator("files", self.config.seed, at.epoch).shuffle(files)
        first = at.line
        for file in range(at.file, len(files)):
            yield from ((file, line, entry) for line, entry in enumerate(read(files[file], first), first))
            first = 0

    def _is_kept(self, entry: Entry) -> bool:
        return is_trained_on(entry, self.config) and entry.id not in self.dropped


def is_trained_on(entry: Entry, config: Config) -> bool:
    """Whether the cut is as long as the configuration wants them, and has a frame at every speed."""
    shortest = SHORTEST_SECONDS * max(config.data.augment.speeds) + ROUNDING
    least = max(config.data.min_seconds, shortest)
    return least <= entry.duration <= config.data.max_seconds


def shuffled_batches(block: list[Entry], at: Position, config: Config) -> list[list[Entry]]:
    """Batches of cuts of similar length, otherwise in any order, which comes from (seed, epoch, file, line)."""
    data, seed, block = config.data, config.seed, list(block)
    draw = generator("batches", seed, at.epoch, at.file, at.line)
    draw.shuffle(block)
    timed = [(entry.duration / speed_of(entry.id, data.augment, seed, at.epoch), entry) for entry in block]
    buckets = _buckets(timed, data.buckets, data.batch_seconds)
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
        ranks: Ranks = ALONE,
        apart: bool = False,
    ):
        self.path, self.batch_seconds, self.dropped, self.ranks, self.apart = path, batch_seconds, dropped, ranks, apart
        manifest_files(path)

    def __iter__(self) -> Iterator[Item]:
        return islice(self._all(), self.ranks.rank, None, self.ranks.size)

    def _all(self) -> Iterator[Item]:
        number, problems = 0, []
        kept = self._checked(problems)
        while window := list(islice(kept, BLOCK_CUTS)):
            if problems:
                raise DataError(f"{len(problems)} cuts of {self.path} cannot be used; mend the manifest", problems)
            for batch in self._batches(window):
                yield Item(Position(batch=number), batch, Position(batch=number + 1))
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


def batches(dataset: SpeechDataset, sampler: Iterable[Item], workers: int) -> Iterator[Batch]:
    """The batches of `sampler` in its order, made by `workers` processes. Raises DataError on unreadable data.

    UserError when processes cannot be started, or one of them was killed.
    """
    own = torch.Generator()  # else every loader draws a seed from the generator that dropout uses
    loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=sampler,
        num_workers=workers,
        collate_fn=_to_arrays,
        generator=own,
        worker_init_fn=start_worker,
    )
    for batch in _named_failures(loader, workers):
        if isinstance(batch, AsrtoolError):
            raise batch
        yield _to_tensors(batch)


def _to_arrays(batch: Batch | AsrtoolError) -> Batch | AsrtoolError:
    """Tensors as arrays, which cross from a loader process through its pipe.

    torch would send each tensor as a file in /dev/shm and its descriptor: where either runs out, that waits for ever.
    """
    return _with_fields(batch, torch.Tensor, torch.Tensor.numpy) if isinstance(batch, Batch) else batch


def _to_tensors(batch: Batch) -> Batch:
    return _with_fields(batch, np.ndarray, torch.from_numpy)


def _with_fields(batch: Batch, kind: type, convert: Any) -> Batch:
    """`batch` with all fields of a kind converted."""
    return replace(batch, **{name: convert(value) for name, value in vars(batch).items() if isinstance(value, kind)})


def _drop_iterator(error: Exception) -> None:
    """Free the iterator of torch that `error` has come from: half constructed, its destructor prints a traceback."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    traceback.clear_frames(error.__traceback__)
    sys.unraisablehook = hook


def _named_failures(loader: DataLoader, workers: int) -> Iterator[Batch | AsrtoolError]:
    """What `loader` gives. UserError for what the operating system refuses, with what to do."""
    hint = f"lower data.workers ({workers}; 0 loads in the process itself)"
    try:
        yield from loader
    except OSError as error:
        if not workers:
            raise
        _drop_iterator(error)
        hint = f"{hint}, raise `ulimit -n`, or give a container more /dev/shm (--shm-size)"
        raise UserError(f"loader processes cannot be started: {error.strerror or error}; {hint}") from error
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise UserError(f"a loader process was killed; memory may have run out: {hint}, or batch_seconds") from error
