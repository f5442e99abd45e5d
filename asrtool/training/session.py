"""A training's state, from its folder to its first batch: what `train` (train.py) carries from step to step."""

import hashlib
import logging
import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field, TypeAdapter
from torch import nn

from asrtool import checkpoint
from asrtool.checkpoint import Checkpoints, ranked
from asrtool.config import Config, Count, Integer, Real, TrainingConfig, Weight
from asrtool.config_file import differences, is_saved_config, load_config, save_config
from asrtool.data.batch import Batch, Position
from asrtool.data.features import FRAME_SHIFT
from asrtool.data.inspection import inspect_cuts
from asrtool.data.loading import SpeechDataset, batches
from asrtool.data.sampling import TrainingSampler
from asrtool.data.shards import fingerprint
from asrtool.data.statistics import feature_statistics
from asrtool.device import describe, lacks_bf16, pick_device
from asrtool.distributed import (
    SINGLE_PROCESS,
    Ranks,
    broadcast_from_first,
    gather_from_all,
    on_first_rank,
    sum_over_ranks,
)
from asrtool.errors import UserError, fold
from asrtool.files import TEMPORARY, write_text
from asrtool.locks import LOCK
from asrtool.logs import printable
from asrtool.models.acoustic import AcousticModel, output_layer
from asrtool.objectives.objective import Objective
from asrtool.tensor_files import DAMAGE, Damaged, damaged
from asrtool.text.tokenizer import Tokenizer, load_tokenizer, save_tokenizer
from asrtool.training import saved_state
from asrtool.training.average import RunningMean, is_parted
from asrtool.training.guards import Watch
from asrtool.training.objective import make_objective
from asrtool.training.parallel import Alone
from asrtool.training.schedule import describe_rate
from asrtool.training.strategy import make_strategy

logger = logging.getLogger(__name__)

# What a resumed training may change: where and how long, but nothing that changes the steps already taken.
CHANGEABLE = {"data.workers", "training.max_steps", "training.patience", "training.validate_every"}
CHANGEABLE |= {"training.save_every", "training.save_minutes", "training.keep_best", "training.keep_last"}
CHANGEABLE |= {"training.average", "training.log_every", "training.log_layers", "parallel.timeout"}


@dataclass(frozen=True)
class Start:
    """What a training begins from, when there is nothing to resume."""

    checkpoint: Path | None = None  # another training's; its weights
    optimizer: bool = False  # its moments too
    schedule: bool = False  # its number of steps too, on which the learning rate goes on
    new_output: bool = False  # not its output layer, which is drawn new for the units of this training


@dataclass
class Progress:
    """How far training is, the same on all ranks: all of it goes into the checkpoint."""

    step: Count = 0
    position: Position = field(default_factory=Position)  # of the next batch
    seconds: Weight = 0.0  # audio consumed by all ranks
    dev_losses: dict[Integer, Real] = field(default_factory=dict)  # by step
    begun_from: str | None = None  # a checkpoint of another training
    manifest: str = ""  # fingerprint of data.train

    def to_dict(self) -> dict:
        return {**vars(self), "position": list(vars(self.position).values())}

    @classmethod
    def from_dict(cls, values: dict) -> "Progress":
        """What `to_dict` gave. ValueError and others for anything else."""
        position = Position(*TypeAdapter(tuple[Count, Count, Count, Count]).validate_python(values["position"]))
        return TypeAdapter(cls).validate_python({**values, "position": position})

    def exhausted(self, patience: int | None) -> bool:
        """Whether the last `patience` validations brought nothing better."""
        best = next(iter(ranked(self.dev_losses)), None)
        if patience is None or best is None:
            return False
        return sum(step > best for step in self.dev_losses) >= patience


@dataclass
class Own:
    """What each rank has of its own; the checkpoint holds every rank's."""

    watch: Watch = field(default_factory=Watch)
    # Values of the steps since the last report; those of bad steps may be NaN
    recent: list[dict[str, Annotated[float, Field(strict=True)]]] = field(default_factory=list)
    seconds: Weight = 0.0  # audio that is not yet in `Progress.seconds`
    digest: str = ""  # of the ids of all cuts so far, in their order

    def saw(self, batch: Batch) -> None:
        """Count a batch."""
        self.seconds += batch.seconds
        self.digest = hashlib.blake2b(repr((self.digest, batch.ids)).encode(), digest_size=16).hexdigest()

    def to_dict(self) -> dict:
        return {**vars(self), "watch": vars(self.watch)}

    @classmethod
    def from_dict(cls, values: dict) -> "Own":
        """What `to_dict` gave. ValueError and others for anything else."""
        return TypeAdapter(cls).validate_python(values)


