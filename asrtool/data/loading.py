"""Batches for training and decoding: cuts become tensors, in loader processes.

The sampler (asrtool/data/sampling.py) runs in the training process and sends the few cuts of a batch to a loader
process; nobody holds a manifest. A batch is identified by its position, and everything random in it is drawn from that
(asrtool/data/augment.py).
"""

import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from lhotse import MonoCut
from lhotse.supervision import AlignmentItem
from torch.utils.data import DataLoader, Dataset

from asrtool.config import Config
from asrtool.data.augment import (
    keyed_generator,
    mask_batch,
    perturb_speed,
    perturb_vocal_tract_length,
    spec_augment,
)
from asrtool.data.augment_audio import audio_change
from asrtool.data.batch import NO_LABEL, Batch, Position, SkippedCut
from asrtool.data.entry_checks import MAX_CUT_SECONDS
from asrtool.data.features import TOO_SHORT, frame_seconds, is_too_short, load_features, stored_or_computed
from asrtool.data.frame_labels import FrameLabels
from asrtool.data.lhotse_objects import read_cut, text_and_speaker
from asrtool.data.sampling import CutBatch, entry_epoch
from asrtool.data.shards import Entry
from asrtool.data.sources import InvalidEntry, as_data_error
from asrtool.data.speaker_transforms import SpeakerTransforms, load_transforms, transform_key
from asrtool.errors import AsrtoolError, UserError
from asrtool.forking import loader_context
from asrtool.interrupts import init_worker, sigterm_held
from asrtool.text.pdf_tokenizer import PdfTokenizer
from asrtool.text.tokenizer import Tokenizer


class DrawnCut(NamedTuple):
    """A cut of a batch, the number of its corpus, and the epoch from which its augmentation is drawn."""

    cut: MonoCut
    corpus: int
    epoch: int


