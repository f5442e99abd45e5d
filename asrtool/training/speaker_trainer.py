"""The training on the cuts of one speaker, for adaptation (asrtool/training/adaptation.py)."""

import json
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from asrtool.checkpoint import checkpoint_metadata, save_checkpoint
from asrtool.config import Config
from asrtool.data.batch import Batch, Position
from asrtool.data.lhotse_objects import deserialize_cut
from asrtool.data.loading import SpeechDataset, load_batches
from asrtool.data.sampling import CutBatch, ordered_batches, shuffled_batches
from asrtool.data.shards import Entry
from asrtool.decoding.align import align_cuts, with_alignment
from asrtool.decoding.alignment import Span
from asrtool.distributed import SINGLE_PROCESS
from asrtool.errors import UserError
from asrtool.experiment import Experiment
from asrtool.files import write_json
from asrtool.objectives.objective import Objective
from asrtool.provenance import provenance
from asrtool.system_files import PRIORS, UNIT_COUNTS
from asrtool.training.average import are_finite
from asrtool.training.objective import create_objective
from asrtool.training.optimizer import set_learning_rate
from asrtool.training.schedule import cosine_decay
from asrtool.training.speaker_cuts import SpeakerCuts
from asrtool.training.step import batch_loss

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AdaptationSettings:
    """How the weights are adapted; the defaults were chosen on held-out speakers (egs/librispeech/TUNING.md)."""

    epochs: float = 5.0  # passes over the audio of a speaker
    lr: float = 2e-4  # learning rate of the first step, falling to 0 along a cosine
    batch_seconds: float = 40.0  # of audio in a step
    seed: int = 1
    noise: str | None = None  # a manifest of noise to mix in; the noise of the training is not used
    precision: str | None = None  # of the steps; None: training.precision


def _noise_names(config: Config) -> str:
    return ", ".join(str(source.manifest) for source in config.data.augment.noise_sources)