class Dropped(NamedTuple):
    """The ids of cuts that are left out, of each set."""

    train: frozenset[str] = frozenset()
    dev: frozenset[str] = frozenset()


def require_experiment_folder(experiment: Path) -> None:
    """UserError unless training may write into the folder: it is new, empty, or an experiment already.

    Experiments inside it, as that of a warmup, and the logs of other ranks may be there first.
    """
    started = experiment / "config.yaml"
    if not experiment.exists():
        return
    if not experiment.is_dir():
        raise UserError(f"{experiment} is a file; an experiment is a folder: give another --exp")
    if started.is_file():
        if Checkpoints(experiment / "checkpoints", 1).last() is None and not is_saved_config(started):
            raise UserError(f"{started} was not written by `asrtool train`; give another --exp")
        return
    for entry in experiment.iterdir():
        ours = entry.name in (LOCK, "logs") or entry.name.startswith(TEMPORARY)
        if not (ours or (entry / "config.yaml").is_file()):
            has = f"{experiment} is not an experiment, and has other files ({printable(entry.name)})"
            raise UserError(f"{has}; give another --exp")


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
        checkpoint.sketch(config, tokenizer.size)
        save_tokenizer(tokenizer, experiment / "tokenizer.json")
    save_config(config, started)
    return tokenizer


def look_through(
    config: Config, tokenizer: Tokenizer, objective: Objective, model: AcousticModel, experiment: Path
) -> Dropped:
    """Inspect both manifests; the ids to leave out of each, which are also listed in `dropped.txt`."""
    dropped: dict[str, dict[str, str]] = {}
    for name, path in (("train", config.data.train), ("dev", config.data.dev)):
        found = inspect_cuts(path, config, tokenizer, objective.frames_needed, model.out_length)
        logger.info(f"{name}: {found}")
        dropped[name] = found.dropped
    lines = [f"{name} {printable(cut)}: {reason}" for name, cuts in dropped.items() for cut, reason in cuts.items()]
    for line in fold(lines):
        logger.info(f"  dropped of {line}")
    write_text(experiment / "dropped.txt", "".join(f"{line}\n" for line in lines))
    return Dropped(**{name: frozenset(cuts) for name, cuts in dropped.items()})


