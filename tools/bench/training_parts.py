"""The parts of a training and of loading whose time training_time.py reports: their functions, and a clock for them."""

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from unittest.mock import patch

import torch
from part_times import PartClock

from asrtool.config import Config
from asrtool.data import loading
from asrtool.data.batch import Batch
from asrtool.data.sampling import TrainingSampler
from asrtool.objectives.mmi import Mmi
from asrtool.training import start, step, train
from asrtool.training.average import EmaWeights
from asrtool.training.guards import LossGuard
from asrtool.training.log import TrainingLog
from asrtool.training.resume import InitialWeights
from asrtool.training.session import Session

STATISTICS = "start-up: statistics of the features"
VALIDATION = "validation"
STEP = "step: "
PARTS = [
    (train, "start_session", "start-up"),
    (start, "prepare_experiment", "start-up: folder and its checks"),
    (start, "create_objective", "start-up: objective"),
    (start, "scan_manifests", "start-up: scan of the manifests"),
    (start, "_measure_features", STATISTICS),
    (train, "training_step", f"{STEP}rest"),
    (step, "to_device", f"{STEP}copy to the device"),
    (Mmi, "numerators", f"{STEP}numerator graphs"),
    (torch.Tensor, "backward", f"{STEP}backward pass"),
    (torch.nn.utils, "clip_grad_norm_", f"{STEP}gradient clipping"),
    (EmaWeights, "update", f"{STEP}optimiser"),
    (LossGuard, "problem", f"{STEP}guards"),
    (step, "log_unusable_cuts", f"{STEP}guards"),
    (Session, "all_ranks_agree", "after a step"),
    (train, "_open_log", "logging: opening of the log and trackers"),
    (train, "report_start", "logging"),
    (train, "report_progress", "logging"),
    (TrainingLog, "advance", "logging"),
    (TrainingLog, "event", "logging"),
    (TrainingLog, "__exit__", "logging"),
    (train, "validate", VALIDATION),
    (train, "save_session", "checkpoints"),
    (train, "write_averaged_weights", "checkpoints: average"),
    (train, "plot_losses", "loss curves"),
]
LOADING_PARTS = [
    (loading, "load_features", "features"),
    (loading, "perturb_speed", "augmentation: speed"),
    (loading, "audio_change", "augmentation: draws of the audio's"),
    (loading, "perturb_vocal_tract_length", "augmentation: VTLP"),
    (loading, "mask_batch", "augmentation: SpecAugment"),
]


def time_training(
    config: Config, experiment: Path, device: str, initial: InitialWeights | None
) -> tuple[Session, PartClock]:
    """Trains; returns the session as it is after the last step, and the time of the parts."""
    clock = PartClock(torch.device(device), whole=(STATISTICS, VALIDATION))
    sessions: list[Session] = []
    with ExitStack() as stack:
        for owner, attribute, name in PARTS:
            clock.patch(stack, owner, attribute, name)
        _patch_loading(clock, stack)
        start_session = train.start_session

        def start_timed_session(*values, **options) -> Session:
            session = start_session(*values, **options)
            _patch_session(clock, stack, session)
            sessions.append(session)
            return session

        stack.enter_context(patch.object(train, "start_session", start_timed_session))
        with clock.running():
            train.train(config, experiment, device=device, initial=initial)
    return sessions[0], clock


def time_loading(session: Session, count: int) -> tuple[list[list[Batch]], PartClock]:
    """Loads the batches of 2 * `count` steps with one thread of this process; returns the later half, and its time.

    The earlier half fills buffers and caches, and is not counted.
    """
    data = session.config.data.model_copy(update={"workers": 0})
    session.config = session.config.model_copy(update={"data": data})
    clock = PartClock(torch.device("cpu"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    batches = session.step_batches()
    list(islice(batches, count))
    with ExitStack() as stack, clock.running():
        for owner, attribute, name in LOADING_PARTS:
            clock.patch(stack, owner, attribute, name)
        steps = list(islice(batches, count))
    torch.set_num_threads(threads)
    return steps, clock


def _patch_loading(clock: PartClock, stack: ExitStack) -> None:
    """Times the batches of the steps, and the sampler within."""
    step_batches, sample = Session.step_batches, TrainingSampler.__iter__

    def timed_batches(session: Session) -> Iterator[list[Batch]]:
        return clock.timed_items("loader", step_batches(session))

    def timed_sampler(sampler: TrainingSampler) -> Iterator:
        return clock.timed_items("loader: sampler", sample(sampler))

    stack.enter_context(patch.object(Session, "step_batches", timed_batches))
    stack.enter_context(patch.object(TrainingSampler, "__iter__", timed_sampler))


def _patch_session(clock: PartClock, stack: ExitStack, session: Session) -> None:
    """Times the parts of the model, the objectives and the optimizer of a session."""
    model = session.model
    clock.patch(stack, model.normalise, "forward", f"{STEP}normalisation")
    clock.patch(stack, model.subsampling, "forward", f"{STEP}front end")
    for name in {"forward", "forward_with_intermediate"} & set(dir(model.encoder)):
        clock.patch(stack, model.encoder, name, f"{STEP}encoder")
    clock.patch(stack, model, "_log_probs", f"{STEP}output layer")
    for kind in objectives_of(session):
        clock.patch(stack, kind, "__call__", f"{STEP}loss")
    for name in ("zero_grad", "step"):
        clock.patch(stack, session.optimizer, name, f"{STEP}optimiser")


def objectives_of(session: Session) -> set[type]:
    """Returns the classes of the objectives of a session."""
    return {type(session.objective), type(session.objective.intermediate_objective)}
