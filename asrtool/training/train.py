"""Training: from a configuration to an experiment folder. `train` is the loop; what it calls stands around it."""

import logging
import math
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path

import torch
from torch import nn

from asrtool.checkpoint import ranked
from asrtool.config import Config
from asrtool.data.batch import Batch
from asrtool.data.loading import SpeechDataset, load_batches
from asrtool.data.sampling import OrderedSampler
from asrtool.device import describe_device, is_out_of_memory, pick_device
from asrtool.distributed import (
    SINGLE_PROCESS,
    StoppedByFirstRank,
    broadcast_from_first,
    gather_from_all,
    on_first_rank,
    process_group,
    rank_log,
    sum_over_ranks,
    this_rank,
)
from asrtool.errors import DataError, UserError
from asrtool.files import json_line, sweep_temporary, temporary_path
from asrtool.interrupts import Interrupts
from asrtool.locks import write_lock
from asrtool.objectives.ctc import Ctc
from asrtool.objectives.objective import Objective
from asrtool.provenance import provenance
from asrtool.readers import read_jsonl
from asrtool.training.average import is_parted
from asrtool.training.log import Meter, TrainingLog, peak_memory_gb, plot_losses
from asrtool.training.precision import products, uses_bf16
from asrtool.training.schedule import learning_rate
from asrtool.training.session import Session, Start, require_experiment_folder, start_session

logger = logging.getLogger(__name__)


def batch_loss(
    model: nn.Module, batch: Batch, device: torch.device, precision: str, objective: Objective
) -> torch.Tensor:
    """The loss of each utterance, (N,) nats; 0 for one that has no units, or more than its frames can spell."""
    features, lens = batch.features.to(device, non_blocking=True), batch.feature_lens.to(device)
    share = objective.intermediate_ctc if model.training else 0.0
    with torch.autocast(device.type, torch.bfloat16, enabled=uses_bf16(precision, device)):
        log_probs, out_lens, *middle = model(features, lens, **({"middle": True} if share else {}))
    loss = objective(log_probs, out_lens, batch)
    return torch.lerp(loss, Ctc()(*middle, out_lens, batch), share) if share else loss


def collect_gradients(session: Session, step: list[Batch], scale: float) -> dict[str, float]:
    """Add up the gradients of `scale` times the losses of a step's batches; returns each cut's loss.

    A batch that memory has no room for is halved, and the step begun again.
    """
    session.optimizer.zero_grad(set_to_none=True)
    config, device, losses = session.config.training, session.device, []
    for number, batch in enumerate(step):
        last = number == len(step) - 1
        try:
            with session.strategy.collecting(last), products(config.precision, device):
                loss = batch_loss(session.module, batch, device, config.precision, session.objective)
                (loss.sum() * scale).backward()
            losses.append(loss.detach())
            continue
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or len(batch.ids) == 1 or last and session.strategy.sharing.world_size > 1:
                raise
        loss = None  # frees its graph before the next attempt
        logger.info(f"out of memory with {len(batch.ids)} utterances of {batch.seconds:.0f} s: halved")
        return collect_gradients(session, [*step[:number], *halves(batch), *step[number + 1 :]], scale)
    names = [name for batch in step for name in batch.ids]
    return dict(zip(names, torch.cat(losses).tolist(), strict=True))


def halves(batch: Batch) -> Iterator[Batch]:
    """A batch as two, of every other utterance each."""
    for start in (0, 1):
        of_each = {f.name: getattr(batch, f.name) for f in fields(batch) if f.name in BY_UTTERANCE}
        part = {name: values[start::2] for name, values in of_each.items() if values is not None}
        yield replace(batch, **part, seconds=batch.seconds / 2)


BY_UTTERANCE = {"ids", "texts", "features", "feature_lens", "targets", "target_lens", "labels"}


def training_step(session: Session, step: list[Batch]) -> dict[str, float]:
    """One update, if nothing is bad about it. Returns the step's values for the log.

    The loss is per target unit of all batches of all ranks that share gradients, so that neither its scale nor the
    update depends on how the units are spread over them.
    """
    config, strategy, watch = session.config, session.strategy, session.own.watch
    rate = learning_rate(config, session.progress.step + 1, session.ranks.world_size) * watch.rate(config.guards)
    for group in session.optimizer.param_groups:
        group["lr"] = rate
    (units,) = strategy.total(sum(int(batch.target_lens.sum()) for batch in step))
    losses = collect_gradients(
        session, step, strategy.sharing.world_size / units
    )  # the strategy takes the mean over ranks
    norm = nn.utils.clip_grad_norm_(session.model.parameters(), config.training.max_grad_norm)
    norm = float(norm.full_tensor() if is_parted(norm) else norm)
    loss = strategy.total(sum(losses.values()))[0] / units
    name_unusable(session, step, losses)
    if problem := watch.problem(config.guards, loss, norm):
        leave_out(session, losses, problem)
    else:
        session.optimizer.step()
        if session.mean:
            session.mean.update(session.model)
    return {"loss": loss, "gradient_norm": norm, "lr": rate}