def make_optimizer(model: nn.Module, training: TrainingConfig) -> torch.optim.AdamW:
    """AdamW, fused; weight decay on matrices only, since decaying norms and biases only shrinks them."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": training.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=training.lr, betas=training.betas, fused=True)


@dataclass(frozen=True)
class Due:
    """What the ranks agree to do after a step."""

    stop: bool
    rollback: bool
    validation: bool
    checkpoint: bool


@dataclass
class Session:
    """Everything that a run of `train` carries from step to step."""

    config: Config
    experiment: Path
    ranks: Ranks
    device: torch.device
    tokenizer: Tokenizer
    objective: Objective
    model: AcousticModel
    strategy: Alone
    module: nn.Module  # the model as the strategy wants it called
    optimizer: torch.optim.Optimizer
    mean: RunningMean | None
    dropped: Dropped
    progress: Progress = field(default_factory=Progress)
    own: Own = field(default_factory=Own)
    device_seconds: float = 0.0  # of earlier runs, over all ranks
    begun: float = field(default_factory=time.monotonic)
    saved: float = field(default_factory=time.monotonic)  # when the last checkpoint was written
    met: int = 0  # the last step after which all ranks had the same weights
    warmup_hours: float | None = None  # of audio, after which this phase ends
    dev_batches: int | None = None  # of a validation; all by default
    temporary: bool = False  # the folder is removed at the end: its files are nothing to point at

    @property
    def done(self) -> bool:
        """Whether all steps are taken, patience has run out, or the warmup has had its hours."""
        training, progress = self.config.training, self.progress
        warm = self.warmup_hours is not None and progress.seconds >= 3600 * self.warmup_hours
        return warm or progress.step >= training.max_steps or progress.exhausted(training.patience)

    @property
    def checkpoints(self) -> Checkpoints:
        """The experiment's checkpoint folder."""
        training = self.config.training
        return Checkpoints(self.experiment / "checkpoints", training.keep_best, training.keep_last)

    @property
    def cost(self) -> float:
        """Device hours so far: time by the number of ranks."""
        return (self.device_seconds + (time.monotonic() - self.begun) * self.ranks.world_size) / 3600

    def training_batches(self, ranks: Ranks, augmented: bool = True) -> Iterator[Batch]:
        """This rank's batches without end, from where training is."""
        sampler = TrainingSampler(self.config, self.dropped.train, self.progress.position, ranks)
        dataset = SpeechDataset(self.config, self.tokenizer, training=augmented)
        return batches(dataset, sampler, self.config.data.workers)

    def steps(self) -> Iterator[list[Batch]]:
        """What this rank has in each step."""
        stream = self.training_batches(self.ranks)
        while True:
            yield list(islice(stream, self.config.training.accumulate_grad_batches))

    def count(self, step: list[Batch]) -> dict[str, float]:
        """A step is taken; its seconds of audio, and with padding."""
        for batch in step:
            self.own.saw(batch)
        self.progress.step += 1
        self.progress.position = step[-1].after
        padded = sum(batch.features.shape[0] * batch.features.shape[1] * FRAME_SHIFT for batch in step)
        return {"seconds": sum(batch.seconds for batch in step), "padded": padded}

    def meet(self) -> bool:
        """Whether all ranks have the same weights now; they must have, after the last step."""
        last = self.progress.step == self.config.training.max_steps
        return self.strategy.after_step(self.model, self.optimizer, last)

    def agree(self, stop: bool) -> Due:
        """What to do now, the same on all ranks: `stop` is one rank's wish."""
        training, progress, own = self.config.training, self.progress, self.own
        late = (
            self.ranks.is_first and training.save_minutes and time.monotonic() - self.saved > 60 * training.save_minutes
        )
        validation, checkpoint_due = map(self._passed, (training.validate_every, training.save_every))
        lost = own.watch.in_a_row >= self.config.guards.max_bad_steps
        if (
            validation or checkpoint_due or late or stop or self.done
        ):  # nothing is written or measured with broken weights
            lost = lost or not are_finite(self.model.state_dict().values())
        wishes = sum_over_ranks(self.ranks, own.seconds, stop, lost, bool(late))
        progress.seconds, own.seconds = progress.seconds + wishes[0], 0.0
        self.met = progress.step
        return Due(wishes[1] > 0, wishes[2] > 0, validation, checkpoint_due or wishes[3] > 0)

    def _passed(self, every: int | None) -> bool:
        """Whether a multiple of `every` lies between the last meeting and this one."""
        return every is not None and self.progress.step // every > self.met // every

    def average(self) -> list[int]:
        """Write `averaged.pt` and take its weights; returns the steps that it is the mean of, none for all."""
        training, losses = self.config.training, self.progress.dev_losses
        if training.average != "ema":
            average, units = self.checkpoints.average, self.tokenizer.symbols
            steps = on_first_rank(self.ranks, lambda: average(training.average, losses, self.config, units))
        else:
            steps = []
            for weight, mean in zip(self.model.parameters(), self.mean.weights, strict=True):
                weight.data.copy_(mean)
            weights = self.strategy.weights(self.model)
            write, units = self.checkpoints.write_averaged, self.tokenizer.symbols
            on_first_rank(self.ranks, lambda: write(weights, [], self.config, units))
        path = self.checkpoints.folder / "averaged.pt"
        self.strategy.load(self.model, self.optimizer, {"model": checkpoint.load(path, self.device)["model"]})
        return steps

    def state(self) -> dict[str, Any]:
        """For a checkpoint. All ranks take part; the first's counts."""
        own = gather_from_all(self.ranks, {**self.own.to_dict(), "random": checkpoint.random_states()})
        return {
            **self.strategy.states(self.model, self.optimizer),
            "mean": self.mean.state_dict() if self.mean else None,
            "progress": self.progress.to_dict(),
            "ranks": own,
            "device_hours": self.cost,
            **checkpoint.described(self.config, self.tokenizer.symbols),
        }

    def save(self) -> Path:
        """Write the checkpoint of this step, on the first rank; the others wait for it."""
        state, progress = self.state(), self.progress
        self.saved = time.monotonic()
        write = self.checkpoints.write
        return Path(on_first_rank(self.ranks, lambda: str(write(progress.step, state, progress.dev_losses))))

    def resume(self, path: Path) -> None:
        """Continue from a checkpoint: weights, optimiser, position in the data and random states."""
        state = checkpoint.load(path, self.device)
        checkpoint.check_units(state, self.tokenizer.symbols, path, "put back the tokenizer.json it was trained with")
        checkpoint.check_weights(self.model, state, path)
        progress, owns = self._checked(state, path)
        self.strategy.load(self.model, self.optimizer, state)
        if self.mean:
            self.mean.load_state_dict(state["mean"])
        vars(self.progress).update(vars(progress))
        self.met = self.progress.step
        self.device_seconds, self.begun = 3600 * state["device_hours"], time.monotonic()
        if len(owns) == self.ranks.world_size:
            checkpoint.restore_random_states(state["ranks"][self.ranks.rank]["random"])
            self.own = owns[self.ranks.rank]
        else:
            logger.info(
                f"{self.ranks.world_size} ranks go on where {len(owns)} stopped: the same data in its order, other dropout"
            )
            self.own = Own(watch=owns[0].watch)

    def _checked(self, state: dict, path: Path) -> tuple[Progress, list[Own]]:
        """A training's progress, and what each rank had. Damaged unless all of the checkpoint can be restored."""
        try:
            saved_state.check_optimizer(self.model, self.optimizer, state["optimizer"])
            saved_state.check_mean(self.mean, state["mean"])
            saved_state.check_blocks(self.model, state.get("bmuf"))
            saved_state.check_hours(state["device_hours"])
            for rank in state["ranks"]:
                saved_state.check_random(rank["random"])
            owns = [Own.from_dict({k: v for k, v in rank.items() if k != "random"}) for rank in state["ranks"]]
            if not owns:
                raise ValueError("it is of no rank")
            return Progress.from_dict(state["progress"]), owns
        except DAMAGE as error:
            raise damaged(path, "the state of a training that can go on", checkpoint.ANOTHER, error) from error

    def begin_from(self, start: Start) -> None:
        """Begin from another training's checkpoint: its weights, and what else `start` names."""
        path, state = start.checkpoint, checkpoint.load(start.checkpoint, self.device)
        checkpoint.check_sampling_rate(state, self.config.features.sampling_rate, path)
        if start.new_output:
            state["model"] |= new_output(self.config, self.tokenizer.size, self.device)
        else:
            hint = "--new-output keeps its other weights, and draws the output layer new for these"
            checkpoint.check_units(state, self.tokenizer.symbols, path, hint)
        checkpoint.check_weights(self.model, state, path)
        self.strategy.load(self.model, self.optimizer, self._wanted(start, state))
        self.progress.begun_from = str(path)
        self.met = self.progress.step
        weights = "its weights but a new output layer" if start.new_output else "its weights"
        moments = "its optimiser's moments" if start.optimizer else "fresh moments of the optimiser"
        steps = f"its schedule from step {self.progress.step} on" if start.schedule else "the schedule from its start"
        logger.info(f"begun from {path}: {weights}, {moments}, {steps}")

    def _wanted(self, start: Start, state: dict) -> dict[str, Any]:
        """What to take of a checkpoint for the model and the optimiser; takes over its step."""
        if not (start.optimizer or start.schedule):
            return {"model": state["model"]}
        path = start.checkpoint
        if "optimizer" not in state:
            raise UserError(f"{path} holds weights alone; leave --init-optimizer and --init-schedule out")
        try:
            saved_state.check_optimizer(self.model, self.optimizer, state["optimizer"])
            step = Progress.from_dict(state["progress"]).step
        except DAMAGE as error:
            raise damaged(path, "the state of a training", checkpoint.ANOTHER, error) from error
        self.progress.step = step if start.schedule else 0
        return {name: state[name] for name in ("model", "optimizer")[: 1 + start.optimizer]}

    def measure_features(self) -> None:
        """Mean and deviation of the features, for the model to normalise them with."""
        logger.info("measuring the mean and deviation of the features")
        per_utterance = self.config.model.normalise == "utterance"
        measure = lambda: feature_statistics(self.training_batches(SINGLE_PROCESS, augmented=False), per_utterance)  # noqa: E731
        self.model.normalise.set_statistics(*on_first_rank(self.ranks, measure))


