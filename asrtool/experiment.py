"""A trained system on disk, opened by everything that comes after training.

It is the folder that `asrtool train` writes, or a pack, which `asrtool pack` makes of it (asrtool/pack_manifest.py).
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
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
from asrtool.data.features import frame_seconds
from asrtool.data.loading import SpeechDataset, load_batches
from asrtool.data.manifest import speaker_of
from asrtool.data.sampling import CutBatch
from asrtool.data.shards import entries_with_dicts, manifest_files
from asrtool.data.speaker_transforms import SpeakerTransforms, load_transforms
from asrtool.device import use_device
from asrtool.distributed import this_rank
from asrtool.errors import DataError, UserError
from asrtool.files import file_hash
from asrtool.models.acoustic import AcousticModel
from asrtool.pack_manifest import MANIFEST, Manifest, is_pack, open_pack, pack_files
from asrtool.precision import autocast, log_precision_fallback, uses_bf16
from asrtool.system_files import SystemFiles, experiment_files
from asrtool.text.outputs import outputs_of
from asrtool.text.tokenizer import Tokenizer, load_tokenizer


@dataclass
class Experiment:
    """A trained model with its configuration and tokenizer."""

    folder: Path
    config: Config
    tokenizer: Tokenizer
    model: AcousticModel
    checkpoint: Path  # the file that the weights are from
    device: torch.device
    files: SystemFiles = field(default_factory=SystemFiles)  # graph, language models and weights that it carries
    adapted: AdaptedWeights | None = None  # weights of each speaker; a batch must then have one speaker
    transforms: SpeakerTransforms | None = None  # of the features of each speaker
    max_seconds: float | None = MAX_CUT_SECONDS  # longest cut that is read; None: cuts of any length
    longest_seconds: float | None = None  # the longest utterance of the training, as a pack records it
    precision: str = "fp32"  # of recognition's matrix products, as in `asrtool.precision.uses_bf16`

    @property
    def frame_seconds(self) -> float:
        """The seconds between the beginnings of two output frames of the model."""
        return frame_seconds(self.config.features.sampling_rate) * self.model.subsampling.factor

    @property
    def computed_precision(self) -> str:
        """The precision of recognition on this device, "fp32" or "bf16", as results record it."""
        return "bf16" if uses_bf16(self.precision, self.device) else "fp32"

    @property
    def num_outputs(self) -> int:
        """V, the number of outputs of the model."""
        return outputs_of(self.config, self.tokenizer)

    @cached_property
    def checkpoint_sha256(self) -> str:
        """The sha256 of the file that the weights are from, in hexadecimal digits, by which results know it."""
        return file_hash(self.checkpoint)

    @cached_property
    def content_hashes(self) -> list[str]:
        """The hashes of everything in the experiment that determines hypotheses.

        These are the weights, the configuration, the tokenizer, and asrtool's own code.
        """
        code = sorted(Path(asrtool.__file__).parent.rglob("*.py"))
        files = [self.folder / "config.yaml", self.folder / "tokenizer.json", *code]
        return [self.checkpoint_sha256, *(file_hash(path) for path in files)]

    def load_adapted(self, folder: Path, cuts: Path) -> AdaptedWeights:
        """Sets `adapted` to the weights that `asrtool adapt` wrote into `folder`, for the speakers of `cuts`.

        `log_probs` loads a speaker's weights into the model when a batch of this speaker comes.
        """
        speakers = dict.fromkeys(speaker_of(cut) for _, cut in entries_with_dicts(cuts))
        self.adapted = AdaptedWeights(folder, speakers, self.checkpoint)
        return self.adapted

    def load_transforms(self, path: Path, cuts: Iterable[Path]) -> None:
        """Sets `transforms` to those that `asrtool fmllr` wrote to `path`, for the speakers of manifests.

        Raises DataError with the speakers that have none.
        """
        self.transforms = load_transforms(path, self.config.features.num_bins)
        speakers = dict.fromkeys(speaker_of(cut) for manifest in cuts for _, cut in entries_with_dicts(manifest))
        missing = [str(speaker or "cuts without a speaker") for speaker in speakers if speaker not in self.transforms]
        if missing:
            hint = "estimate them with `asrtool fmllr estimate`"
            raise DataError(f"{path} has no transforms of {len(missing)} speakers; {hint}", missing)

    @torch.no_grad()
    def log_probs(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns log-probs (N, T', V) of a batch of N cuts: T' output frames, V outputs; and their lengths (N,).

        Raises DataError with the cuts whose log-probs are not finite.
        """
        if not batch.ids:
            return torch.zeros(0, 0, self.num_outputs), torch.zeros(0, dtype=torch.int64)
        if self.adapted:
            (speaker,) = set(batch.speakers)  # the sampler separates speakers
            self.adapted.load_into(self.model, speaker)
        log_probs, lens = self.forward(batch.features, batch.feature_lens)
        check_finite(log_probs, lens, batch.ids)
        return log_probs, lens

    @torch.no_grad()
    def forward(self, features: torch.Tensor, feature_lens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns log-probs (N, T', V) of features (N, T, F) of these lengths (N,), and their lengths (N,).

        The model computes on the experiment's device and in its precision. The log-probs may not be finite.
        """
        with autocast(self.precision, self.device):
            return self.model(features.to(self.device), feature_lens.to(self.device))

    def batches(self, cut_batches: Iterable[CutBatch], workers: int) -> Iterator[Batch]:
        """Yields the features of each batch of cuts, without augmentation or targets; `workers` processes load them."""
        dataset = SpeechDataset(self.config, None, False, self.max_seconds, self.transforms)
        return load_batches(dataset, cut_batches, workers)


def open_experiment(folder: Path, which: str = "averaged", device: str = "auto", precision: str = "fp32") -> Experiment:
    """Returns the experiment in `folder`, or the pack, with the weights of one checkpoint, in evaluation mode.

    `which` names a checkpoint as in `checkpoint.find_checkpoint`. Each rank of a machine uses its own GPU. `precision`
    is "fp32", "bf16" or "auto", as in `asrtool.precision.uses_bf16`. Raises UserError for a damaged pack, a tokenizer
    with other units than the checkpoint's, and for weights that do not fit the configuration, or were trained with
    another model of the same shapes.
    """
    manifest = open_pack(folder) if is_pack(folder) else None
    if not (folder / "config.yaml").is_file():
        hint = "give the folder of `asrtool train` or of `asrtool pack`"
        raise UserError(f"{folder} is not an experiment: it has no config.yaml; {hint}")
    config = load_config(folder / "config.yaml")
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    if manifest:
        _require_same_facts(folder, manifest, config, tokenizer)
    path = checkpoint.find_checkpoint(folder, which)
    state = checkpoint.load_checkpoint(path)
    checkpoint.require_same_units(state, tokenizer.symbols, path, "put back the tokenizer.json it was trained with")
    outputs = outputs_of(config, tokenizer)
    model = checkpoint.build_model(config.model, config.features.num_bins, outputs, state, path)
    checkpoint.require_same_model(state, config, path)
    model_device = use_device(device, this_rank().local_rank)
    log_precision_fallback(precision, model_device)
    return Experiment(
        folder=folder,
        config=config,
        tokenizer=tokenizer,
        model=model.to(model_device).eval(),
        checkpoint=path,
        device=model_device,
        files=pack_files(folder, manifest) if manifest else experiment_files(folder),
        longest_seconds=manifest.training.longest_seconds if manifest else None,
        precision=precision,
    )


def _require_same_facts(pack: Path, manifest: Manifest, config: Config, tokenizer: Tokenizer) -> None:
    """Raises UserError where model.json contradicts the configuration or the units of its pack."""
    features = config.features
    facts = {
        "features.sampling_rate": (manifest.features.sampling_rate, features.sampling_rate),
        "features.num_bins": (manifest.features.num_bins, features.num_bins),
        "units.count": (manifest.units.count, tokenizer.size),
        "units.output_type": (manifest.units.output_type, tokenizer.output_type),
    }
    for name, (listed, actual) in facts.items():
        if listed != actual:
            problem = f"{name} is {listed} in {MANIFEST}, and {actual} in the files of the pack"
            raise UserError(f"{pack}: {problem}; write it again with `asrtool pack`")


def check_finite(log_probs: torch.Tensor, lens: torch.Tensor, ids: list[str]) -> None:
    """Raises DataError with the ids of the cuts whose log-probs (N, T', V) are not finite: they cannot be decoded."""
    if log_probs.isfinite().all():
        return
    rows = zip(ids, log_probs, lens.tolist(), strict=True)
    bad = [f"{cut}: the model's log-probs are not finite" for cut, row, n in rows if not row[:n].isfinite().all()]
    if bad:  # else only padding is not finite
        raise DataError("stopped at cuts for which the model's log-probs are not finite; look at their audio", bad)


def run_hash(experiment: Experiment, cuts: Path, settings: dict) -> str:
    """Returns a hash of everything that determines the result of a run: twelve hexadecimal digits.

    `settings` is what does not come from the experiment or the manifest, such as the method and the search's options.
    """
    manifests = [file_hash(path) for path in manifest_files(cuts)]
    device = [experiment.device.type, experiment.computed_precision]
    content = json.dumps([experiment.content_hashes, device, manifests, settings])
    return hashlib.sha256(content.encode()).hexdigest()[:12]
