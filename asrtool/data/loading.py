"""Batches for training and decoding: lazy manifests, bucketing by seconds, features in loader processes.

The sampler runs in the training process and sends the few cuts of a batch to a loader process; nobody holds a manifest.
A batch is named by its position, and everything random in it is drawn from that (asrtool/data/augment.py).
"""

import sys
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import filterfalse, pairwise
from typing import Any

import numpy as np
import torch
from lhotse import MonoCut
from torch.utils.data import DataLoader, Dataset

from asrtool.config import Config
from asrtool.data.augment import (
    keyed_generator,
    mask_batch,
    perturb_audio,
    perturb_speed,
    perturb_vocal_tract_length,
    spec_augment,
)
from asrtool.data.batch import NO_LABEL, Batch, Skipped
from asrtool.data.entry_checks import MAX_CUT_SECONDS
from asrtool.data.features import FRAME_SHIFT, TOO_SHORT, is_too_short, load_features
from asrtool.data.manifest import text_and_speaker
from asrtool.data.sampling import CutBatch
from asrtool.data.shards import Entry
from asrtool.data.sources import InvalidEntry
from asrtool.errors import AsrtoolError, DataError, UserError
from asrtool.interrupts import init_worker
from asrtool.text.tokenizer import BLANK, Tokenizer


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
        max_seconds: float | None = MAX_CUT_SECONDS,
    ):
        self.features, self.augment, self.seed = config.features, config.data.augment, config.seed
        self.max_seconds = max_seconds
        self.tokenizer, self.training, self.aligned = tokenizer, training, config.objective.needs_alignments
        self.factor = config.model.subsampling.factor

    def __getitem__(self, item: CutBatch) -> Batch | AsrtoolError:
        try:
            return self._batch(item)
        except AsrtoolError as error:
            return error
        except InvalidEntry as problem:
            return DataError("stopped at unreadable data; check the manifest with `asrtool prepare`", [str(problem)])

    def _batch(self, item: CutBatch) -> Batch:
        at = item.position
        cuts = sorted((self._cut(entry, at.epoch) for entry in item.entries), key=lambda cut: (-cut.duration, cut.id))
        short = [] if self.training else list(filter(is_too_short, cuts))
        if short:
            cuts = list(filterfalse(is_too_short, cuts))
        features = [self._features(cut, at.epoch) for cut in cuts]
        lens = torch.tensor([len(f) for f in features], dtype=torch.int64)
        padded = _pad(features, torch.zeros(0, 0, self.features.num_bins))
        if self.training and self.augment.spec_augment:
            padded = mask_batch(spec_augment(self.augment.spec_augment), padded, lens, self.seed, *vars(at).values())
        texts, speakers = [text_and_speaker(cut)[0] for cut in cuts], [text_and_speaker(cut)[1] for cut in cuts]
        targets, target_lens = self._targets(texts)
        seconds, names = sum(cut.duration for cut in cuts), [cut.id for cut in cuts]
        labels = self._labels(cuts, lens) if self.aligned and self.tokenizer and cuts else None
        skipped = [Skipped(cut.id, *text_and_speaker(cut), TOO_SHORT) for cut in short]
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
        return perturb_speed(cut, self.augment, self.seed, epoch) if self.training else cut

    def _features(self, cut: MonoCut, epoch: int) -> torch.Tensor:
        if cut.sampling_rate != self.features.sampling_rate:
            wanted = f"the configuration says features.sampling_rate={self.features.sampling_rate}"
            raise InvalidEntry(f"{cut.id}: {cut.sampling_rate} Hz, {wanted}; see `asrtool prepare --resample`")
        if not self.training:  # stored features and computed ones are the same: take what the manifest has
            source = "stored" if cut.has_features else "on_the_fly"
            return load_features(cut, source, self.features.num_bins, self.max_seconds)
        if self.features.source == "on_the_fly":
            cut = perturb_audio(cut, self.augment, self.seed, epoch)
        features = load_features(cut, self.features.source, self.features.num_bins, self.max_seconds)
        if most := self.augment.vtlp:
            warp = 1 + keyed_generator("warp", self.seed, epoch, cut.id).uniform(-most, most)
            features = perturb_vocal_tract_length(features, warp, self.features.sampling_rate)
        return features

    def _targets(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        known = [t if self.tokenizer and not self.tokenizer.unknown(t) else "" for t in texts]
        units = [torch.tensor(self.tokenizer.encode(t) if t else [], dtype=torch.int64) for t in known]
        lens = torch.tensor([len(u) for u in units], dtype=torch.int64)
        return _pad(units, torch.zeros(0, 0, dtype=torch.int64)), lens


def _pad(rows: list[torch.Tensor], empty: torch.Tensor) -> torch.Tensor:
    """Rows of several lengths as one tensor; `empty` where there are none."""
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True) if rows else empty


def load_batches(dataset: SpeechDataset, sampler: Iterable[CutBatch], workers: int) -> Iterator[Batch]:
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
        worker_init_fn=init_worker,
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