def new_output(config: Config, units: int, device: torch.device) -> dict[str, torch.Tensor]:
    """The weights of a fresh output layer by their names in the model, drawn from the seed: the same on all ranks."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        layer = output_layer(config.model.dim, units)
    return {f"output.{name}": weight.to(device) for name, weight in layer.state_dict().items()}


def are_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether all of them are finite; of those that are sharded over ranks, this rank's part."""
    local = (tensor.to_local() if is_parted(tensor) else tensor for tensor in tensors)
    return bool(torch.stack([tensor.isfinite().all() for tensor in local]).all())


def start_session(config: Config, experiment: Path, resume: bool, device: str, ranks: Ranks, start: Start) -> Session:
    """Everything up to the first step, checked: folder, data, model, and the state to resume from."""
    tokenizer = on_first_rank(ranks, lambda: prepare_experiment(config, experiment, resume))
    random.seed(config.seed)
    torch.manual_seed(config.seed)
    place = pick_device(device, ranks.local_rank)
    model = AcousticModel(config, tokenizer.size).to(place)
    parameters = sum(p.numel() for p in model.parameters())
    objective = make_objective(config, tokenizer, experiment, ranks, place)
    logger.info(f"objective {objective}")
    dropped = on_first_rank(ranks, lambda: look_through(config, tokenizer, objective, model, experiment))
    strategy = make_strategy(config, ranks)
    module = strategy.wrap(model)
    optimizer = make_optimizer(model, config.training)
    mean = RunningMean(model, config.training.ema_decay) if config.training.ema_decay else None
    parts = (tokenizer, objective, model, strategy, module, optimizer, mean)
    session = Session(config, experiment, ranks, place, *parts, dropped)
    torch.manual_seed(config.seed + ranks.rank)  # dropout differs from rank to rank
    _find_state(session, start)
    if config.training.precision == "bf16" and lacks_bf16(place):
        logger.info(
            "this CPU has no bf16 instructions: bf16 products are computed in fp32, no faster than precision fp32"
        )
    logger.info(
        f"{parameters / 1e6:.2f} M parameters, {tokenizer.size} units, on {ranks.world_size} x {describe(place)}"
    )
    logger.info(describe_rate(config, ranks))
    return session


