"""The session: everything that a training carries from step to step. The loop that uses it is in train.py."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch
from torch import nn

from asrtool.config import Config
from asrtool.data.augment import keyed_generator
from asrtool.data.batch import Batch
from asrtool.data.batch_cost import UtteranceCost
from asrtool.data.features import frame_seconds
from asrtool.data.loading import SpeechDataset, load_batches
from asrtool.data.sampling import TrainingSampler
from asrtool.distributed import Ranks, sum_over_ranks
from asrtool.models.acoustic import AcousticModel
from asrtool.models.cost import attention_seconds
from asrtool.objectives.objective import Objective
from asrtool.text.outputs import outputs_of
from asrtool.text.tokenizer import Tokenizer
from asrtool.training.average import EmaWeights, are_finite
from asrtool.training.checkpoint_folder import Checkpoints
from asrtool.training.clock import TrainingClock
from asrtool.training.experiment_folder import DroppedCuts
from asrtool.training.parallel import Strategy
from asrtool.training.schedule import learning_rate, reference_scale, seconds_per_step
from asrtool.training.state import RankState, StepActions, TrainingProgress


def corpus_value(name: str, number: int) -> str:
    """Returns the name of a value of one of several corpora among the values of a step (see Meter)."""
    return f"{name} of corpus {number}"


@dataclass(kw_only=True)
class Session:
    """Everything that a training carries from step to step."""

    config: Config
    experiment: Path
    ranks: Ranks
    device: torch.device
    tokenizer: Tokenizer
    objective: Objective  # created by asrtool/training/objective.py
    model: AcousticModel
    strategy: Strategy
    train_model: nn.Module  # `model` as the strategy wraps it, for forward passes with gradients
    optimizer: torch.optim.Optimizer
    ema: EmaWeights | None
    dropped: DroppedCuts
    progress: TrainingProgress = field(default_factory=TrainingProgress)
    rank_state: RankState = field(default_factory=RankState)
    last_sync_step: int = 0  # the last step after which all ranks had the same weights
    warmup_hours: float | None = None  # of audio, after which a warmup phase ends
    max_dev_batches: int | None = None  # of a validation; None is all
    is_dry_run: bool = False  # its folder is removed at the end: log lines do not name files in it
    clock: TrainingClock = field(init=False)

    def __post_init__(self) -> None:
        self.clock = TrainingClock(self.ranks.world_size)

    @property
    def done(self) -> bool:
        """Returns True after the last step, when patience is over, and when a warmup has consumed its hours."""
        training = self.config.training
        warmed_up = self.warmup_hours is not None and self.progress.seconds >= 3600 * self.warmup_hours
        at_end = self.progress.step >= training.max_steps
        return warmed_up or at_end or self.progress.patience_is_over(training.patience)

    @property
    def checkpoints(self) -> Checkpoints:
        """The experiment's checkpoint folder."""
        training = self.config.training
        return Checkpoints(self.experiment / "checkpoints", training.keep_best, training.keep_last)

    @property
    def num_mixed(self) -> int:
        """The number of corpora that are mixed; 0 for a single manifest."""
        return len(self.config.data.corpora) if isinstance(self.config.data.train, tuple) else 0

    @property
    def num_parameters(self) -> int:
        """The number of the model's parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def utterance_cost(self) -> UtteranceCost:
        """What an utterance costs the model, by which batches are balanced."""
        return UtteranceCost(attention_seconds(self.config, outputs_of(self.config, self.tokenizer)))

    @property
    def data_seed(self) -> int:
        """The seed of the order of the data and of augmentation: another one in each training of a sequence.

        With one seed for all, MMI training would begin with the batches that CTC training began with.
        """
        seed, earlier = self.config.seed, self.progress.earlier_trainings
        return keyed_generator("training", seed, earlier).getrandbits(63) if earlier else seed

    def next_learning_rate(self) -> float:
        """Returns the learning rate of the next step: the schedule's, lowered by the rollbacks so far."""
        config = self.config
        accumulate = config.training.accumulate_grad_batches
        step_seconds = seconds_per_step(config.data.batch_seconds, accumulate, self.ranks.world_size)
        scale = reference_scale(config.training, step_seconds)
        lr = learning_rate(config.training, self.progress.step + 1, config.model.dim, scale)
        return lr * self.rank_state.guard.lr_factor(config.guards)

    def training_batches(self, ranks: Ranks, augmented: bool = True) -> Iterator[Batch]:
        """Yields the batches of a rank without end, from the current position in the data.

        `augmented` False leaves out the augmentation.
        """
        config = self.config
        dropped = self.dropped
        position = self.progress.position
        sampler = TrainingSampler(
            config.data, self.data_seed, dropped.train, position, ranks, dropped.sizes, self.utterance_cost
        )
        dataset = SpeechDataset(config, self.tokenizer, training=augmented, seed=self.data_seed)
        return load_batches(dataset, sampler, config.data.workers, pin_memory=self.device.type == "cuda")

    def step_batches(self) -> Iterator[list[Batch]]:
        """Yields the batches of this rank for each step."""
        batches = self.training_batches(self.ranks)
        while True:
            yield list(islice(batches, self.config.training.accumulate_grad_batches))

    def count_step(self, batches: list[Batch]) -> dict[str, float]:
        """Counts a step that was taken; returns its seconds of audio, without and with padding, for the log."""
        for batch in batches:
            self.rank_state.count_batch(batch)
        self.progress.step += 1
        self.progress.position = batches[-1].next_position
        shift = frame_seconds(self.config.features.sampling_rate)
        padded = sum(batch.features.shape[0] * batch.features.shape[1] * shift for batch in batches)
        values = {"seconds": sum(batch.seconds for batch in batches), "padded": padded}
        for number in range(self.num_mixed):
            frames = [
                length
                for batch in batches
                for length, corpus in zip(batch.feature_lens.tolist(), batch.corpora, strict=True)
                if corpus == number
            ]
            values[corpus_value("seconds", number)] = sum(frames) * shift
        return values

    def synchronise(self) -> bool:
        """Averages the weights if the strategy does so after this step.

        Returns True if all ranks have the same weights now; they always have after the last step.
        """
        is_last_step = self.progress.step == self.config.training.max_steps
        return self.strategy.synchronise(self.model, self.optimizer, force=is_last_step)

    def all_ranks_agree(self, stop_requested: bool) -> StepActions:
        """Returns the actions after this step, the same on all ranks: what any rank requests, all ranks do.

        `stop_requested` is this rank's request, e.g. after Ctrl-C. Also adds up the audio that the ranks have
        consumed. Called on all ranks after `synchronise` returned True.
        """
        training = self.config.training
        must_validate = self._is_due(training.validate_every)
        must_save = self._is_due(training.save_every)
        save_is_late = self.ranks.is_first and self.clock.save_is_late(training.save_minutes)
        must_roll_back = self.rank_state.guard.bad_in_a_row >= self.config.guards.max_bad_steps
        if must_validate or must_save or save_is_late or stop_requested or self.done:
            # nothing is saved or validated with weights that are not finite
            must_roll_back = must_roll_back or not are_finite(self.model.state_dict().values())
        seconds, num_stop, num_roll_back, num_late = sum_over_ranks(
            self.ranks, self.rank_state.unsynced_seconds, stop_requested, must_roll_back, save_is_late
        )
        self.progress.seconds += seconds
        self.rank_state.unsynced_seconds = 0.0
        self.last_sync_step = self.progress.step
        return StepActions(
            stop=num_stop > 0,
            roll_back=num_roll_back > 0,
            validate=must_validate,
            save=must_save or num_late > 0,
        )

    def _is_due(self, every: int | None) -> bool:
        """Returns True if a multiple of `every` lies between the last synchronisation and this step."""
        return every is not None and self.progress.step // every > self.last_sync_step // every
