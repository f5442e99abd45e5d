"""The session of a language model training: everything that it carries from step to step.

The loop that uses it is in language_model.py. Optimizer, schedule, precision, strategies, checkpoints and log are the
ones that train acoustic models.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from asrtool.config import TrainingConfig
from asrtool.config_types import MAX_COUNT
from asrtool.distributed import Ranks
from asrtool.errors import UserError
from asrtool.lm.sentences import UnitSentences, join_sentences, sentence_batches
from asrtool.lm.transformer_lm import TransformerLm, TransformerLmConfig, check_lm_weights
from asrtool.precision import autocast
from asrtool.tensor_files import DAMAGE, DamagedFileError, damaged_file
from asrtool.text.tokenizer import Tokenizer
from asrtool.training.checkpoint_folder import Checkpoints
from asrtool.training.clock import TrainingClock
from asrtool.training.log import Meter
from asrtool.training.optimizer import create_optimizer, set_learning_rate
from asrtool.training.parallel import Ddp, Strategy
from asrtool.training.saved_state import check_hours, check_optimizer
from asrtool.training.schedule import learning_rate

MAX_GRAD_NORM = 1.0
WARMUP_SHARE = 20  # the warmup is one of so many parts of the steps
STEP_VALUES = ("loss_sum", "units", "gradient_norm", "lr")  # of each step, for the log


@dataclass(frozen=True)
class LmTrainingConfig:
    """How a language model is trained. A step has at most `batch` units over all processes, padding included."""

    epochs: float = 2.0
    batch: int = 4096
    lr: float = 2e-3  # the peak, after a twentieth of the steps; then it falls to 0 along a cosine
    weight_decay: float = 0.01
    precision: Literal["fp32", "bf16", "auto"] = "auto"
    seed: int = 1


class LmSession:
    """Everything that a language model training carries from step to step."""

    def __init__(
        self,
        *,
        sentences: UnitSentences,
        tokenizer: Tokenizer,
        model_config: TransformerLmConfig,
        training: LmTrainingConfig,
        ranks: Ranks,
        device: torch.device,
        folder: Path,
    ):
        self.num_sentences = len(sentences)
        self.num_units = len(sentences.units)
        self.sentences = join_sentences(sentences, model_config.context) if model_config.context else sentences
        self.tokenizer = tokenizer
        self.model_config = model_config
        self.seed = training.seed
        self.ranks = ranks
        self.device = device
        self.folder = folder
        self.checkpoints = Checkpoints(folder / "checkpoints", keep_best=0)
        self.rank_units = max(1, training.batch // ranks.world_size)  # in a batch of one process
        num_batches = len(sentence_batches(self.sentences, self.rank_units, training.seed))
        self.epoch_steps = math.ceil(num_batches / ranks.world_size)
        self.config = _training_config(training, max(1, round(training.epochs * self.epoch_steps)))
        self.settings = asdict(training) | asdict(model_config)
        self.settings |= {"text": sentences.digest, "processes": ranks.world_size}
        torch.manual_seed(training.seed)
        self.model = TransformerLm(tokenizer.size, model_config).to(device)
        self.strategy = Ddp(ranks) if ranks.world_size > 1 else Strategy(ranks)
        self.train_model = self.strategy.wrap(self.model)
        self.optimizer = create_optimizer(self.model, self.config)
        self.step = 0
        self.meter = Meter()
        self.clock = TrainingClock(ranks.world_size)

    @property
    def max_steps(self) -> int:
        """The number of steps of the training."""
        return self.config.max_steps

    @property
    def num_parameters(self) -> int:
        """The number of the model's parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def step_batches(self) -> Iterator[np.ndarray]:
        """Yields this rank's batch for each step, from the current step on, epoch after epoch, without end.

        Every rank has the same number of batches in an epoch: the first ones are repeated to fill the last step.
        """
        world_size = self.ranks.world_size
        skipped = self.step
        for epoch in itertools.count():
            batches = sentence_batches(self.sentences, self.rank_units, self.seed + epoch)
            num_steps = math.ceil(len(batches) / world_size)
            all_ranks = list(itertools.islice(itertools.cycle(batches), num_steps * world_size))
            yield from all_ranks[self.ranks.rank :: world_size][skipped:]
            skipped = max(0, skipped - num_steps)

    def update(self, batch: np.ndarray) -> dict[str, float]:
        """Takes one step with the sentences `batch`; returns the values of this rank for the log.

        A gradient that is not finite changes no weights, and the loss that is returned is NaN.
        """
        # Dropout differs from step to step and from rank to rank, and a resumed training needs no saved random states.
        torch.manual_seed(hash((self.seed, self.step, self.ranks.rank)))
        inputs, lens, targets = (tensor.to(self.device) for tensor in self.sentences.batch(batch))
        lr = learning_rate(self.config, self.step + 1, self.model_config.dim)
        set_learning_rate(self.optimizer, lr)
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.config.precision, self.device):
            logprobs = self.train_model(inputs, lens)
        loss = nn.functional.nll_loss(logprobs, targets)
        loss.backward()
        gradient_norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm)
        values = {"units": len(targets), "gradient_norm": float(gradient_norm), "lr": lr}
        if not gradient_norm.isfinite():
            return {"loss_sum": math.nan, **values}
        self.optimizer.step()
        return {"loss_sum": loss.item() * len(targets), **values}

    def save(self) -> Path:
        """Writes the checkpoint of this step; returns its path. Called on the first rank only."""
        self.clock.note_save()
        state = {
            **self.strategy.state_dicts(self.model, self.optimizer),
            "config": self.settings,
            "step": self.step,
            "unreported": self.meter.values,
            "device_hours": self.clock.device_hours,
        }
        return self.checkpoints.write(self.step, state, dev_losses={})

    def resume(self, path: Path) -> None:
        """Restores the state in the checkpoint `path`. Raises UserError when that is damaged or of another training."""
        hint = f"delete {self.folder} to start again"
        try:
            state = self.checkpoints.load(path, self.device)
        except DamagedFileError as error:
            raise DamagedFileError(error.problem, hint) from error
        changed = [name for name, value in self.settings.items() if state["config"].get(name) != value]
        if changed:
            raise UserError(f"{path} is of a training with another {', '.join(changed)}; {hint}")
        try:
            self._restore(state)
        except DAMAGE as error:
            raise damaged_file(path, "the state of a training that can be resumed", hint, error) from error

    def _restore(self, state: dict[str, Any]) -> None:
        """Restores a state, all of which is checked first; raises one of DAMAGE when it is not complete."""
        step = state["step"]
        if type(step) is not int or not 0 <= step <= self.max_steps:
            raise ValueError(f"step {step!r:.50} of {self.max_steps}")
        check_lm_weights(state["model"], self.tokenizer.size, self.model_config)
        check_optimizer(self.model, self.optimizer, state["optimizer"])
        check_hours(state["device_hours"])
        unreported = [{name: float(row[name]) for name in STEP_VALUES} for row in state["unreported"]]
        self.strategy.load_state_dicts(self.model, self.optimizer, state)
        self.step = step
        self.meter = Meter(unreported)
        self.clock = TrainingClock(self.ranks.world_size, state["device_hours"])


def _training_config(training: LmTrainingConfig, steps: int) -> TrainingConfig:
    """Returns the section of the configuration that the parts of the acoustic trainer read."""
    if steps > MAX_COUNT:
        raise UserError(f"--epochs {training.epochs:g} are {steps:,} steps; at most {MAX_COUNT:,} are supported")
    return TrainingConfig(
        lr=training.lr,
        weight_decay=training.weight_decay,
        precision=training.precision,
        max_grad_norm=MAX_GRAD_NORM,
        schedule="cosine",
        warmup_steps=steps // WARMUP_SHARE,
        max_steps=steps,
    )
