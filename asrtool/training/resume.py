"""A training's state in its checkpoints: saving, resuming, averaging, and starting from another training's weights."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from asrtool.checkpoint import (
    DAMAGED_HINT,
    checkpoint_metadata,
    count_earlier_trainings,
    load_checkpoint,
    model_changes,
    require_matching_weights,
    require_same_units,
    require_sampling_rate,
)
from asrtool.distributed import gather_from_all, on_first_rank
from asrtool.errors import UserError
from asrtool.models.acoustic import make_output_layer
from asrtool.tensor_files import DAMAGE, damaged_file
from asrtool.text.outputs import outputs_of
from asrtool.training import saved_state
from asrtool.training.average import EmaWeights
from asrtool.training.clock import TrainingClock
from asrtool.training.session import Session
from asrtool.training.state import RankState, TrainingProgress

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class InitialWeights:
    """The checkpoint of another training to start from, when there is nothing to resume."""

    checkpoint: Path
    with_optimizer: bool = False  # also the moments of its optimizer
    with_schedule: bool = False  # also its number of steps, from which the learning-rate schedule continues
    new_output: bool = False  # all weights but the output layer, which is created for the units of this training


def session_state(session: Session) -> dict[str, Any]:
    """Returns the state for a checkpoint. Called on all ranks; only the first rank's result is complete."""
    rank_state = session.rank_state.to_dict() | {"random": saved_state.random_states()}
    rank_states = gather_from_all(session.ranks, rank_state)
    return {
        **session.strategy.state_dicts(session.model, session.optimizer),
        "ema": session.ema.state_dict() if session.ema else None,
        "progress": session.progress.to_dict(),
        "ranks": rank_states,
        "device_hours": session.clock.device_hours,
        **_metadata(session),
    }


def _metadata(session: Session) -> dict[str, Any]:
    """The entries that all checkpoints of a training have, the averaged weights, too."""
    return checkpoint_metadata(session.config, session.tokenizer.symbols, session.progress.earlier_trainings)


def save_session(session: Session) -> Path:
    """Writes the checkpoint of this step on the first rank, while the others wait; returns its path.

    Where a finished training continues, this removes the final weights of its earlier end, which all commands would
    take for the weights of this training.
    """
    state = session_state(session)
    progress = session.progress
    session.clock.note_save()
    checkpoints = session.checkpoints

    def write() -> str:
        path = checkpoints.write(progress.step, state, progress.dev_losses)
        _remove_final_weights(session)
        return str(path)

    return Path(on_first_rank(session.ranks, write))


def _remove_final_weights(session: Session) -> None:
    """Removes `averaged.pt` and, in a warmup phase, `warmup.pt`."""
    folder = session.checkpoints.folder
    for name in ["averaged.pt"] if session.warmup_hours is None else ["averaged.pt", "warmup.pt"]:
        if (folder / name).is_file():
            (folder / name).unlink()
            logger.info(f"removed {name} of the earlier end of this training, which continues")


def restore_session(session: Session, path: Path) -> None:
    """Restores weights, optimizer, position in the data and random states from a checkpoint of this training.

    Everything in it is checked first. Raises DamagedFileError when the checkpoint is not complete.
    """
    state = load_checkpoint(path, session.device)
    hint = "put back the tokenizer.json it was trained with"
    require_same_units(state, session.tokenizer.symbols, path, hint)
    require_matching_weights(session.model, state, path)
    progress, rank_states = _checked_state(session, state, path)
    session.strategy.load_state_dicts(session.model, session.optimizer, state)
    if session.ema:
        session.ema.load_state_dict(state["ema"])
    session.progress = progress
    session.last_sync_step = progress.step
    ranks = session.ranks
    session.clock = TrainingClock(ranks.world_size, state["device_hours"])
    if len(rank_states) == ranks.world_size:
        saved_state.restore_random_states(state["ranks"][ranks.rank]["random"])
        session.rank_state = rank_states[ranks.rank]
    else:
        logger.warning(
            f"{ranks.world_size} ranks continue where {len(rank_states)} stopped: the same data in the same order, "
            "other dropout"
        )
        session.rank_state = RankState(guard=rank_states[0].guard)


def _checked_state(session: Session, state: dict[str, Any], path: Path) -> tuple[TrainingProgress, list[RankState]]:
    """Returns the progress and the states of the ranks in a checkpoint.

    Raises DamagedFileError unless all of the checkpoint can be restored.
    """
    try:
        saved_state.check_optimizer(session.model, session.optimizer, state["optimizer"])
        saved_state.check_ema(session.ema, state["ema"])
        saved_state.check_block_filter(session.model, state.get("bmuf"))
        saved_state.check_hours(state["device_hours"])
        rank_states = []
        for saved in state["ranks"]:
            saved_state.check_random_states(saved["random"])
            rank_states.append(RankState.from_dict({key: saved[key] for key in saved if key != "random"}))
        if not rank_states:
            raise ValueError("it has no ranks")
        progress = TrainingProgress.from_dict(state["progress"])
        if len(progress.position.corpora) not in (0, session.num_mixed):
            raise ValueError("its position is of other corpora")
        return progress, rank_states
    except DAMAGE as error:
        raise damaged_file(path, "the state of a training that can be resumed", DAMAGED_HINT, error) from error


