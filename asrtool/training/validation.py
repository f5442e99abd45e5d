"""Validation: the loss over the dev sets."""

import logging
import math
from itertools import islice
from pathlib import Path

import torch

from asrtool.data.batch import Batch
from asrtool.data.loading import SpeechDataset, load_batches
from asrtool.data.sampling import OrderedSampler
from asrtool.distributed import SINGLE_PROCESS, StoppedByFirstRank, gather_from_all, sum_over_ranks
from asrtool.errors import DataError
from asrtool.training.reports import list_cuts
from asrtool.training.session import Session
from asrtool.training.step import batch_loss

logger = logging.getLogger(__name__)


def validate(session: Session) -> dict[str, float]:
    """Returns the loss of each dev set in nats per unit over all its cuts, which the ranks share.

    A cut whose loss is not finite is left out, and logged. Raises DataError when no other cuts of a set are left.
    """
    return {name: _validate_set(session, name, path) for name, path in session.config.data.dev_sets.items()}


@torch.no_grad()
def _validate_set(session: Session, name: str, path: Path) -> float:
    config = session.config
    model = session.model
    ranks = session.ranks if session.strategy.has_whole_model else SINGLE_PROCESS
    dropped = session.dropped.dev.get(name, frozenset())
    sampler = OrderedSampler(path, config.data.batch_seconds, dropped, ranks)
    dataset = SpeechDataset(config, session.tokenizer, training=False)
    model.eval()
    loss = 0.0
    num_units = 0
    not_finite: list[str] = []
    batches = load_batches(dataset, sampler, config.data.workers, pin_memory=session.device.type == "cuda")
    for batch in islice(batches, session.max_dev_batches):
        if not batch.ids:  # all cuts are shorter than a frame
            continue
        losses = batch_loss(model, batch, session.device, config.training.precision, session.objective)
        batch_sum, batch_units, names = _finite_sum(losses, batch)
        loss += batch_sum
        num_units += batch_units
        not_finite += names
    model.train()
    total_loss, total_units, num_not_finite = sum_over_ranks(ranks, loss, num_units, len(not_finite))
    if num_not_finite or not total_units:
        names = [name for part in gather_from_all(ranks, not_finite) for name in part]
        _report_not_finite(session, path, names, none_left=not total_units)
    return total_loss / total_units


def _finite_sum(losses: torch.Tensor, batch: Batch) -> tuple[float, int, list[str]]:
    """The sum of a batch's finite losses, their target units, and the cuts whose losses are not finite."""
    summed = losses.sum().item()
    if math.isfinite(summed):
        return summed, int(batch.target_lens.sum()), []
    is_finite = losses.isfinite().cpu()
    not_finite = [name for name, finite in zip(batch.ids, is_finite.tolist(), strict=True) if not finite]
    return losses.double().cpu()[is_finite].sum().item(), int(batch.target_lens[is_finite].sum()), not_finite


def _report_not_finite(session: Session, path: Path, names: list[str], none_left: bool) -> None:
    """Logs dev cuts whose loss is not finite; DataError when no other cuts are left."""
    where = f"at step {session.progress.step}, {len(names)} cuts of {path}"
    problem = f"{where} have a loss that is not finite"
    if not none_left:
        logger.warning(f"{problem}; they are left out of the dev loss: {list_cuts(names)}")
    elif session.ranks.is_first:
        raise DataError(f"{problem}, and no others are left; lower training.lr, or look at their audio", names)
    else:
        raise StoppedByFirstRank(problem)
