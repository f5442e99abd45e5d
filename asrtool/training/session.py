"""A training's state, from its folder to its first batch: what `train` (train.py) carries from step to step."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from asrtool.config import Config, differences, load_config, save_config
from asrtool.data.inspection import inspect_cuts
from asrtool.data.loading import Batch, Position, SpeechDataset, TrainingSampler, batches
from asrtool.data.statistics import feature_statistics
from asrtool.device import describe, lacks_bf16, pick_device
from asrtool.errors import UserError
from asrtool.files import write_text
from asrtool.models.acoustic import AcousticModel
from asrtool.objectives.ctc import frames_needed
from asrtool.progress import say
from asrtool.text.tokenizer import Tokenizer, load_tokenizer, save_tokenizer
from asrtool.training import checkpoint
from asrtool.training.checkpoint import Checkpoints

# What a resumed training may change: where and how long, but nothing that changes the steps already taken.
CHANGEABLE = {"data.workers", "training.max_steps", "training.patience", "training.validate_every"}
CHANGEABLE |= {"training.keep_best", "training.log_every"}


@dataclass
class Progress:
    """How far training is, next to the weights: all of it goes into the checkpoint."""

    step: int = 0
    position: Position = field(default_factory=Position)  # of the next batch
    seconds: float = 0.0  # audio consumed
    dev_losses: dict[int, float] = field(default_factory=dict)  # by step
    recent: list[dict[str, float]] = field(default_factory=list)  # values of the steps since the last report

    def to_dict(self) -> dict:
        return {**vars(self), "position": list(vars(self.position).values())}

    @classmethod
    def from_dict(cls, values: dict) -> "Progress":
        return cls(**{**values, "position": Position(*values["position"])})

    def exhausted(self, patience: int | None) -> bool:
        """Whether the last `patience` validations brought nothing better."""
        if patience is None or not self.dev_losses:
            return False
        best = min(self.dev_losses, key=self.dev_losses.get)
        return sum(step > best for step in self.dev_losses) >= patience


def prepare_experiment(config: Config, experiment: Path, resume: bool) -> Tokenizer:
    """Make or check the folder: configuration and tokenizer are copied into it, and must not change under it."""
    started = experiment / "config.yaml"
    if Checkpoints(experiment / "checkpoints", 1).last() is not None:
        if not resume:
            raise UserError(f"{experiment} already holds a training; give --resume to continue it, or another --exp")
        changed = [d for d in differences(load_config(started), config) if d.split(":")[0] not in CHANGEABLE]
        if changed:
            raise UserError(f"{experiment} was started with other settings ({'; '.join(changed)}); give another --exp")
        tokenizer = load_tokenizer(experiment / "tokenizer.json")
    else:
        tokenizer = load_tokenizer(config.data.tokenizer)
        save_tokenizer(tokenizer, experiment / "tokenizer.json")
    save_config(config, started)
    return tokenizer


def look_through(config: Config, tokenizer: Tokenizer, model: AcousticModel, experiment: Path) -> frozenset[str]:
    """Inspect both manifests; the ids to leave out, which are also listed in `dropped.txt`."""
    dropped: dict[str, str] = {}
    for name, path in (("train", config.data.train), ("dev", config.data.dev)):
        found = inspect_cuts(path, config, tokenizer, frames_needed, model.out_length)
        say(f"{name}: {found}")
        dropped |= found.dropped
    for identifier, reason in list(dropped.items())[:10]:
        say(f"  dropped {identifier}: {reason}")
    if len(dropped) > 10:
        say(f"  ... and {len(dropped) - 10} more")
    write_text(experiment / "dropped.txt", "".join(f"{name}: {reason}\n" for name, reason in dropped.items()))
    return frozenset(dropped)


def make_optimizer(model: nn.Module, config: Config) -> torch.optim.AdamW:
    """AdamW, fused; weight decay on matrices only, since decaying norms and biases only shrinks them."""
    training = config.training
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": training.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=training.lr, betas=training.betas, fused=True)


@dataclass
class Session:
    """Everything that a run of `train` carries from step to step."""

    config: Config
    experiment: Path
    device: torch.device
    tokenizer: Tokenizer
    model: AcousticModel
    optimizer: torch.optim.Optimizer
    progress: Progress
    dropped: frozenset[str]
    sampler: TrainingSampler

    @property
    def done(self) -> bool:
        """Whether all steps are taken, or patience has run out."""
        training = self.config.training
        return self.progress.step >= training.max_steps or self.progress.exhausted(training.patience)

    @property
    def checkpoints(self) -> Checkpoints:
        """The experiment's checkpoint folder."""
        return Checkpoints(self.experiment / "checkpoints", self.config.training.keep_best)

    def training_batches(self, augmented: bool = True) -> Iterator[Batch]:
        """Batches without end, from where training is."""
        self.sampler.start = self.progress.position
        dataset = SpeechDataset(self.config, self.tokenizer, training=augmented)
        return batches(dataset, self.sampler, self.config.data.workers)

    def save(self) -> Path:
        """Write the checkpoint of this step."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": self.progress.to_dict(),
            "random": checkpoint.random_states(),
            "config": self.config.model_dump(mode="json"),
            "versions": checkpoint.versions(),
        }
        return self.checkpoints.write(self.progress.step, state, self.progress.dev_losses)

    def resume(self, path: Path) -> None:
        """Continue from a checkpoint: weights, optimiser, position in the data and random states."""
        state = checkpoint.load(path, self.device)
        checkpoint.load_weights(self.model, state, path)
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress.from_dict(state["progress"])
        checkpoint.restore_random_states(state["random"])


def start_session(config: Config, experiment: Path, resume: bool, device_name: str) -> Session:
    """Everything up to the first step, checked: folder, data, model, and the state to resume from."""
    device = pick_device(device_name)
    tokenizer = prepare_experiment(config, experiment, resume)
    random.seed(config.seed)
    torch.manual_seed(config.seed)
    model = AcousticModel(config, tokenizer.size).to(device)
    dropped = look_through(config, tokenizer, model, experiment)
    optimizer = make_optimizer(model, config)
    sampler = TrainingSampler(config, dropped)
    session = Session(config, experiment, device, tokenizer, model, optimizer, Progress(), dropped, sampler)
    last = session.checkpoints.last()
    if last is not None:
        session.resume(last)
        say(f"resumed from {last}: step {session.progress.step}, epoch {session.progress.position.epoch}")
    elif config.model.normalise != "none":
        say("measuring the mean and deviation of the features")
        clean = session.training_batches(augmented=False)
        model.normalise.set_statistics(*feature_statistics(clean, config.model.normalise == "utterance"))
    parameters = sum(p.numel() for p in model.parameters())
    if config.training.precision == "bf16" and lacks_bf16(device):
        say("this CPU has no bf16 instructions: bf16 products are computed in fp32, no faster than precision fp32")
    say(f"{parameters / 1e6:.2f} M parameters, {tokenizer.size} units, on {describe(device)}")
    return session
