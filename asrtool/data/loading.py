"""Batches for training and decoding: lazy manifests, dynamic bucketing by seconds, features in loader processes.

The sampler runs in the training process and sends the few cuts of a batch to a loader process; nobody holds a manifest.
A batch is named by its epoch and number, and everything random in it is drawn from these (asrtool/data/augment.py).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from pathlib import Path

import torch
from lhotse import CutSet, MonoCut
from lhotse.dataset import DynamicBucketingSampler
from lhotse.dataset.sampling.dynamic_bucketing import estimate_duration_buckets
from torch.utils.data import DataLoader, Dataset

from asrtool.config import Config
from asrtool.data.audio import Bad
from asrtool.data.augment import change_audio, change_speed, mask_batch, spec_augment
from asrtool.data.features import load
from asrtool.data.manifest import open_cuts
from asrtool.errors import AsrtoolError, DataError
from asrtool.interrupts import ignore_interrupts
from asrtool.text.tokenizer import Tokenizer

BINS_ESTIMATED_FROM = 10000  # cuts read ahead to place the bucket boundaries
BUFFER_CUTS = 20000  # cuts held for shuffling: about 30 MB


@dataclass(frozen=True)
class Position:
    """How far training is in its data: the next batch is number `batch` of epoch `epoch`."""

    epoch: int = 0
    batch: int = 0


@dataclass
class Batch:
    """Padded features and targets. Padding is zero and must have no influence on anything."""

    position: Position
    ids: list[str]
    texts: list[str]
    features: torch.Tensor  # (N, T, F) float32
    feature_lens: torch.Tensor  # (N,) int64, frames
    targets: torch.Tensor  # (N, U) int64 unit numbers; empty in decoding
    target_lens: torch.Tensor  # (N,) int64
    seconds: float  # audio, padding not counted


Item = tuple[Position, CutSet]


class SpeechDataset(Dataset):
    """Turns the cuts of one batch into tensors; holds the configuration and no cuts.

    `tokenizer` None leaves the targets empty; `training` switches augmentation on. What goes wrong comes back as a
    value, since an exception that crosses a process arrives wrapped in the text of two tracebacks.
    """

    def __init__(self, config: Config, tokenizer: Tokenizer | None, training: bool):
        self.features, self.augment, self.seed = config.features, config.data.augment, config.seed
        self.tokenizer, self.training = tokenizer, training

    def __getitem__(self, item: Item) -> Batch | AsrtoolError:
        try:
            return self._batch(*item)
        except AsrtoolError as error:
            return error
        except Bad as problem:
            return DataError("stopped at unreadable data; check the manifest with `asrtool prepare`", [str(problem)])

    def _batch(self, position: Position, cuts: CutSet) -> Batch:
        cuts = sorted(cuts, key=lambda cut: (-cut.duration, cut.id))
        features = [self._features(cut, position.epoch) for cut in cuts]
        lens = torch.tensor([len(f) for f in features])
        padded = torch.nn.utils.rnn.pad_sequence(features, batch_first=True)
        if self.training and self.augment.spec_augment:
            masks = spec_augment(self.augment.spec_augment)
            padded = mask_batch(masks, padded, lens, self.seed, position.epoch, position.batch)
        texts = [(cut.supervisions[0].text or "") if cut.supervisions else "" for cut in cuts]
        targets, target_lens = self._targets(texts)
        seconds = sum(cut.duration for cut in cuts)
        return Batch(position, [cut.id for cut in cuts], texts, padded, lens, targets, target_lens, seconds)

    def _features(self, cut: MonoCut, epoch: int) -> torch.Tensor:
        if cut.sampling_rate != self.features.sampling_rate:
            wanted = f"the configuration says features.sampling_rate={self.features.sampling_rate}"
            raise Bad(f"{cut.id}: {cut.sampling_rate} Hz, {wanted}; see `asrtool prepare --resample`")
        if not self.training:  # stored features and computed ones are the same: take what the manifest has
            return load(cut, "stored" if cut.has_features else "on_the_fly", self.features.num_bins)
        if self.features.source == "on_the_fly":
            cut = change_audio(cut, self.augment, self.seed, epoch)
        return load(cut, self.features.source, self.features.num_bins)

    def _targets(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        units = [torch.tensor(self.tokenizer.encode(t) if self.tokenizer else [], dtype=torch.int64) for t in texts]
        return torch.nn.utils.rnn.pad_sequence(units, batch_first=True), torch.tensor([len(u) for u in units])


class TrainingSampler(Iterable):
    """An endless stream of (position, cuts) that starts at `start`: shuffled, bucketed, another order each epoch."""

    def __init__(self, config: Config, dropped: frozenset[str] = frozenset(), start: Position | None = None):
        self.config, self.dropped, self.start = config, dropped, start or Position()
        kept = islice(self._cuts(0), BINS_ESTIMATED_FROM)
        self.bins = _bucket_bins(kept, config.data.buckets)

    def __iter__(self) -> Iterator[Item]:
        for epoch in count(self.start.epoch):
            skip = self.start.batch if epoch == self.start.epoch else 0
            for number, cuts in islice(enumerate(self._batches(epoch)), skip, None):
                yield Position(epoch, number), cuts

    def _batches(self, epoch: int) -> Iterator[CutSet]:
        """The sampler's, parted where the cut drawn last is so long that padding goes beyond `batch_seconds`."""
        for cuts in self._sampler(epoch):
            for batch in _fill(sorted(cuts, key=lambda cut: (cut.duration, cut.id)), self.config.data.batch_seconds):
                yield CutSet.from_cuts(batch)

    def _cuts(self, epoch: int) -> CutSet:
        data, seed = self.config.data, self.config.seed
        cuts = open_cuts(data.train)
        if self.dropped:
            cuts = cuts.filter(partial(_is_kept, self.dropped))
        if data.augment.speeds != (1.0,):
            cuts = cuts.map(partial(change_speed, augment=data.augment, seed=seed, epoch=epoch))
        return cuts

    def _sampler(self, epoch: int) -> DynamicBucketingSampler:
        return DynamicBucketingSampler(
            self._cuts(epoch),
            max_duration=self.config.data.batch_seconds,
            num_buckets=None,
            duration_bins=self.bins,
            buffer_size=BUFFER_CUTS,
            shuffle=True,
            seed=self.config.seed + epoch,
            world_size=1,
            rank=0,
        )


