"""Training: from a configuration to an experiment folder. This file has `train` and its loop; the parts are:

start.py       everything up to the first step         recovery.py    bad steps: leave out, roll back, stop
session.py     the state from step to step             validation.py  the dev loss
step.py        one step: loss, gradients, update       resume.py      checkpoints: save, resume, initialise
reports.py     log lines                               log.py         log.jsonl, trackers
"""

import logging
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

from asrtool import __version__
from asrtool.config import Config
from asrtool.device import use_device
from asrtool.distributed import gather_from_all, on_first_rank, pin_local_ranks, process_group, rank_log, this_rank
from asrtool.errors import UserError
from asrtool.files import sweep_temporary, temporary_path
from asrtool.interrupts import Interrupts
from asrtool.locks import write_lock
from asrtool.provenance import CHECKOUT, git_state
from asrtool.training.checkpoint_folder import rank_by_loss
from asrtool.training.experiment_folder import check_experiment, holds_training, require_experiment_folder
from asrtool.training.log import Meter, TrainingLog, peak_memory_gb
from asrtool.training.loss_plot import plot_losses
from asrtool.training.recovery import require_good_steps, roll_back
from asrtool.training.reports import describe_dev_losses, losses_of_several, report_progress, report_start
from asrtool.training.resume import InitialWeights, save_session, write_averaged_weights
from asrtool.training.session import Session
from asrtool.training.start import start_session
from asrtool.training.step import training_step
from asrtool.training.validation import validate

logger = logging.getLogger(__name__)


def train(
    config: Config,
    experiment: Path,
    resume: bool = False,
    device: str = "auto",
    initial: InitialWeights | None = None,
    warmup_hours: float | None = None,
) -> None:
    """Trains until `max_steps`, until patience is over, or until `warmup_hours` of audio have been consumed.

    `warmup_hours` is for the warmup phase, in which one machine trains before the main phase on all machines
    (docs/parallel.md); it has nothing to do with the learning rate's training.warmup_steps.

    `resume` continues from the last checkpoint, if there is one; else training starts from `initial`, or from new
    weights. Under torchrun all ranks call this. Ctrl-C writes a checkpoint first; a run with `resume` then leads to the
    same weights as an uninterrupted one.
    """
    ranks = this_rank()
    if warmup_hours and ranks.local_world_size != ranks.world_size:
        raise UserError("a warmup runs on one machine; start torchrun there alone, and the main phase on all")
    require_experiment_folder(experiment)  # before any rank writes its log into it
    torch_device = use_device(device, ranks.local_rank)
    with (
        rank_log(ranks, experiment / "logs"),
        process_group(ranks, torch_device, config.parallel.timeout),
        ExitStack() as stack,
    ):
        pin_local_ranks(ranks, torch_device)
        on_first_rank(ranks, lambda: _lock_folder(experiment, stack))
        resume = resume or any(gather_from_all(ranks, ranks.restarted))  # only a machine's own torchrun knows it
        session = start_session(config, experiment, ranks, device, resume, initial)
        session.warmup_hours = warmup_hours
        _train(session)
        if warmup_hours and ranks.is_first:
            _finish_warmup(session, warmup_hours)


def _finish_warmup(session: Session, warmup_hours: float) -> None:
    """Links the last checkpoint as `warmup.pt`, and warns where the training ended before its hours of audio."""
    warm = session.checkpoints.link_last("warmup.pt")
    hours = session.progress.seconds / 3600
    if hours < warmup_hours:
        logger.warning(
            f"the training ended after {hours:.4g} of {warmup_hours:g} hours of warmup: raise training.max_steps or "
            "training.patience, and repeat the command with --resume"
        )
    logger.info(f"warmup finished: start the main phase with --init-from {warm}")


def _lock_folder(experiment: Path, stack: ExitStack) -> None:
    """Checks the folder, and keeps other trainings out of it until `stack` is closed."""
    require_experiment_folder(experiment)
    stack.enter_context(write_lock(experiment, "asrtool train"))


def _train(session: Session) -> None:
    """Trains from the first step to the averaged weights."""
    with _open_log(session) as log:
        report_start(session, log)
        with Interrupts() as interrupts:
            training_loop(session, log, interrupts)
        finish(session, log)


def _open_log(session: Session) -> TrainingLog:
    """Opens the log and, on the first rank, the trackers; a dry run is not recorded outside its folder."""
    config = session.config
    trackers = ("tensorboard",) if session.is_dry_run else config.training.trackers
    settings: dict = {}
    if session.ranks.is_first:
        settings = config.model_dump(mode="json") | {"asrtool": {"version": __version__, "git": git_state(CHECKOUT)}}
    return TrainingLog(
        session.experiment,
        session.progress.step,
        config.training.max_steps,
        session.ranks.is_first,
        trackers,
        settings,
    )