class SpeechDataset(Dataset):
    """Turns the cuts of one batch into tensors; holds parts of the configuration and no cuts.

    Without a `tokenizer` the targets are empty; `training` switches augmentation on, and the transforms of the
    configuration. `transforms` belong to the speakers of other data, who must all have one. A cut of more than
    `max_seconds` is an error before its audio is read; None is no limit. Augmentation is drawn from `seed`, the
    configuration's where it is None. `computes_missing`: where training reads stored features, they are computed for
    a cut without any. Errors are returned as values, since an exception that crosses a process arrives wrapped in the
    text of two tracebacks.
    """

    def __init__(
        self,
        config: Config,
        tokenizer: Tokenizer | None,
        training: bool,
        max_seconds: float | None = MAX_CUT_SECONDS,
        transforms: SpeakerTransforms | None = None,
        seed: int | None = None,
        computes_missing: bool = False,
    ):
        self.features = config.features
        self.computes_missing = computes_missing
        self.augment = config.data.augment
        self.seed = config.seed if seed is None else seed
        self.tokenizer = tokenizer
        self.frame_labels = None
        if tokenizer is not None and config.objective.needs_alignments:
            factor = config.model.subsampling.factor
            shift = frame_seconds(config.features.sampling_rate)
            self.frame_labels = FrameLabels(tokenizer, config.objective.topology, factor, shift)
        self.training = training
        self.max_seconds = max_seconds
        self.transforms = transforms
        self.transformed_share = config.data.transformed_share if training else 1.0
        if training and config.data.speaker_transforms:
            self.transforms = load_transforms(config.data.speaker_transforms, config.features.num_bins)

    def __getitem__(self, cut_batch: CutBatch) -> Batch | AsrtoolError:
        try:
            with as_data_error():
                return self._load(cut_batch)
        except AsrtoolError as error:
            return error

    def _load(self, cut_batch: CutBatch) -> Batch:
        position = cut_batch.position
        epochs = [entry_epoch(entry, position) for entry in cut_batch.entries]
        drawn = [
            DrawnCut(self._cut(entry, epoch), entry.corpus, epoch)
            for entry, epoch in zip(cut_batch.entries, epochs, strict=True)
        ]
        drawn.sort(key=lambda item: (-item.cut.duration, item.cut.id, item.corpus, item.epoch))
        skipped: list[MonoCut] = []
        if not self.training:
            skipped = [item.cut for item in drawn if is_too_short(item.cut)]
            drawn = [item for item in drawn if not is_too_short(item.cut)]
        cuts = [item.cut for item in drawn]
        features, feature_lens = self._padded_features(drawn, position)
        texts = [text_and_speaker(cut)[0] for cut in cuts]
        targets, target_lens = self._targets(cuts, texts)
        return Batch(
            position=position,
            next_position=cut_batch.next_position,
            ids=[cut.id for cut in cuts],
            texts=texts,
            features=features,
            feature_lens=feature_lens,
            targets=targets,
            target_lens=target_lens,
            seconds=sum(cut.duration for cut in cuts),
            labels=_labels(self.frame_labels, cuts, feature_lens) if self.frame_labels and cuts else None,
            speakers=[text_and_speaker(cut)[1] for cut in cuts],
            skipped=[_skipped(cut) for cut in skipped],
            corpora=[item.corpus for item in drawn],
        )

    def _cut(self, entry: Entry, epoch: int) -> MonoCut:
        cut = read_cut(entry)
        return perturb_speed(cut, self.augment, self.seed, epoch) if self.training else cut

    def _padded_features(self, drawn: list[DrawnCut], position: Position) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the features (N, T, F) of a batch, in training with SpecAugment, and their lengths (N,)."""
        features = [self._features(item.cut, item.epoch) for item in drawn]
        lens = torch.tensor([len(frames) for frames in features], dtype=torch.int64)
        padded = _pad(features, torch.zeros(0, 0, self.features.num_bins))
        if self.training and self.augment.spec_augment:
            masks = spec_augment(self.augment.spec_augment)
            key = (self.seed, position.epoch, position.file, position.line, position.batch)
            padded = mask_batch(masks, padded, lens, *key)
        return padded, lens

    def _features(self, cut: MonoCut, epoch: int) -> torch.Tensor:
        """Returns the features (T, F) of one cut, in training with its audio and VTLP as configured."""
        config = self.features
        if cut.sampling_rate != config.sampling_rate:
            expected = f"the configuration says features.sampling_rate={config.sampling_rate}"
            raise InvalidEntry(f"{cut.id}: {cut.sampling_rate} Hz, {expected}; see `asrtool prepare --resample`")
        if not self.training:  # stored features and computed ones are the same: use what the manifest has
            return self._transformed(stored_or_computed(cut, config.num_bins, self.max_seconds), cut, epoch)
        change = audio_change(cut, self.augment, self.seed, epoch)
        source = "on_the_fly" if self.computes_missing and not cut.has_features else config.source
        features = load_features(cut, source, config.num_bins, self.max_seconds, change)
        features = self._transformed(features, cut, epoch)
        if self.augment.vtlp:
            generator = keyed_generator("warp", self.seed, epoch, cut.id)
            warp = 1 + generator.uniform(-self.augment.vtlp, self.augment.vtlp)
            features = perturb_vocal_tract_length(features, warp, config.sampling_rate)
        return features

    def _transformed(self, features: torch.Tensor, cut: MonoCut, epoch: int) -> torch.Tensor:
        """Returns the features (T, F) of one cut, in training some of them, under the transform of their speaker."""
        if not self.transforms:
            return features
        key = transform_key(cut)
        if key is None or key not in self.transforms:
            who = f"speaker {key}" if key else "a cut without a speaker"
            raise InvalidEntry(f"{cut.id}: no transform of {who}; estimate it with `asrtool fmllr`")
        if self.transformed_share < 1:
            draw = keyed_generator("transform", self.seed, epoch, cut.id).uniform(0, 1)
            if draw >= self.transformed_share:
                return features
        return self.transforms.apply(features, key)

    def _targets(self, cuts: list[MonoCut], texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the units (N, U) of texts and their numbers (N,): none for a text that has unknown characters."""
        numbers = [self._units(cut, text) for cut, text in zip(cuts, texts, strict=True)]
        units = [torch.tensor(row, dtype=torch.int64) for row in numbers]
        lens = torch.tensor([len(numbers) for numbers in units], dtype=torch.int64)
        return _pad(units, torch.zeros(0, 0, dtype=torch.int64)), lens

    def _units(self, cut: MonoCut, text: str) -> list[int]:
        """Returns the units of the text of a cut; pdfs of Kaldi, which a text does not give, are those aligned."""
        if self.tokenizer is None or self.tokenizer.unknown(text):
            return []
        if isinstance(self.tokenizer, PdfTokenizer):
            units = self.tokenizer.aligned_units([item.symbol for item in _aligned_items(cut)])
            return [unit for unit in units if unit is not None]
        return self.tokenizer.encode(text)


