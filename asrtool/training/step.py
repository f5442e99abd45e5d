"""One training step: the gradients of its batches, and one update of the weights."""

import logging
from typing import Any, NamedTuple

import torch
from torch import nn

from asrtool.data.batch import Batch
from asrtool.device import is_out_of_memory, to_device
from asrtool.objectives.objective import Objective
from asrtool.precision import autocast
from asrtool.training.average import gathered
from asrtool.training.optimizer import set_learning_rate
from asrtool.training.recovery import leave_out_step
from asrtool.training.reports import list_cuts
from asrtool.training.session import Session, corpus_value

logger = logging.getLogger(__name__)


class CutLoss(NamedTuple):
    """The loss of a cut in a step, in nats. A cut may be in a step twice where corpora are mixed."""

    id: str
    corpus: int  # its number
    loss: float
    units: int


def training_step(session: Session, batches: list[Batch]) -> dict[str, float]:
    """Takes one step with the batches of this rank; returns its values for the log. A bad step changes no weights.

    The loss is divided by the target units of all batches of all ranks that average their gradients: neither its scale
    nor the update depends on how the units are distributed over them. A step without any units is left out, too.

    The host reads from the device once, the losses and the gradient norm together, which the guard needs before the
    update. Until then, and from then to the next step's read, the device always has work in its queue.
    """
    config = session.config
    strategy = session.strategy
    lr = session.next_learning_rate()
    set_learning_rate(session.optimizer, lr)
    num_units = strategy.sum_over_group(sum(sum(batch.target_lens.tolist()) for batch in batches))[0]
    divisor = max(num_units, 1)
    scale = strategy.gradient_group.world_size / divisor  # the strategy averages gradients over the group
    computed = list(batches)  # with halves instead of batches that are too large for the memory
    device_losses = accumulate_gradients(session, computed, scale)
    norm = nn.utils.clip_grad_norm_(session.model.parameters(), config.training.max_grad_norm)
    norm = gathered(norm)  # with fsdp the norm is a DTensor
    *values, gradient_norm = torch.cat([device_losses.double(), norm.double()[None]]).tolist()
    losses = _losses_of_cuts(computed, values)
    loss = strategy.sum_over_group(sum(cut.loss for cut in losses))[0] / divisor  # nats per unit
    losses_by_id = {cut.id: cut.loss for cut in losses}
    log_unusable_cuts(session, batches, losses_by_id)
    guard = session.rank_state.guard
    problem = guard.problem(config.guards, loss, gradient_norm) if num_units else "no cut has units"
    if problem:
        leave_out_step(session, losses_by_id, problem)
    else:
        session.optimizer.step()
        if session.ema:
            session.ema.update(session.model)
    return {"loss": loss, "gradient_norm": gradient_norm, "lr": lr, **_losses_of_corpora(session, losses)}


def _losses_of_corpora(session: Session, losses: list[CutLoss]) -> dict[str, float]:
    """Returns this rank's loss and units of each corpus, where several are mixed, under the names of `corpus_value`."""
    values: dict[str, float] = {}
    for number in range(session.num_mixed):
        of_corpus = [cut for cut in losses if cut.corpus == number]
        values[corpus_value("loss", number)] = float(sum(cut.loss for cut in of_corpus))
        values[corpus_value("units", number)] = float(sum(cut.units for cut in of_corpus))
    return values


def batch_loss(
    model: nn.Module, batch: Batch, device: torch.device, precision: str, objective: Objective
) -> torch.Tensor:
    """Returns the loss of each utterance, (N,) nats; 0 without units, or with more units than its frames allow."""
    features = to_device(batch.features, device)
    lens = to_device(batch.feature_lens, device)
    whole_model: Any = getattr(model, "module", model)  # DDP has the model as `module`
    out_lens = whole_model.out_length(batch.feature_lens)
    weight = objective.intermediate_ctc if model.training else 0.0
    if not weight:
        with autocast(precision, device):
            log_probs, _ = model(features, lens)
        return objective(log_probs, out_lens, batch)
    with autocast(precision, device):
        log_probs, _, intermediate = model(features, lens, with_intermediate=True)
    loss = objective(log_probs, out_lens, batch)
    return torch.lerp(loss, objective.intermediate_objective(intermediate, out_lens, batch), weight)


