"""Training: from a configuration to an experiment folder. `train` is the loop; what it calls stands around it."""

import json
import math
import re
import shutil
from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path

import torch
from torch import nn

from asrtool.config import Config
from asrtool.data.loading import Batch, OrderedSampler, SpeechDataset, batches
from asrtool.device import describe, out_of_memory, pick_device
from asrtool.errors import UserError
from asrtool.interrupts import Interrupts
from asrtool.objectives.ctc import Ctc
from asrtool.objectives.objective import Objective
from asrtool.origin import origin
from asrtool.progress import say
from asrtool.ranks import ALONE, connected, from_all, from_first, own_log, this_rank, total
from asrtool.training.average import is_parted
from asrtool.training.log import Meter, TrainingLog, peak_memory_gb, plot_losses
from asrtool.training.precision import products, uses_bf16
from asrtool.training.schedule import learning_rate
from asrtool.training.session import Session, Start, start_session


def batch_loss(
    model: nn.Module, batch: Batch, device: torch.device, precision: str, objective: Objective
) -> torch.Tensor:
    """The loss of each utterance, (N,) nats; 0 for one that has no units, or more than its frames can spell."""
    features, lens = batch.features.to(device, non_blocking=True), batch.feature_lens.to(device)
    share = objective.intermediate if model.training else 0.0
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
            if not out_of_memory(error) or len(batch.ids) == 1 or last and session.strategy.sharing.size > 1:
                raise
        loss = None  # frees its graph before the next attempt
        say(f"out of memory with {len(batch.ids)} utterances of {batch.seconds:.0f} s: halved")
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
    rate = learning_rate(config, session.progress.step + 1, session.ranks.size) * watch.rate(config.guards)
    for group in session.optimizer.param_groups:
        group["lr"] = rate
    (units,) = strategy.total(sum(int(batch.target_lens.sum()) for batch in step))
    losses = collect_gradients(session, step, strategy.sharing.size / units)  # the strategy takes the mean over ranks
    norm = nn.utils.clip_grad_norm_(session.model.parameters(), config.training.clip)
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
            short = losses[name] == 0 and session.model.out_length(frames) < session.objective.frames_needed(
                units[:count]
            )
            names += [name] if count == 0 or short else []
    if names:
        say(f"not used: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}: no units, or too many for its length")


def leave_out(session: Session, losses: dict[str, float], problem: str) -> None:
    """Write down a bad step, each rank its own batches: `bad_steps.jsonl`, of other ranks `bad_steps.N.jsonl`."""
    number, infinite = session.progress.step + 1, [name for name, loss in losses.items() if not math.isfinite(loss)]
    row = {"step": number, "problem": problem, "not_finite": infinite, "losses": losses}
    file = session.experiment / ("bad_steps.jsonl" if session.ranks.first else f"bad_steps.{session.ranks.rank}.jsonl")
    with open(file, "a", encoding="utf-8") as out:
        out.write(json.dumps(row) + "\n")
    named = ", ".join((infinite or list(losses))[:5])
    say(f"step {number} left out: {problem}; its {len(losses)} cuts are in {file.name} ({named} ...)")


@torch.no_grad()
def validate(session: Session) -> float:
    """Dev loss in nats per unit, over all dev cuts that can be reached; the ranks share them out."""
    config, model = session.config, session.model
    ranks = session.ranks if session.strategy.whole else ALONE
    sampler = OrderedSampler(config.data.dev, config.data.batch_seconds, session.dropped, ranks)
    dataset = SpeechDataset(config, session.tokenizer, training=False)
    model.eval()
    loss, units, precision = 0.0, 0, config.training.precision
    for batch in islice(batches(dataset, sampler, config.data.workers), session.dev_batches):
        with products(precision, session.device):
            loss += batch_loss(model, batch, session.device, precision, session.objective).sum().item()
        units += int(batch.target_lens.sum())
    model.train()
    loss, units = total(ranks, loss, units)
    return loss / units