def name_unusable(session: Session, step: list[Batch], losses: dict[str, float]) -> None:
    """Cuts that can have no loss; the look through the manifest before training leaves them out as far as it goes."""
    if all(loss > 0 for loss in losses.values()):
        return
    names = []
    for batch in step:
        rows = zip(batch.ids, batch.feature_lens.tolist(), batch.targets.tolist(), batch.target_lens, strict=True)
        for name, frames, units, count in rows:
            short = losses[name] == 0 and session.model.out_length(frames) < session.objective.min_frames(units[:count])
            names += [name] if count == 0 or short else []
    if names:
        logger.info(
            f"not used: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}: no units, or too many for its length"
        )


def leave_out(session: Session, losses: dict[str, float], problem: str) -> None:
    """Write down a bad step, each rank its own batches: `bad_steps.jsonl`, of other ranks `bad_steps.N.jsonl`."""
    number, infinite = session.progress.step + 1, [name for name, loss in losses.items() if not math.isfinite(loss)]
    row = {"step": number, "problem": problem, "not_finite": infinite, "losses": losses}
    file = session.experiment / (
        "bad_steps.jsonl" if session.ranks.is_first else f"bad_steps.{session.ranks.rank}.jsonl"
    )
    with open(file, "a", encoding="utf-8") as out:
        out.write(json_line(row))
    named = ", ".join((infinite or list(losses))[:5])
    logger.info(f"step {number} left out: {problem}; its {len(losses)} cuts are in {file.name} ({named} ...)")


@torch.no_grad()
def validate(session: Session) -> float:
    """Dev loss in nats per unit, over all dev cuts that can be reached; the ranks share them out.

    A cut whose loss is not finite is left out, and named. Raises DataError when none is left.
    """
    config, model = session.config, session.model
    ranks = session.ranks if session.strategy.whole else SINGLE_PROCESS
    sampler = OrderedSampler(config.data.dev, config.data.batch_seconds, session.dropped.dev, ranks)
    dataset = SpeechDataset(config, session.tokenizer, training=False)
    model.eval()
    loss, units, precision, broken = 0.0, 0, config.training.precision, []
    for batch in islice(load_batches(dataset, sampler, config.data.workers), session.dev_batches):
        if not batch.ids:  # all are shorter than a frame
            continue
        with products(precision, session.device):
            losses = batch_loss(model, batch, session.device, precision, session.objective)
        summed, count, names = _finite_sum(losses, batch)
        loss, units, broken = loss + summed, units + count, broken + names
    model.train()
    loss, units, lost = sum_over_ranks(ranks, loss, units, len(broken))
    if lost or not units:
        name_broken(session, gather_from_all(ranks, broken), none_left=not units)
    return loss / units


def _finite_sum(losses: torch.Tensor, batch: Batch) -> tuple[float, int, list[str]]:
    """The sum of a batch's losses, its target units, and the cuts whose losses are not finite, which do not count."""
    summed = losses.sum().item()
    if math.isfinite(summed):
        return summed, int(batch.target_lens.sum()), []
    finite = losses.isfinite().cpu()
    names = [name for name, is_finite in zip(batch.ids, finite.tolist(), strict=True) if not is_finite]
    return losses.double().cpu()[finite].sum().item(), int(batch.target_lens[finite].sum()), names


def name_broken(session: Session, broken: list[list[str]], none_left: bool) -> None:
    """Say which dev cuts have a loss that is not finite, by rank; DataError when there are no others."""
    names = [name for part in broken for name in part]
    where = f"at step {session.progress.step}, {len(names)} cuts of {session.config.data.dev}"
    of = f"{where} have a loss that is not finite"
    if not none_left:
        logger.info(
            f"{of}; they are left out of the dev loss: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
        )
    elif session.ranks.is_first:
        raise DataError(f"{of}, and no others are left; lower training.lr, or look at their audio", names)
    else:
        raise StoppedByFirstRank(of)