def accumulate_gradients(session: Session, batches: list[Batch], scale: float) -> torch.Tensor:
    """Adds up the gradients of `scale` times the losses of a step's batches; returns the losses of their cuts, (N,).

    Where the memory is too small for a batch, it is split into two halves and the step starts again: `batches` has the
    halves then, in the order of the losses.
    """
    session.optimizer.zero_grad(set_to_none=True)
    losses: list[torch.Tensor] = []
    for number, batch in enumerate(batches):
        loss = _add_gradients_or_none(session, batch, scale, is_last=number == len(batches) - 1)
        if loss is None:
            batches[number : number + 1] = _split(batch)
            return accumulate_gradients(session, batches, scale)
        losses.append(loss)
    return torch.cat(losses)


def _losses_of_cuts(batches: list[Batch], losses: list[float]) -> list[CutLoss]:
    """Returns each cut of the batches with its loss."""
    values = iter(losses)
    cut_losses = []
    for batch in batches:
        corpora = batch.corpora or [0] * len(batch.ids)
        for name, corpus, units in zip(batch.ids, corpora, batch.target_lens.tolist(), strict=True):
            cut_losses.append(CutLoss(name, corpus, next(values), units))
    return cut_losses


def _split(batch: Batch) -> list[Batch]:
    """Splits a batch that is too large for the memory into two halves, with a warning."""
    logger.warning(f"out of memory with {len(batch.ids)} utterances of {batch.seconds:.0f} s: split into two batches")
    return [batch.select(slice(0, None, 2)), batch.select(slice(1, None, 2))]


def _add_gradients_or_none(session: Session, batch: Batch, scale: float, is_last: bool) -> torch.Tensor | None:
    """As `_add_gradients`, but returns None where the memory is too small for the batch and it can be split.

    The error is raised if the batch has one utterance, and in the last batch with several ranks: the others wait for
    its gradients. The error, which holds the activations, is freed when this function returns.
    """
    other_ranks_wait = is_last and session.strategy.gradient_group.world_size > 1
    try:
        return _add_gradients(session, batch, scale, is_last)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or len(batch.ids) == 1 or other_ranks_wait:
            raise
        return None


def _add_gradients(session: Session, batch: Batch, scale: float, is_last: bool) -> torch.Tensor:
    """Runs the forward and backward pass of one batch; returns the losses, (N,) nats."""
    with session.strategy.accumulating(is_last):
        precision = session.config.training.precision
        loss = batch_loss(session.train_model, batch, session.device, precision, session.objective)
        (loss.sum() * scale).backward()
    return loss.detach()


def log_unusable_cuts(session: Session, batches: list[Batch], losses: dict[str, float]) -> None:
    """Logs cuts that cannot be used. The scan before training drops such cuts, but not in very long manifests."""
    if all(loss > 0 for loss in losses.values()):
        return
    unusable = [name for batch in batches for name in _unusable_cuts(session, batch, losses)]
    if unusable:
        logger.warning(f"not used: {list_cuts(unusable)}: no units, or too many for their length")


def _unusable_cuts(session: Session, batch: Batch, losses: dict[str, float]) -> list[str]:
    """The cuts of a batch without units, and those whose units need more output frames than there are."""
    unusable = []
    rows = zip(batch.ids, batch.feature_lens.tolist(), batch.targets.tolist(), batch.target_lens.tolist(), strict=True)
    for name, num_frames, units, num_units in rows:
        is_empty = num_units == 0
        min_frames = session.objective.min_frames(units[:num_units])
        is_short = losses[name] == 0 and session.model.out_length(num_frames) < min_frames
        if is_empty or is_short:
            unusable.append(name)
    return unusable