def initialise_session(session: Session, initial: InitialWeights) -> str:
    """Starts from another training's checkpoint: its weights, and what else `initial` names.

    Returns the kind of feature normalisation of that training, of which the weights have the statistics.
    """
    path = initial.checkpoint
    state = load_checkpoint(path, session.device)
    require_sampling_rate(state, session.config.features.sampling_rate, path)
    if initial.new_output:
        state["model"] |= _new_output_layer(session)
    else:
        hint = "--new-output keeps its other weights, and creates a new output layer for these"
        require_same_units(state, session.tokenizer.symbols, path, hint)
        _require_same_states(state, session.config.objective.topology, path, hint)
    require_matching_weights(session.model, state, path)
    session.strategy.load_state_dicts(session.model, session.optimizer, _wanted_state(session, initial, state))
    if session.ema:
        session.ema = EmaWeights(session.model, session.ema.decay)
    session.progress.initialised_from = str(path)
    session.progress.earlier_trainings = 1 + count_earlier_trainings(state, path)
    step = session.progress.step
    session.last_sync_step = step
    weights = "its weights with a new output layer" if initial.new_output else "its weights"
    moments = "the moments of its optimizer" if initial.with_optimizer else "a new optimizer"
    schedule = f"its schedule from step {step} on" if initial.with_schedule else "the schedule from its start"
    logger.info(f"initialised from {path}: {weights}, {moments}, {schedule}")
    if changes := model_changes(state, session.config):
        logger.info(f"its model was another one: {'; '.join(changes)}")
    model = state["config"].get("model")
    kind = session.config.model.normalise
    return model.get("normalise", kind) if isinstance(model, dict) else kind


def _require_same_states(state: dict[str, Any], topology: str, path: Path, hint: str) -> None:
    """Raises UserError if only one of a checkpoint and this training has two outputs for each unit."""
    objective = state["config"].get("objective")
    trained = objective.get("topology", "ctc") if isinstance(objective, dict) else "ctc"
    if (trained == "hmm") != (topology == "hmm"):
        raise UserError(
            f"{path} has the outputs of topology {trained!r:.50}, and objective.topology is {topology}; {hint}"
        )


def _wanted_state(session: Session, initial: InitialWeights, state: dict[str, Any]) -> dict[str, Any]:
    """The entries of a checkpoint for model and optimizer; the session's step becomes the checkpoint's, if wanted."""
    if not (initial.with_optimizer or initial.with_schedule):
        return {"model": state["model"]}
    path = initial.checkpoint
    if "optimizer" not in state:
        raise UserError(f"{path} has only weights; leave --init-optimizer and --init-schedule out")
    if initial.with_optimizer:
        _require_same_optimizer(state, session.config.training.optimizer, path)
    try:
        if initial.with_optimizer:
            saved_state.check_optimizer(session.model, session.optimizer, state["optimizer"])
        saved_step = TrainingProgress.from_dict(state["progress"]).step
    except DAMAGE as error:
        raise damaged_file(path, "the state of a training", DAMAGED_HINT, error) from error
    if initial.with_schedule:
        max_steps = session.config.training.max_steps
        if saved_step >= max_steps:
            raise UserError(
                f"{path} is of step {saved_step}, and training.max_steps={max_steps} leaves no step to take; raise it, "
                "or leave --init-schedule out"
            )
        session.progress.step = saved_step
    if initial.with_optimizer:
        return {"model": state["model"], "optimizer": _with_own_options(session.optimizer, state["optimizer"])}
    return {"model": state["model"]}


def _require_same_optimizer(state: dict[str, Any], optimizer: str, path: Path) -> None:
    """Raises UserError if the moments of a checkpoint are of another optimizer than training.optimizer."""
    training = state["config"].get("training")
    trained = training.get("optimizer", "adamw") if isinstance(training, dict) else "adamw"
    if trained != optimizer:
        hint = "leave --init-optimizer out, or give both trainings the same optimizer"
        raise UserError(f"{path} has the moments of {trained!r:.50}, and training.optimizer is {optimizer}; {hint}")


def _with_own_options(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
    """Returns a saved optimizer's moments with the options of `optimizer`, such as its weight decay and betas."""
    groups = zip(optimizer.param_groups, saved["param_groups"], strict=True)
    return {"state": saved["state"], "param_groups": [own | {"params": old["params"]} for own, old in groups]}


def _new_output_layer(session: Session) -> dict[str, torch.Tensor]:
    """The weights of a new output layer by their names in the model, drawn from the seed: the same on all ranks."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(session.config.seed)
        topology = session.config.objective.topology
        outputs = outputs_of(session.config, session.tokenizer)
        layer = make_output_layer(session.config.model.dim, outputs, has_blank=topology != "hmm")
    return {f"output.{name}": weight.to(session.device) for name, weight in layer.state_dict().items()}


def write_averaged_weights(session: Session) -> list[int]:
    """Writes `averaged.pt` and loads its weights; returns the steps that they are the mean of, [] for all steps."""
    training = session.config.training
    checkpoints = session.checkpoints
    metadata = _metadata(session)
    steps: list[int] = []
    if training.average == "ema":
        assert session.ema is not None  # config.py refuses average=ema without ema_decay
        session.ema.copy_to(session.model)
        weights = session.strategy.whole_weights(session.model)
        on_first_rank(session.ranks, lambda: checkpoints.write_averaged(weights, [], metadata))
    else:
        losses = session.progress.dev_losses
        steps = on_first_rank(session.ranks, lambda: checkpoints.average(training.average, losses, metadata))
    averaged = load_checkpoint(checkpoints.averaged, session.device)["model"]
    session.strategy.load_state_dicts(session.model, session.optimizer, {"model": averaged})
    return steps