def train(
    config: Config,
    experiment: Path,
    resume: bool = False,
    device: str = "auto",
    start: Start = Start(),  # noqa: B008
    warmup_hours: float | None = None,
) -> None:
    """Train until `max_steps`, until patience runs out, or until `warmup_hours` of audio have been consumed.

    `resume` continues from the last checkpoint, if any, else `start` says what to begin from. Under torchrun all ranks
    call this. Ctrl-C writes a checkpoint first. The rerun with `resume` gives the same weights as an uninterrupted run.
    """
    ranks = this_rank()
    place = pick_device(device, ranks.local_rank)
    if warmup_hours and ranks.local_world_size != ranks.world_size:
        raise UserError("a warmup runs on one machine; start torchrun there alone, and the main phase on all")
    with (
        rank_log(ranks, experiment / "logs"),
        process_group(ranks, place, config.parallel.timeout),
        ExitStack() as held,
    ):
        on_first_rank(ranks, lambda: _claim(experiment, held))
        resume = resume or any(gather_from_all(ranks, ranks.restarted))  # each machine's torchrun counts for itself
        session = start_session(config, experiment, resume, device, ranks, start)
        session.warmup_hours = warmup_hours
        _train(session)
        if warmup_hours and ranks.is_first:
            logger.info(
                f"warmed up: begin the main phase with --init-from {session.checkpoints.name_last('warmup.pt')}"
            )


def _claim(experiment: Path, held: ExitStack) -> None:
    """Nobody else trains into the folder while `held` is open."""
    require_experiment_folder(experiment)
    held.enter_context(write_lock(experiment, "asrtool train"))


def _train(session: Session) -> None:
    """From the first step to the averaged weights."""
    max_steps = session.config.training.max_steps
    with TrainingLog(session.experiment, session.progress.step, max_steps, session.ranks.is_first) as log:
        begin(session, log)
        with Interrupts() as interrupts:
            run(session, log, interrupts)
        finish(session, log)


def begin(session: Session, log: TrainingLog) -> None:
    """Write down what runs, and on what."""
    if session.ranks.is_first:
        made = provenance() | {"device": describe_device(session.device), "ranks": session.ranks.world_size}
        log.event("start", session.progress.step, None, **made)


def run(session: Session, log: TrainingLog, interrupts: Interrupts) -> None:
    """The steps, and what is due between them."""
    training, progress, own = session.config.training, session.progress, session.own
    meter = Meter(own.recent)
    session.model.train()
    for step in [] if session.done else session.steps():
        values = training_step(session, step)
        meter.add(values | session.count(step))
        log.tick()
        due = session.agree(interrupts.requested) if session.meet() else None
        if progress.step % training.log_every == 0:
            report(session, log, meter)
        if due is None:
            continue
        if due.rollback:
            go_back(session, log)
        elif due.validation or session.done:
            validate_and_save(session, log)
        elif due.checkpoint:
            session.save()
        if session.done:
            return
        if due.stop:
            if not session.temporary:
                logger.info(f"wrote {session.save()}; continue with --resume")
            raise interrupts.kind


def report(session: Session, log: TrainingLog, meter: Meter) -> None:
    """One line on training."""
    progress, training = session.progress, session.config.training
    values = meter.take(session.ranks.world_size, training.max_steps - progress.step)
    values |= {"epoch": progress.position.epoch, "hours": progress.seconds / 3600, "bad_steps": session.own.watch.bad}
    of = f" of {session.warmup_hours:g}" if session.warmup_hours else ""
    line = (
        f"step {progress.step} epoch {values['epoch']}: loss {values['loss']:.4f}, lr {values['lr']:.2e}, "
        f"gradient {values['gradient_norm']:.2f}, {values['hours']:.2f}{of} h of audio, "
        f"{values['times_real_time']:.0f}x real time, padding {values['padding']:.1%}, "
        f"{values['peak_memory_gb']:.1f} GB, {values['hours_left']:.1f} h left"
    )
    log.event("train", progress.step, line, **values)
    if training.log_layers:
        log.event("layers", progress.step, None, **layer_norms(session.model))


def layer_norms(model: nn.Module) -> dict[str, float]:
    """The norm of the last, clipped, gradient of each block, the lowest first, and of what is around them."""
    squares: dict[str, float] = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            norm = parameter.grad.norm()
            found = re.match(r"encoder\.\w+\.(\d+)\.", name)
            layer = f"layer_{int(found[1]) + 1:03d}" if found else name.split(".")[0]
            squares[layer] = squares.get(layer, 0.0) + float(norm.full_tensor() if is_parted(norm) else norm) ** 2
    return {layer: math.sqrt(square) for layer, square in squares.items()}


def validate_and_save(session: Session, log: TrainingLog) -> None:
    """Dev loss, then the checkpoint that knows of it."""
    progress = session.progress
    loss = validate(session)
    progress.dev_losses[progress.step] = loss
    best = progress.dev_losses[ranked(progress.dev_losses)[0]]
    log.event("dev", progress.step, f"step {progress.step}: dev loss {loss:.4f}, best {best:.4f}", loss=loss)
    session.save()