def _is_kept(dropped: frozenset[str], cut: MonoCut) -> bool:
    return cut.id not in dropped


def _bucket_bins(cuts: Iterable[MonoCut], buckets: int) -> list[float]:
    """Boundaries in seconds so that each bucket holds about the same amount of audio."""
    from lhotse.dataset.sampling.base import TimeConstraint

    cuts = list(cuts)
    buckets = min(buckets, len({cut.duration for cut in cuts}))
    if buckets < 2:
        return []
    return estimate_duration_buckets(cuts, buckets, constraint=TimeConstraint(max_duration=1.0))


class OrderedSampler(Iterable):
    """Every cut of a manifest once, in batches of at most `batch_seconds` with similar lengths together."""

    def __init__(self, path: Path, batch_seconds: float, dropped: frozenset[str] = frozenset()):
        self.path, self.batch_seconds, self.dropped = path, batch_seconds, dropped

    def __iter__(self) -> Iterator[Item]:
        cuts = (cut for cut in open_cuts(self.path) if cut.id not in self.dropped)
        number = 0
        while window := sorted(islice(cuts, BUFFER_CUTS), key=lambda cut: (cut.duration, cut.id)):
            for batch in _fill(window, self.batch_seconds):
                yield Position(0, number), CutSet.from_cuts(batch)
                number += 1


def _fill(cuts: list[MonoCut], batch_seconds: float) -> Iterator[list[MonoCut]]:
    """Runs of cuts, shortest first, whose padded size stays within `batch_seconds`."""
    batch: list[MonoCut] = []
    for cut in cuts:
        if batch and cut.duration * (len(batch) + 1) > batch_seconds:
            yield batch
            batch = []
        batch.append(cut)
    if batch:
        yield batch


def batches(dataset: SpeechDataset, sampler: Iterable[Item], workers: int) -> Iterator[Batch]:
    """The batches of `sampler` in its order, made by `workers` processes. Raises DataError on unreadable data."""
    own = torch.Generator()  # else every loader draws a seed from the generator that dropout uses
    loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=sampler,
        num_workers=workers,
        generator=own,
        worker_init_fn=ignore_interrupts,
    )
    for batch in loader:
        if isinstance(batch, AsrtoolError):
            raise batch
        yield batch