def _find_state(session: Session, start: Start) -> None:
    """Resume, begin from another training, or begin."""
    last = broadcast_from_first(session.ranks, session.checkpoints.last())
    manifest = fingerprint(session.config.data.train)
    if last is not None:
        _resume(session, last, manifest, start)
        return
    session.progress.manifest = manifest
    if start.checkpoint:
        session.begin_from(start)
    elif session.config.model.normalise != "none":
        session.measure_features()
    session.strategy.start(session.model, session.optimizer)


def _resume(session: Session, last: Path, manifest: str, start: Start) -> None:
    """Go on from the checkpoint `last`, if the data and the beginning are the same as in its training."""
    try:
        session.resume(last)
    except Damaged as error:
        raise Damaged(error.problem, session.checkpoints.beyond(last)) from error
    progress = session.progress
    if progress.manifest != manifest:
        raise UserError(f"{session.config.data.train} was changed since {last} was written; give another --exp")
    if start.checkpoint and progress.begun_from != str(start.checkpoint):
        raise UserError(f"{session.experiment} was begun from {progress.begun_from}, not from {start.checkpoint}")
    said = f"resumed from {last}: step {progress.step}, epoch {progress.position.epoch}"
    logger.info(said + (f"; it was begun from {progress.begun_from}" if progress.begun_from else ""))
