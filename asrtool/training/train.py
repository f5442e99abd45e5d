"""Training: from a configuration to an experiment folder. `train` is the loop; what it calls stands around it."""

import math
import time
from pathlib import Path

import torch
from torch import nn

from asrtool.config import Config
from asrtool.data.loading import Batch, OrderedSampler, SpeechDataset, batches
from asrtool.errors import UserError
from asrtool.interrupts import Interrupts
from asrtool.models.acoustic import AcousticModel
from asrtool.objectives.ctc import ctc_loss
from asrtool.progress import say
from asrtool.text.tokenizer import Tokenizer
from asrtool.training.log import TrainingLog, plot_losses
from asrtool.training.precision import products
from asrtool.training.schedule import learning_rate
from asrtool.training.session import Progress, Session, start_session


def batch_loss(model: AcousticModel, batch: Batch, device: torch.device, precision: str) -> torch.Tensor:
    """CTC loss of each utterance, (N,) nats."""
    features, lens = batch.features.to(device, non_blocking=True), batch.feature_lens.to(device)
    with products(precision, device), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        log_probs, out_lens = model(features, lens)
    return ctc_loss(log_probs, out_lens, batch.targets.to(device), batch.target_lens.to(device))


def training_step(model, optimizer, batch: Batch, device: torch.device, config: Config, step: int) -> dict[str, float]:
    """One update. The loss is per target unit, so that its scale does not depend on the size of the batch."""
    rate = learning_rate(config.training, step)
    for group in optimizer.param_groups:
        group["lr"] = rate
    loss = batch_loss(model, batch, device, config.training.precision).sum() / batch.target_lens.sum().to(device)
    optimizer.zero_grad(set_to_none=True)
    with products(config.training.precision, device):
        loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), config.training.clip)
    if not torch.isfinite(norm):
        raise UserError(
            f"step {step}: loss {loss.item():.4g}, gradient norm {norm.item():.4g} over {', '.join(batch.ids[:5])}"
            " ...; lower training.lr, or look at these cuts"
        )
    optimizer.step()
    return {"loss": loss.item(), "gradient_norm": norm.item(), "lr": rate}


@torch.no_grad()
def validate(model: AcousticModel, config: Config, tokenizer: Tokenizer, dropped: frozenset[str], device) -> float:
    """Dev loss in nats per unit, over all dev cuts that can be reached."""
    model.eval()
    loss, units = 0.0, 0
    sampler = OrderedSampler(config.data.dev, config.data.batch_seconds, dropped)
    for batch in batches(SpeechDataset(config, tokenizer, training=False), sampler, config.data.workers):
        loss += batch_loss(model, batch, device, config.training.precision).sum().item()
        units += int(batch.target_lens.sum())
    model.train()
    return loss / units


class Meter:
    """Means over the steps since the last report, whose `values` may come from a checkpoint."""

    def __init__(self, values: list[dict[str, float]]) -> None:
        self._values = values
        self._start, self._seconds = time.monotonic(), 0.0

    def add(self, values: dict[str, float], seconds: float) -> None:
        """One step's values and the seconds of audio in it."""
        self._values.append(values)
        self._seconds += seconds

    def take(self) -> dict[str, float]:
        """The means, and audio seconds per second, then start afresh."""
        means = {name: sum(v[name] for v in self._values) / len(self._values) for name in self._values[0]}
        means["lr"] = self._values[-1]["lr"]
        means["times_real_time"] = self._seconds / max(time.monotonic() - self._start, 1e-9)
        self._values.clear()
        self._start, self._seconds = time.monotonic(), 0.0
        return means


def train(config: Config, experiment: Path, resume: bool = False, device: str = "auto") -> None:
    """Train until `max_steps` or until patience runs out; `resume` continues from the last checkpoint, if any.

    Ctrl-C writes a checkpoint first. The rerun with `resume` gives the same weights as an uninterrupted run.
    """
    session = start_session(config, experiment, resume, device)
    training, progress, model = config.training, session.progress, session.model
    model.train()
    meter = Meter(progress.recent)
    with TrainingLog(experiment, progress.step, training.max_steps) as log, Interrupts() as interrupts:
        for batch in [] if session.done else session.training_batches():
            values = training_step(model, session.optimizer, batch, session.device, config, progress.step + 1)
            progress.step += 1
            progress.position = batch.after
            progress.seconds += batch.seconds
            meter.add(values, batch.seconds)
            log.tick()
            if progress.step % training.log_every == 0:
                report(log, progress, meter)
            if progress.step % training.validate_every == 0 or progress.step == training.max_steps:
                validate_and_save(session, log)
            if session.done:
                break
            if interrupts.requested:
                say(f"wrote {session.save()}; continue with --resume")
                raise KeyboardInterrupt
        if progress.step not in progress.dev_losses:  # resumed after an interrupt, with nothing left to do
            validate_and_save(session, log)
        finish(session, log)


def report(log: TrainingLog, progress: Progress, meter: Meter) -> None:
    """One line on training."""
    values = meter.take() | {"epoch": progress.position.epoch, "hours": progress.seconds / 3600}
    line = (
        f"step {progress.step} epoch {values['epoch']}: loss {values['loss']:.4f}, lr {values['lr']:.2e}, "
        f"gradient {values['gradient_norm']:.2f}, {values['hours']:.2f} h of audio, "
        f"{values['times_real_time']:.0f}x real time"
    )
    log.event("train", progress.step, line, **values)


def validate_and_save(session: Session, log: TrainingLog) -> None:
    """Dev loss, then the checkpoint that knows of it."""
    progress, config = session.progress, session.config
    loss = validate(session.model, config, session.tokenizer, session.dropped, session.device)
    best = min(progress.dev_losses.values(), default=math.inf)
    progress.dev_losses[progress.step] = loss
    log.event("dev", progress.step, f"step {progress.step}: dev loss {loss:.4f}, best {min(best, loss):.4f}", loss=loss)
    session.save()


def finish(session: Session, log: TrainingLog) -> None:
    """Average the best checkpoints and draw the curves."""
    progress = session.progress
    steps = session.checkpoints.average(progress.dev_losses, session.config)
    line = f"finished at step {progress.step}; averaged the checkpoints of steps {', '.join(map(str, steps))}"
    log.event("finished", progress.step, line, averaged=steps)
    plot_losses(session.experiment / "log.jsonl", session.experiment / "loss.png")
    say(f"curves in {session.experiment / 'loss.png'}")