def _labels(frame_labels: FrameLabels, cuts: list[MonoCut], lens: torch.Tensor) -> torch.Tensor:
    """Returns the output (N, T) that each frame is trained on by its alignment."""
    labels = torch.full((len(cuts), int(lens.max())), NO_LABEL)  # (N, T)
    for row, cut, length in zip(labels, cuts, lens.tolist(), strict=True):
        items = _aligned_items(cut)
        row[:length] = frame_labels.of_utterance([(item.symbol, item.start, item.duration) for item in items], length)
    return labels


def _aligned_items(cut: MonoCut) -> list[AlignmentItem]:
    return ((cut.supervisions[0].alignment or {}).get("unit") or []) if cut.supervisions else []


def _skipped(cut: MonoCut) -> SkippedCut:
    text, speaker = text_and_speaker(cut)
    return SkippedCut(cut.id, text, speaker, TOO_SHORT)


def _pad(rows: list[torch.Tensor], empty: torch.Tensor) -> torch.Tensor:
    """Returns rows of several lengths as one tensor; `empty` if there are none."""
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True) if rows else empty


def load_batches(
    dataset: SpeechDataset, sampler: Iterable[CutBatch], workers: int, pin_memory: bool = False
) -> Iterator[Batch]:
    """Yields the batches of `sampler` in its order, loaded by `workers` processes. Raises DataError on unreadable data.

    UserError when processes cannot be started, or one of them was killed. `pin_memory`: a GPU will copy the batches.
    """
    # The loader draws its seed from a generator of its own, not from the one that dropout uses
    loader: DataLoader = DataLoader(
        dataset,
        batch_size=None,
        sampler=sampler,
        num_workers=workers,
        multiprocessing_context=loader_context(workers),
        collate_fn=_to_arrays,  # type: ignore[arg-type]  # without a batch size torch hands over one item, not a list
        generator=torch.Generator(),
        worker_init_fn=partial(init_worker, ends_on_sigterm=False),  # the process itself ends after a step
        pin_memory=pin_memory,
    )
    for batch in _with_named_failures(loader, workers):
        if isinstance(batch, AsrtoolError):
            raise batch
        yield _convert_fields(batch, np.ndarray, torch.from_numpy)


def _to_arrays(batch: Batch | AsrtoolError) -> Batch | AsrtoolError:
    """Returns the batch with arrays instead of tensors, which a loader process sends through its pipe.

    torch would send each tensor as a file in /dev/shm and its descriptor: where either runs out, that waits for ever.
    """
    return _convert_fields(batch, torch.Tensor, torch.Tensor.numpy) if isinstance(batch, Batch) else batch


def _convert_fields(batch: Batch, kind: type, convert: Callable[[Any], Any]) -> Batch:
    """Returns `batch` with all fields of type `kind` converted."""
    return replace(batch, **{name: convert(value) for name, value in vars(batch).items() if isinstance(value, kind)})


def _with_named_failures(loader: DataLoader, workers: int) -> Iterator[Batch | AsrtoolError]:
    """Yields what `loader` yields. UserError for what the operating system refuses, with what to do."""
    hint = f"lower data.workers ({workers}; 0 loads in the process itself)"
    try:
        with sigterm_held():
            batches = iter(loader)
        yield from batches
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


def _drop_iterator(error: Exception) -> None:
    """Frees torch's half-constructed iterator that raised `error`, whose destructor would print a traceback."""
    hook = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    traceback.clear_frames(error.__traceback__)
    sys.unraisablehook = hook