def go_back(session: Session, log: TrainingLog) -> None:
    """To the last checkpoint, with a smaller rate, and on with the data that comes next; or stop."""
    config, progress, own = session.config, session.progress, session.own
    watch, last = own.watch, broadcast_from_first(session.ranks, session.checkpoints.last())
    many = watch.in_a_row >= config.guards.max_bad_steps
    said = f"{watch.in_a_row} bad steps in a row" if many else "weights that are not finite"
    said += f" up to step {progress.step}, {watch.bad} in all" if many else f" after step {progress.step}"
    if last is None or watch.rollbacks >= config.guards.max_rollbacks:
        why = f"after going back {watch.rollbacks} times" if last else "with no checkpoint to go back to"
        hint = f"lower training.lr, or look at {worst_cuts(session)}"
        log.event("stopped", progress.step, None, bad_steps=watch.bad, rollbacks=watch.rollbacks)
        raise UserError(f"stopped {why}: {said}; {hint}")
    step, position, seconds = progress.step, progress.position, progress.seconds
    session.resume(last)
    progress.position, progress.seconds, session.own = position, seconds, own
    watch.rollbacks, watch.in_a_row = watch.rollbacks + 1, 0
    line = f"{said}: back to step {progress.step}, at {watch.rate(config.guards):g} times the rate, with the next data"
    log.event("rollback", step, line, to=progress.step)


def worst_cuts(session: Session) -> str:
    """The cuts that were most often in bad steps, those with losses that are not finite first, and where all are."""
    file, counts = session.experiment / "bad_steps.jsonl", Counter()
    for row in read_jsonl(file) if file.is_file() else ():
        counts.update(row["not_finite"] or dict.fromkeys(row["losses"]))
    named = ", ".join(name for name, _ in counts.most_common(5))
    return f"the cuts in {file}" + (f", above all {named}" if named else "")


def require_good_steps(session: Session) -> None:
    """UserError when steps were taken, and every one was left out: nothing was learnt."""
    watch = session.own.watch
    seen, bad = sum_over_ranks(session.ranks, watch.seen, watch.bad)
    if bad and not seen:
        why = f"nothing was learnt: all {watch.bad} steps were bad and left out"
        raise UserError(f"{why}; lower training.lr, or look at {worst_cuts(session)}")


def finish(session: Session, log: TrainingLog) -> None:
    """Average weights, validate the average, draw the curves, and say what it took."""
    progress, training, experiment = session.progress, session.config.training, session.experiment
    require_good_steps(session)
    if progress.step not in progress.dev_losses:  # resumed after an interrupt, with nothing left to do
        validate_and_save(session, log)
    steps = session.average()
    of = "all steps" if training.average == "ema" else f"the checkpoints of steps {', '.join(map(str, steps))}"
    loss = validate(session)
    line = f"finished at step {progress.step}; averaged {of}: dev loss {loss:.4f}; {session.cost:.2f} device hours"
    cost = {"device_hours": session.cost, "hours": progress.seconds / 3600}
    cost |= {"peak_memory_gb": max(gather_from_all(session.ranks, peak_memory_gb()))}
    log.event("finished", progress.step, line, averaged=steps, loss=loss, **cost)
    if session.ranks.is_first and not session.temporary:
        plot_losses(experiment / "log.jsonl", experiment / "loss.png")
        logger.info(f"curves in {experiment / 'loss.png'}")


def dry_run(config: Config, experiment: Path, device: str = "auto", start: Start = Start()) -> None:  # noqa: B008
    """Two steps, a validation of two batches, a checkpoint that is read back, in a folder of its own that is removed.

    That folder lies beside the experiment, where all machines see it.
    """
    changes = {"max_steps": 2, "validate_every": 2, "log_every": 1, "warmup_steps": 1}
    short = config.model_copy(update={"training": config.training.model_copy(update=changes)})
    ranks = this_rank()
    place = pick_device(device, ranks.local_rank)
    with (
        tempfile.TemporaryDirectory() as logs,
        rank_log(ranks, Path(logs)),
        process_group(ranks, place, config.parallel.timeout),
        ExitStack() as held,
    ):
        folder = Path(on_first_rank(ranks, lambda: str(_temporary_folder(experiment, held))))
        session = start_session(short, folder, False, device, ranks, start)
        session.dev_batches, session.temporary = 2, True
        _train(session)
        logger.info("dry run: all is well")


def _temporary_folder(experiment: Path, held: ExitStack) -> Path:
    """A new folder beside the experiment, removed when `held` closes; one of a killed process is removed now."""
    require_experiment_folder(experiment)
    beside = next(folder for folder in experiment.absolute().parents if folder.is_dir())
    sweep_temporary(beside)
    folder = temporary_path(beside / experiment.name)
    folder.mkdir()
    held.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder
