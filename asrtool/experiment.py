"""A trained system on disk: the folder that training leaves, opened by everything that comes after training."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

import asrtool
from asrtool import checkpoint
from asrtool.adapted_weights import AdaptedWeights
from asrtool.config import Config
from asrtool.config_file import load_config
from asrtool.data.batch import Batch
from asrtool.data.entry_checks import MAX_CUT_SECONDS
from asrtool.data.loading import SpeechDataset, load_batches
from asrtool.data.manifest import speaker_of
from asrtool.data.sampling import CutBatch
from asrtool.data.shards import entries_with_trees, manifest_files
from asrtool.device import pick_device
from asrtool.distributed import this_rank
from asrtool.errors import DataError, UserError
from asrtool.files import file_hash
from asrtool.models.acoustic import AcousticModel
from asrtool.text.tokenizer import Tokenizer, load_tokenizer


@dataclass
class Experiment:
    """A trained model and what decoding needs beside it."""

    folder: Path
    config: Config
    tokenizer: Tokenizer
    model: AcousticModel
    checkpoint: Path
    device: torch.device
    adapted: AdaptedWeights | None = None  # weights for each speaker; a batch is then of one speaker alone
    max_seconds: float | None = MAX_CUT_SECONDS  # of a cut that is read

    @cached_property
    def content_hashes(self) -> list[str]:
        """Of all that decides over its hypotheses: weights, configuration, units, and asrtool's own code."""
        code = sorted(Path(asrtool.__file__).parent.rglob("*.py"))
        files = [self.checkpoint, self.folder / "config.yaml", self.folder / "tokenizer.json", *code]
        return [file_hash(path) for path in files]

    def adapt(self, folder: Path | None, cuts: Path) -> None:
        """Take the weights in `folder`, of `asrtool adapt`, for the speakers of the manifest `cuts`."""
        if folder:
            speakers = dict.fromkeys(speaker_of(tree) for _, tree in entries_with_trees(cuts))
            self.adapted = AdaptedWeights(folder, speakers, self.checkpoint)

    @torch.no_grad()
    def log_probs(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probs (N, T', V) and lengths (N,) of a batch. DataError with the utterances whose are not finite."""
        if not batch.ids:
            return torch.zeros(0, 0, self.tokenizer.size), torch.zeros(0, dtype=torch.int64)
        if self.adapted:
            (speaker,) = set(batch.speakers)
            self.adapted.use(self.model, speaker)
        log_probs, lens = self.model(batch.features.to(self.device), batch.feature_lens.to(self.device))
        check_finite(log_probs, lens, batch.ids)
        return log_probs, lens

    def batches(self, items: Iterable[CutBatch], workers: int) -> Iterator[Batch]:
        """What the model is to hear, without augmentation or targets."""
        return load_batches(SpeechDataset(self.config, None, False, self.max_seconds), items, workers)


def open_experiment(folder: Path, which: str = "averaged", device: str = "auto") -> Experiment:
    """The model of an experiment folder from its own config.yaml, tokenizer and a checkpoint; in evaluation mode.

    `which` names a checkpoint as of `checkpoint.find`. Each rank of a machine takes a GPU of its own. Raises UserError
    for a tokenizer with other units than the checkpoint's, and for weights that do not fit the configuration.
    """
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{folder} is not an experiment: it has no config.yaml; give the folder of `asrtool train`")
    config = load_config(folder / "config.yaml")
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    path = checkpoint.find(folder, which)
    state = checkpoint.load(path)
    checkpoint.check_units(state, tokenizer.symbols, path, "put back the tokenizer.json it was trained with")
    model = checkpoint.build_model(config, tokenizer.size, state, path)
    place = pick_device(device, this_rank().local_rank)
    return Experiment(folder, config, tokenizer, model.to(place).eval(), path, place)


def check_finite(log_probs: torch.Tensor, lens: torch.Tensor, names: list[str]) -> None:
    """DataError with the utterances that have log-probs (N, T', V) which are not finite: no words come out of those."""
    if log_probs.isfinite().all():
        return
    rows = zip(names, log_probs, lens.tolist(), strict=True)
    bad = [f"{name}: the model's log-probs are not finite" for name, row, n in rows if not row[:n].isfinite().all()]
    if bad:  # else it is padding
        raise DataError("stopped at cuts that the model has no finite log-probs for; look at their audio", bad)


def run_hash(experiment: Experiment, cuts: Path, facts: dict) -> str:
    """A name for all that decides over the result: a dozen hexadecimal digits."""
    manifests = [file_hash(path) for path in manifest_files(cuts)]
    said = json.dumps([experiment.content_hashes, experiment.device.type, manifests, facts])
    return hashlib.sha256(said.encode()).hexdigest()[:12]