def train(
    config: Config,
    experiment: Path,
    resume: bool = False,
    device: str = "auto",
    start: Start = Start(),  # noqa: B008
    warmup_hours: float | None = None,
    dev_batches: int | None = None,
) -> None:
    """Train until `max_steps`, until patience runs out, or until `warmup_hours` of audio have been consumed.

    `dev_batches`: validate on so many, not on all.

    `resume` continues from the last checkpoint, if any, else `start` says what to begin from. Under torchrun all ranks
    call this. Ctrl-C writes a checkpoint first. The rerun with `resume` gives the same weights as an uninterrupted run.
    """
    ranks = this_rank()
    place = pick_device(device, ranks.local_rank)
    if warmup_hours and ranks.local_size != ranks.size:
        raise UserError("a warmup runs on one machine; start torchrun there alone, and the main phase on all")
    with own_log(ranks, experiment / "logs"), connected(ranks, place, config.parallel.timeout):
        resume = resume or any(from_all(ranks, ranks.restarted))  # each machine's torchrun counts for itself
        session = start_session(config, experiment, resume, device, ranks, start)
        session.warmup_hours, session.dev_batches = warmup_hours, dev_batches
        with TrainingLog(experiment, session.progress.step, config.training.max_steps, ranks.first) as log:
            begin(session, log)
            with Interrupts() as interrupts:
                run(session, log, interrupts)
            finish(session, log)
        if warmup_hours and ranks.first:
            say(f"warmed up: begin the main phase with --init-from {session.checkpoints.name_last('warmup.pt')}")


def begin(session: Session, log: TrainingLog) -> None:
    """Write down what runs, and on what."""
    if session.ranks.first:
        made = origin() | {"device": describe(session.device), "ranks": session.ranks.size}
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
            say(f"wrote {session.save()}; continue with --resume")
            raise KeyboardInterrupt


def report(session: Session, log: TrainingLog, meter: Meter) -> None:
    """One line on training."""
    progress, training = session.progress, session.config.training
    values = meter.take(session.ranks.size, training.max_steps - progress.step)
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
    best = min(progress.dev_losses.values(), default=math.inf)
    progress.dev_losses[progress.step] = loss
    log.event("dev", progress.step, f"step {progress.step}: dev loss {loss:.4f}, best {min(best, loss):.4f}", loss=loss)
    session.save()


def go_back(session: Session, log: TrainingLog) -> None:
    """To the last checkpoint, with a smaller rate, and on with the data that comes next; or stop."""
    config, progress, own = session.config, session.progress, session.own
    watch, last = own.watch, from_first(session.ranks, session.checkpoints.last())
    said = f"{config.guards.patience} bad steps in a row up to step {progress.step}, {watch.bad} in all"
    if last is None or watch.rollbacks >= config.guards.rollbacks:
        why = f"after going back {watch.rollbacks} times" if last else "with no checkpoint to go back to"
        hint = f"lower training.lr, or look at the cuts in {session.experiment}/bad_steps.jsonl"
        log.event("stopped", progress.step, None, bad_steps=watch.bad, rollbacks=watch.rollbacks)
        raise UserError(f"stopped {why}: {said}; {hint}")
    step, position, seconds = progress.step, progress.position, progress.seconds
    session.resume(last)
    progress.position, progress.seconds, session.own = position, seconds, own
    watch.rollbacks, watch.in_a_row = watch.rollbacks + 1, 0
    line = f"{said}: back to step {progress.step}, at {watch.rate(config.guards):g} times the rate, with the next data"
    log.event("rollback", step, line, to=progress.step)


def finish(session: Session, log: TrainingLog) -> None:
    """Average weights, validate the average, draw the curves, and say what it took."""
    progress, training, experiment = session.progress, session.config.training, session.experiment
    if progress.step not in progress.dev_losses:  # resumed after an interrupt, with nothing left to do
        validate_and_save(session, log)
    steps = session.average()
    of = "all steps" if training.average == "ema" else f"the checkpoints of steps {', '.join(map(str, steps))}"
    loss = validate(session)
    line = f"finished at step {progress.step}; averaged {of}: dev loss {loss:.4f}; {session.cost:.2f} device hours"
    cost = {"device_hours": session.cost, "hours": progress.seconds / 3600}
    cost |= {"peak_memory_gb": max(from_all(session.ranks, peak_memory_gb()))}
    log.event("finished", progress.step, line, averaged=steps, loss=loss, **cost)
    if session.ranks.first:
        plot_losses(experiment / "log.jsonl", experiment / "loss.png")
        say(f"curves in {experiment / 'loss.png'}")


def dry_run(config: Config, experiment: Path, device: str = "auto", start: Start = Start()) -> None:  # noqa: B008
    """Two steps, a validation of two batches, a checkpoint that is read back; the folder is removed again."""
    changes = {"max_steps": 2, "validate_every": 2, "log_every": 1, "warmup_steps": 1}
    short = config.model_copy(update={"training": config.training.model_copy(update=changes)})
    folder = experiment.with_name(experiment.name + ".dry_run")
    try:
        train(short, folder, resume=False, device=device, start=start, dev_batches=2)
        say("dry run: all is well")
    finally:
        if this_rank().first:
            shutil.rmtree(folder, ignore_errors=True)
