"""Trains Transformer language models (asrtool/lm/transformer_lm.py).

asrtool lm train-neural TEXT lm.pt                                  one process
torchrun --nproc-per-node 2 -m asrtool lm train-neural TEXT lm.pt   several processes, which share the batches

The model is written to lm.pt when the training has finished. The folder lm.training next to it has log.jsonl,
TensorBoard files, and a checkpoint from which the same command resumes after an interruption.
"""

import logging
import math
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import numpy as np

from asrtool.device import describe_device, use_device
from asrtool.distributed import (
    StoppedByFirstRank,
    broadcast_from_first,
    gather_from_all,
    on_first_rank,
    process_group,
    rank_log,
    sum_over_ranks,
    this_rank,
)
from asrtool.errors import UserError
from asrtool.interrupts import Interrupts
from asrtool.lm.corpus import read_word_sequences
from asrtool.lm.neural_lm import NeuralLm, save_neural_lm
from asrtool.lm.ngram import UNK
from asrtool.lm.sentences import UnitSentences, encode_sentences
from asrtool.lm.transformer_lm import TransformerLmConfig
from asrtool.locks import write_lock
from asrtool.precision import log_precision_fallback
from asrtool.provenance import provenance
from asrtool.tensor_files import require_finite
from asrtool.text.tokenizer import Tokenizer
from asrtool.text.tokenizer_training import train_tokenizer
from asrtool.training.lm_session import LmSession, LmTrainingConfig
from asrtool.training.log import TrainingLog, peak_memory_gb

logger = logging.getLogger(__name__)

Texts = Sequence[Sequence[str]]  # sentences of words

MAX_TOKENIZER_SENTENCES = 1_000_000  # enough of a language to train its BPE units
MAX_EXPONENT = 700.0  # e to the power of 710 is beyond float64
TIMEOUT_SECONDS = 1800.0  # the other ranks wait while the first one validates


def train_language_model_from_text(
    *,
    text: Sequence[Path],
    out: Path,
    vocab_size: int,
    model: TransformerLmConfig,
    training: LmTrainingConfig,
    dev: Path | None = None,
    case: str = "keep",
    device: str = "auto",
) -> None:
    """Runs `train_language_model` on text files or manifests, with `vocab_size` BPE units trained on them.

    The text is read twice, not kept. The log lines of all processes but the first go to lm.training/logs/rank-N.log.
    """
    with rank_log(this_rank(), training_folder(out) / "logs"):
        sentences = (words for words in read_word_sequences(text, case) if UNK not in words)
        tokenizer = train_tokenizer("bpe", map(" ".join, islice(sentences, MAX_TOKENIZER_SENTENCES)), vocab_size)
        dev_sentences = list(read_word_sequences([dev], case)) if dev else []
        if dev and not dev_sentences:
            raise UserError(f"{dev} has no words; give --dev a text with a sentence a line")
        train_language_model(
            encode_sentences(read_word_sequences(text, case), tokenizer),
            tokenizer,
            out,
            model=model,
            training=training,
            dev=dev_sentences,
            device=device,
        )


def training_folder(out: Path) -> Path:
    """Returns the folder of the log and checkpoints of the model `out`: lm.training next to lm.pt."""
    return out.with_name(f"{out.stem}.training")


def train_language_model(
    sentences: UnitSentences,
    tokenizer: Tokenizer,
    out: Path,
    *,
    model: TransformerLmConfig | None = None,
    training: LmTrainingConfig | None = None,
    dev: Texts = (),
    device: str = "auto",
) -> None:
    """Trains a model on `sentences` and writes it to the file `out`; measures the perplexity of `dev` now and then.

    Under torchrun all processes call this. After an interruption the same call resumes, and leads to the same weights
    as an uninterrupted one.
    """
    ranks = this_rank()
    torch_device = use_device(device, ranks.local_rank)
    with process_group(ranks, torch_device, TIMEOUT_SECONDS), ExitStack() as stack:
        lock = write_lock(out.absolute().parent, "asrtool lm train-neural", file=out.name)
        on_first_rank(ranks, lambda: stack.enter_context(lock))
        if len(set(gather_from_all(ranks, sentences.digest))) > 1:
            raise UserError("the processes have different texts; give all of them the same files")
        session = LmSession(
            sentences=sentences,
            tokenizer=tokenizer,
            model_config=model or TransformerLmConfig(),
            training=training or LmTrainingConfig(),
            ranks=ranks,
            device=torch_device,
            folder=training_folder(out),
        )
        _resume_or_start(session)
        with TrainingLog(session.folder, session.step, session.max_steps, ranks.is_first) as log:
            _report_start(session, log)
            with Interrupts() as interrupts:
                _training_loop(session, log, interrupts, dev)
            _finish(session, log, dev, out)


def _resume_or_start(session: LmSession) -> None:
    """Restores the last checkpoint of an interrupted training; else removes the log of an earlier training."""
    on_first_rank(session.ranks, lambda: _require_folder(session.folder))
    last = broadcast_from_first(session.ranks, session.checkpoints.last())
    if last is not None:
        session.resume(last)
        logger.info(f"resumed from {last}: step {session.step} of {session.max_steps}")
    elif session.ranks.is_first:
        (session.folder / "log.jsonl").unlink(missing_ok=True)
        shutil.rmtree(session.folder / "tensorboard", ignore_errors=True)
    log_precision_fallback(session.config.precision, session.device)


def _require_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; the log of the training needs a folder there: name another OUT")


def _report_start(session: LmSession, log: TrainingLog) -> None:
    """Logs the program, the device, and the sizes of text and model."""
    if session.ranks.is_first:
        log.event(
            "start",
            session.step,
            f"{session.num_sentences} sentences, {session.num_units} units; "
            f"{session.num_parameters / 1e6:.2f} M parameters",
            **provenance(),
            device=describe_device(session.device),
            ranks=session.ranks.world_size,
            parameters=session.num_parameters,
        )


def _training_loop(session: LmSession, log: TrainingLog, interrupts: Interrupts, dev: Texts) -> None:
    """Takes all steps, and validates, saves or stops between them."""
    ranks = session.ranks
    session.model.train()
    for batch in islice(session.step_batches(), session.max_steps - session.step):
        values = session.update(batch)
        loss_sum, units, num_stop = sum_over_ranks(ranks, values["loss_sum"], values["units"], interrupts.requested)
        if not math.isfinite(loss_sum):
            raise _divergence_error(session)
        session.step += 1
        session.meter.add({**values, "loss_sum": loss_sum, "units": units})
        log.advance()
        if session.step % session.config.log_every == 0 or session.step == session.max_steps:
            _report_progress(session, log)
        if session.step % session.epoch_steps == 0 and session.step < session.max_steps:
            _validate(session, log, dev)
        if ranks.is_first and (num_stop or session.clock.save_is_late(session.config.save_minutes)):
            logger.info(f"wrote {session.save()}; the same command resumes from it")
        if num_stop:
            raise interrupts.kind


def _divergence_error(session: LmSession) -> Exception:
    """Returns the error of a step whose loss or gradient is not finite, which all processes raise at the same time."""
    message = (
        f"step {session.step + 1} of {session.max_steps}: the loss is not finite; "
        f"give a lower --lr than {session.config.lr:g}"
    )
    if session.checkpoints.all():
        message += f", and delete {session.folder}, which has the checkpoint of this training"
    return UserError(message) if session.ranks.is_first else StoppedByFirstRank(message)


def _report_progress(session: LmSession, log: TrainingLog) -> None:
    """Logs the steps since the last report. The loss is in nats per unit."""
    steps = session.meter.take()
    loss = steps.sums["loss_sum"] / steps.sums["units"]
    units_per_second = steps.timed_sums["units"] / steps.seconds
    hours_left = (session.max_steps - session.step) * steps.seconds_per_step / 3600
    log.event(
        "train",
        session.step,
        f"step {session.step} of {session.max_steps}: perplexity {perplexity(loss):.2f} per unit, "
        f"lr {steps.last['lr']:.2e}, {units_per_second:,.0f} units/s, {hours_left:.2f} h left",
        loss=loss,
        gradient_norm=steps.means["gradient_norm"],
        lr=steps.last["lr"],
        units_per_second=units_per_second,
        peak_memory_gb=peak_memory_gb(),
        hours_left=hours_left,
    )


def _validate(session: LmSession, log: TrainingLog, dev: Texts) -> float | None:
    """Logs and returns the perplexity per word of `dev` on the first rank; None without `dev` and on other ranks.

    Sentence ends are counted, words without units are not.
    """
    if not dev or not session.ranks.is_first:
        return None
    model = NeuralLm(session.model, session.tokenizer, session.device, session.model_config.context)
    logprobs = np.concatenate(list(model.text_logprobs(dev)))
    session.model.train()
    loss = float(-logprobs[np.isfinite(logprobs)].mean())
    dev_perplexity = perplexity(loss)
    line = f"step {session.step}: dev perplexity {dev_perplexity:.1f} per word"
    log.event("dev", session.step, line, loss=loss, perplexity=dev_perplexity)
    return dev_perplexity


def _finish(session: LmSession, log: TrainingLog, dev: Texts, out: Path) -> None:
    """Writes the model on the first rank, logs the cost of the training, and removes its checkpoints."""
    if not session.ranks.is_first:
        return
    lr = session.config.lr
    require_finite(session.model.state_dict(), out, f"it is not written; give a lower --lr than {lr:g}")
    facts = {
        **session.settings,
        "perplexity": _validate(session, log, dev),
        "device": describe_device(session.device),
        "device_hours": session.clock.device_hours,
    }
    save_neural_lm(out, session.model, session.tokenizer, session.model_config, facts)
    hours = session.clock.device_hours
    line = f"finished at step {session.step}: wrote {out}; {hours:.2f} device hours"
    log.event("finished", session.step, line, device_hours=hours, peak_memory_gb=peak_memory_gb())
    shutil.rmtree(session.checkpoints.folder, ignore_errors=True)


def perplexity(loss: float) -> float:
    """Returns e to the power of `loss`, a mean of negative log-probs; infinite where that is beyond float64."""
    return math.exp(loss) if loss < MAX_EXPONENT else math.inf