class SpeakerTrainer:
    """Trains the model of an experiment on one speaker after another, each time from the experiment's weights."""

    def __init__(self, experiment: Experiment, settings: AdaptationSettings, workers: int):
        self.experiment = experiment
        self.settings = settings
        self.workers = workers
        config = experiment.config
        noise = Path(settings.noise) if settings.noise else None
        if config.data.augment.noise and not noise:
            logger.warning(
                f"without the noise that the training had ({_noise_names(config)}); --noise FILE mixes it in"
            )
        changes: dict[str, Any] = {"noise": noise}
        if config.data.augment.reverb and config.data.augment.reverb.manifest:
            changes["reverb"] = None  # its recordings, as the noise, may not be there
        augment = config.data.augment.model_copy(update=changes)
        changes = {"batch_seconds": settings.batch_seconds, "augment": augment}
        changes |= {"speaker_transforms": None, "transformed_share": 1.0}  # that file has the training speakers
        data = config.data.model_copy(update=changes)
        training = config.training.model_copy(update={"precision": settings.precision or config.training.precision})
        features = config.features.model_copy(update={"source": "on_the_fly"}) if noise else config.features
        changes = {"features": features, "data": data, "training": training, "seed": settings.seed}
        self.config = config.model_copy(update=changes)
        self.objective = load_objective(experiment)
        self.base_weights = {name: tensor.clone() for name, tensor in experiment.model.state_dict().items()}

    def write(self, speaker: SpeakerCuts, path: Path, facts: dict[str, Any]) -> None:
        """Trains on the speaker, and writes the weights and, next to them, `facts` and the cost of the training.

        Where the training fails, with numbers that are not finite, the experiment's weights are written.
        """
        start_time = time.monotonic()
        model = self.experiment.model
        result = self.train(speaker)
        all_steps_bad = 0 < result["steps"] == result["bad_steps"]
        if all_steps_bad or not are_finite(model.state_dict().values()):
            model.load_state_dict(self.base_weights)
            result["broken"] = True
            logger.warning(f"speaker {speaker.name}: numbers that are not finite; keeps the model's weights")
        path.with_suffix(".json").unlink(missing_ok=True)  # it exists only beside complete weights
        metadata = checkpoint_metadata(self.experiment.config, self.experiment.tokenizer.symbols)
        save_checkpoint(path, {"model": model.state_dict(), **metadata})
        result["speaker"] = speaker.name
        result["seconds"] = round(time.monotonic() - start_time, 2)
        write_json(path.with_suffix(".json"), facts | result | provenance())

    def train(self, speaker: SpeakerCuts) -> dict[str, Any]:
        """Leaves the speaker's weights in the experiment's model; returns counts of utterances and steps."""
        model = self.experiment.model
        model.load_state_dict(self.base_weights)
        torch.manual_seed(self.settings.seed)
        needs_alignments = self.config.objective.needs_alignments
        cuts = self._align(speaker.cuts) if needs_alignments else speaker.cuts
        cut_batches = self._cut_batches(cuts) if cuts else []
        experiment = self.experiment
        dataset = SpeechDataset(
            self.config, experiment.tokenizer, training=True, transforms=experiment.transforms, computes_missing=True
        )
        optimizer = torch.optim.AdamW(model.parameters(), betas=self.config.training.betas, weight_decay=0.0)
        model.train()
        bad_steps = 0
        for step, batch in enumerate(load_batches(dataset, cut_batches, self.workers)):
            set_learning_rate(optimizer, self.settings.lr * cosine_decay(step / len(cut_batches)))
            if not self._step(batch, optimizer):
                bad_steps += 1
        model.eval()
        if bad_steps:
            logger.warning(f"speaker {speaker.name}: {bad_steps} bad steps left out")
        elif not cuts:
            logger.warning(f"speaker {speaker.name}: nothing to adapt on")
        return {
            "utterances": len(cuts),
            "steps": len(cut_batches),
            "bad_steps": bad_steps,
            "audio_seconds": speaker.audio_seconds,
        }

    def _step(self, batch: Batch, optimizer: torch.optim.Optimizer) -> bool:
        """Takes one step; returns False, and takes none, if the loss or the gradient is not finite."""
        model = self.experiment.model
        training = self.config.training
        loss = batch_loss(model, batch, self.experiment.device, training.precision, self.objective).sum()
        optimizer.zero_grad(set_to_none=True)
        (loss / max(1, int(batch.target_lens.sum()))).backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), training.max_grad_norm)
        if not (loss.isfinite() and norm.isfinite()):
            return False
        optimizer.step()
        return True

    def _cut_batches(self, cuts: list[Entry]) -> list[CutBatch]:
        """Returns the batches of all epochs; the last epoch may be a part of one."""
        num_epochs = math.ceil(self.settings.epochs)
        cut_batches = [item for epoch in range(num_epochs) for item in self._epoch(cuts, epoch)]
        return cut_batches[: max(1, round(len(cut_batches) * self.settings.epochs / num_epochs))]

    def _epoch(self, cuts: list[Entry], epoch: int) -> Iterator[CutBatch]:
        batches = shuffled_batches(cuts, Position(epoch), self.config.data, self.config.seed)
        for number, batch in enumerate(batches):
            yield CutBatch(Position(epoch, batch=number), batch, Position(epoch, batch=number + 1))

    def _align(self, cuts: list[Entry]) -> list[Entry]:
        """The cuts that the current model can align, with their alignments."""
        experiment = self.experiment
        entries = {cut.id: cut for cut in cuts}
        cut_batches = [
            CutBatch(Position(), batch, Position()) for batch in ordered_batches(cuts, self.settings.batch_seconds)
        ]
        aligned = []
        for batch in experiment.batches(cut_batches, self.workers):
            for name, alignment in align_cuts(batch, experiment).items():
                if not isinstance(alignment, str):  # else the reason why there is none
                    aligned.append(_with_alignment(entries[name], *alignment, experiment))
        return aligned


def _with_alignment(entry: Entry, units: list[Span], words: list[Span], experiment: Experiment) -> Entry:
    cut = with_alignment(deserialize_cut(entry.id, entry.to_dict()), units, words, experiment)
    return replace(entry, line=json.dumps(cut.to_dict()).encode())


def load_objective(experiment: Experiment) -> Objective:
    """Returns the objective of the experiment's training, with the counts that the training has written.

    Raises UserError when the counts are missing.
    """
    config = experiment.config
    counts = {"mmi": UNIT_COUNTS, "ce": PRIORS}
    path = experiment.folder / counts.get(config.objective.kind, "")
    if not path.exists():
        raise UserError(f"{path} is missing, which the training wrote; copy it there")
    return create_objective(config, experiment.tokenizer, experiment.folder, SINGLE_PROCESS, experiment.device)