def training_loop(session: Session, log: TrainingLog, interrupts: Interrupts) -> None:
    """Takes all steps, and validates, saves, rolls back or stops between them."""
    log_every = session.config.training.log_every
    meter = Meter(session.rank_state.unreported)
    session.model.train()
    for batches in [] if session.done else session.step_batches():
        values = training_step(session, batches)
        meter.add(values | session.count_step(batches))
        log.advance()
        all_synchronised = session.synchronise()
        actions = session.all_ranks_agree(interrupts.requested) if all_synchronised else None
        if session.progress.step % log_every == 0:
            report_progress(session, log, meter)
        if actions is None:
            continue
        if actions.roll_back:
            roll_back(session, log)
        elif actions.validate or session.done:
            validate_and_save(session, log)
        elif actions.save:
            save_session(session)
        if session.done:
            return
        if actions.stop:
            if not session.is_dry_run:
                logger.info(f"wrote {save_session(session)}; continue with --resume")
            raise interrupts.kind


def validate_and_save(session: Session, log: TrainingLog) -> None:
    """Validates, and saves a checkpoint that has the new dev loss."""
    progress = session.progress
    losses = validate(session)
    loss = losses[session.config.data.selection_set]
    progress.dev_losses[progress.step] = loss
    best = progress.dev_losses[rank_by_loss(progress.dev_losses)[0]]
    line = f"step {progress.step}: dev loss {loss:.4f}, best {best:.4f}{describe_dev_losses(losses)}"
    log.event("dev", progress.step, line, loss=loss, **losses_of_several(losses))
    save_session(session)


def finish(session: Session, log: TrainingLog) -> None:
    """Averages the weights, validates them, draws the loss curves, and logs the cost of the training."""
    require_good_steps(session)
    progress = session.progress
    if progress.step not in progress.dev_losses:  # resumed with no steps left, after an interrupt
        validate_and_save(session, log)
    steps = write_averaged_weights(session)  # session.model has the averaged weights now
    is_ema = session.config.training.average == "ema"
    averaged = "all steps" if is_ema else f"the checkpoints of steps {', '.join(map(str, steps))}"
    losses = validate(session)
    loss = losses[session.config.data.selection_set]
    hours = session.clock.device_hours
    log.event(
        "finished",
        progress.step,
        f"finished at step {progress.step}; averaged {averaged}: dev loss {loss:.4f}{describe_dev_losses(losses)}; "
        f"{hours:.2f} device hours",
        averaged=steps,
        loss=loss,
        **losses_of_several(losses),
        device_hours=hours,
        hours=progress.seconds / 3600,  # of audio
        peak_memory_gb=max(gather_from_all(session.ranks, peak_memory_gb())),
    )
    if session.ranks.is_first and not session.is_dry_run:
        picture = session.experiment / "loss.png"
        plot_losses(session.experiment / "log.jsonl", picture)
        logger.info(f"loss curves in {picture}")


def dry_run(
    config: Config,
    experiment: Path,
    device: str = "auto",
    initial: InitialWeights | None = None,
    resume: bool = False,
) -> None:
    """Takes two steps, validates two batches, and saves and reads a checkpoint, in a folder that is removed at the end.

    The folder lies next to the experiment, where all machines see it. The experiment is checked as `train` checks it,
    with `resume` or without, and does not change; the steps are the first ones of a training, also with `resume`.
    """
    ranks = this_rank()
    torch_device = use_device(device, ranks.local_rank)
    with (
        tempfile.TemporaryDirectory() as logs,
        rank_log(ranks, Path(logs)),
        process_group(ranks, torch_device, config.parallel.timeout),
        ExitStack() as stack,
    ):
        on_first_rank(ranks, lambda: check_experiment(config, experiment, resume))
        if on_first_rank(ranks, lambda: holds_training(experiment)):
            initial = None  # as in a training that is resumed
        folder = Path(on_first_rank(ranks, lambda: str(_temporary_folder(experiment, stack))))
        session = start_session(config, folder, ranks, device, initial=initial)
        session.config = _short_config(config, session.progress.step)
        session.max_dev_batches = 2
        session.is_dry_run = True
        _train(session)
        logger.info("dry run: all is well")


def _short_config(config: Config, first_step: int) -> Config:
    """Returns the configuration of a dry run, which takes two steps after `first_step`."""
    last_step = first_step + 2
    changes = {"max_steps": last_step, "validate_every": last_step, "log_every": 1, "warmup_steps": 1}
    return config.model_copy(update={"training": config.training.model_copy(update=changes)})


def _temporary_folder(experiment: Path, stack: ExitStack) -> Path:
    """A new folder next to the experiment, removed when `stack` is closed; one of a killed process is removed now."""
    require_experiment_folder(experiment)
    parent = next(folder for folder in experiment.absolute().parents if folder.is_dir())
    sweep_temporary(parent)
    folder = temporary_path(parent / experiment.name)
    folder.mkdir()
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder
