"""Recovery from bad steps: leaving them out, rolling back to the last checkpoint, and stopping with an explanation."""

import logging
import math
from collections import Counter

from asrtool.distributed import broadcast_from_first, sum_over_ranks
from asrtool.errors import UserError
from asrtool.files import json_line
from asrtool.readers import read_jsonl
from asrtool.training.log import TrainingLog
from asrtool.training.reports import list_cuts
from asrtool.training.resume import restore_session
from asrtool.training.session import Session

logger = logging.getLogger(__name__)


def leave_out_step(session: Session, losses: dict[str, float], problem: str) -> None:
    """Writes a bad step, each rank its own cuts, to `bad_steps.jsonl`, on other ranks `bad_steps.N.jsonl`."""
    step = session.progress.step + 1
    not_finite = [name for name, loss in losses.items() if not math.isfinite(loss)]
    row = {"step": step, "problem": problem, "not_finite": not_finite, "losses": losses}
    name = "bad_steps.jsonl" if session.ranks.is_first else f"bad_steps.{session.ranks.rank}.jsonl"
    with open(session.experiment / name, "a", encoding="utf-8") as out:
        out.write(json_line(row))
    named = list_cuts(not_finite or list(losses))
    logger.warning(f"step {step} left out: {problem}; its {len(losses)} cuts are in {name} ({named})")


def roll_back(session: Session, log: TrainingLog) -> None:
    """Restores the last checkpoint, lowers the learning rate and continues with the data that comes next.

    Raises UserError without a checkpoint, and after guards.max_rollbacks.
    """
    guards = session.config.guards
    rank_state = session.rank_state
    guard = rank_state.guard
    step = session.progress.step
    last = broadcast_from_first(session.ranks, session.checkpoints.last())
    if guard.bad_in_a_row >= guards.max_bad_steps:
        reason = f"{guard.bad_in_a_row} bad steps in a row up to step {step}, {guard.bad_steps} in total"
    else:
        reason = f"weights that are not finite after step {step}"
    if last is None or guard.rollbacks >= guards.max_rollbacks:
        why = f"after {guard.rollbacks} rollbacks" if last else "with no checkpoint to roll back to"
        log.event("stopped", step, None, bad_steps=guard.bad_steps, rollbacks=guard.rollbacks)
        raise UserError(f"stopped {why}: {reason}; lower training.lr, or look at {describe_worst_cuts(session)}")
    position = session.progress.position
    seconds = session.progress.seconds
    clock = session.clock
    restore_session(session, last)
    session.progress.position = position
    session.progress.seconds = seconds
    session.clock = clock
    session.rank_state = rank_state
    guard.rollbacks += 1
    guard.bad_in_a_row = 0
    line = (
        f"{reason}: rolled back to step {session.progress.step}, at {guard.lr_factor(guards):g} times the learning "
        "rate, with the next data"
    )
    log.event("rollback", step, line, to=session.progress.step)


def describe_worst_cuts(session: Session) -> str:
    """Returns which cuts were most often in bad steps, those with losses that are not finite first, and their file."""
    file = session.experiment / "bad_steps.jsonl"
    counts: Counter[str] = Counter()
    for row in read_jsonl(file) if file.is_file() else ():
        counts.update(row["not_finite"] or dict.fromkeys(row["losses"], 1))
    named = list_cuts([name for name, _ in counts.most_common()])
    return f"the cuts in {file}" + (f", above all {named}" if named else "")


def require_good_steps(session: Session) -> None:
    """Raises UserError when steps were taken, and every one was bad: the model learned nothing."""
    guard = session.rank_state.guard
    num_good, num_bad = sum_over_ranks(session.ranks, guard.good_steps, guard.bad_steps)
    if num_bad and not num_good:
        reason = f"the model learned nothing: all {guard.bad_steps} steps were bad and left out"
        raise UserError(f"{reason}; lower training.lr, or look at {describe_worst_cuts(session)}")
