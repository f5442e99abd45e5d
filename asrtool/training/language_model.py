"""Training of Transformer language models (asrtool/lm/transformer_lm.py): one loop, which goes on where it was stopped.

asrtool lm train-neural TEXT lm.pt                                  one process
torchrun --nproc-per-node 2 -m asrtool lm train-neural TEXT lm.pt   several, which share the batches
"""

import hashlib
import itertools
import logging
import math
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from asrtool import config
from asrtool.device import describe_device, pick_device
from asrtool.distributed import (
    Ranks,
    StoppedByFirstRank,
    gather_from_all,
    on_first_rank,
    process_group,
    rank_log,
    sum_over_ranks,
    this_rank,
)
from asrtool.errors import UserError
from asrtool.interrupts import Interrupts
from asrtool.lm.corpus import sentences
from asrtool.lm.neural_lm import NeuralLm, save_neural, speller
from asrtool.lm.ngram import UNK
from asrtool.lm.transformer_lm import BOUNDARY, Shape, TransformerLm, check_weights
from asrtool.locks import write_lock
from asrtool.progress import progress
from asrtool.tensor_files import DAMAGE, damaged_file, load_tensors, require_finite, save_tensors
from asrtool.text.tokenizer import Tokenizer, train_tokenizer
from asrtool.training.precision import products, uses_bf16
from asrtool.training.saved_state import check_optimizer
from asrtool.training.schedule import cosine
from asrtool.training.session import make_optimizer

logger = logging.getLogger(__name__)

UNITS_FROM = 1_000_000  # sentences, which say enough of a language to find its units
WINDOW = 50  # batches of sentences that are sorted by length together
SAVE_SECONDS = 600.0
LOG_SECONDS = 20.0
CLIP = 1.0  # largest norm of a gradient
LARGEST_EXPONENT = 700.0  # e to the power of 710 is beyond float64
TIMEOUT = 1800.0  # seconds; the other ranks wait while the first one validates


@dataclass(frozen=True)
class Plan:
    """How to train. A step is of `batch` units over all processes, padding counted."""

    epochs: float = 2.0
    batch: int = 4096
    lr: float = 2e-3  # at its peak, after a twentieth of the steps; then along a cosine to 0
    weight_decay: float = 0.01
    precision: str = "auto"  # as training.precision
    seed: int = 1


@dataclass(frozen=True)
class Sentences:
    """Sentences of units, one after the other: `units` (L,) int32, sentence i from starts[i] to starts[i + 1]."""

    units: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def digest(self) -> str:
        """Of all that is in them."""
        return hashlib.sha256(self.units.tobytes() + self.starts.tobytes()).hexdigest()

    def batch(self, chosen: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs (N, T), their lengths (N,), and the units to predict, (sum of lengths,)."""
        found = [torch.from_numpy(self.units[self.starts[i] : self.starts[i + 1]].astype(np.int64)) for i in chosen]
        edge = torch.tensor([BOUNDARY])
        inputs = pad_sequence([torch.cat([edge, sentence]) for sentence in found], batch_first=True)
        targets = torch.cat([part for sentence in found for part in (sentence, edge)])
        return inputs, torch.tensor([len(sentence) + 1 for sentence in found]), targets


def spell(sentences: Iterable[Sequence[str]], tokenizer: Tokenizer) -> Sentences:
    """Words to units, 4 bytes each. Sentences with a word that has no units are left out, and counted aloud."""
    units, starts, spelled, bad = array("i"), array("q", [0]), speller(tokenizer), 0
    for words in progress(sentences, "spelling text", units="sentences"):
        found = [spelled(word) for word in words]
        if None in found:
            bad += 1
            continue
        for word in found:
            units.extend(word)
        starts.append(len(units))
    if bad:
        logger.info(f"{bad} sentences were left out: they have letters that the units do not")
    if not units:
        raise UserError("the text has no sentence that the units spell; give text of their language")
    return Sentences(np.frombuffer(units, np.int32), np.frombuffer(starts, np.int64))


def joined(sentences: Sentences, size: int) -> Sentences:
    """Neighbours as one, a boundary between them, as long as they have at most `size` units with a boundary each."""
    firsts, total = [0], 0
    for place, length in enumerate((np.diff(sentences.starts) + 1).tolist()):
        if total + length > size and place > firsts[-1]:
            firsts.append(place)
            total = 0
        total += length
    inside = np.setdiff1d(np.arange(len(sentences)), firsts)
    units = np.insert(sentences.units, sentences.starts[inside], BOUNDARY)
    starts = sentences.starts[firsts] + np.array(firsts) - np.arange(len(firsts))  # boundaries inside those before
    return Sentences(units, np.append(starts, len(units)))


def batches(sentences: Sentences, size: int, seed: int) -> list[np.ndarray]:
    """All sentences once, in random order, in batches of at most `size` units with padding; one alone may be longer."""
    rng, lens = np.random.default_rng(seed), np.diff(sentences.starts) + 1
    order = rng.permutation(len(sentences))
    windows = max(1, int(lens.sum()) // (size * WINDOW))
    made: list[np.ndarray] = []
    for window in np.array_split(order, windows):
        made += _cut(window[np.argsort(lens[window], kind="stable")], lens, size)
    return [made[place] for place in rng.permutation(len(made))]


def _cut(chosen: np.ndarray, lens: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Sentences by rising length, cut where one more would be too many."""
    first = 0
    for place, length in enumerate(lens[chosen].tolist()):
        if (place + 1 - first) * length > size and place > first:
            yield chosen[first:place]
            first = place
    yield chosen[first:]


def rate(plan: Plan, step: int, steps: int) -> float:
    """The learning rate of step 0, 1, ..."""
    warmup = max(1, steps // 20)
    if step < warmup:
        return plan.lr * (step + 1) / warmup
    return plan.lr * cosine((step - warmup) / max(1, steps - warmup))


def train_from_text(
    text: Sequence[Path],
    out: Path,
    vocab_size: int,
    shape: Shape,
    plan: Plan,
    dev: Path | None = None,
    case: str = "keep",
    device: str = "auto",
) -> None:
    """`train` on text files or manifests, with `vocab_size` BPE units of theirs. The text is read twice, not kept.

    Of several processes all but the first write what they do to logs/rank-N.log beside OUT.
    """
    with rank_log(this_rank(), out.parent / "logs"):
        known = (words for words in itertools.islice(sentences(text, case), UNITS_FROM) if UNK not in words)
        units = train_tokenizer("bpe", map(" ".join, known), vocab_size)
        told = list(sentences([dev], case)) if dev else ()
        if dev and not told:
            raise UserError(f"{dev} has no words; give --dev a text with a sentence a line")
        train(spell(sentences(text, case), units), units, out, shape, plan, told, device)


def train(
    spelled: Sentences,
    tokenizer: Tokenizer,
    out: Path,
    shape: Shape = Shape(),  # noqa: B008
    plan: Plan = Plan(),  # noqa: B008
    dev: Sequence[Sequence[str]] = (),
    device: str = "auto",
) -> None:
    """Train a model of `spelled` into the file `out`, with the perplexity of `dev` now and then.

    Under torchrun all processes call this. Interrupted, it leaves OUT.training.pt beside, and the same call goes on.
    """
    ranks = this_rank()
    place = pick_device(device, ranks.local_rank)
    state, begin = out.with_name(f"{out.stem}.training{out.suffix}"), time.monotonic()
    with process_group(ranks, place, TIMEOUT), Interrupts() as interrupts, ExitStack() as stack:
        lock = write_lock(out.absolute().parent, "asrtool lm train-neural", file=out.name)
        on_first_rank(ranks, lambda: stack.enter_context(lock))
        if len(set(gather_from_all(ranks, spelled.digest))) > 1:
            raise UserError("the processes have different texts; give all of them the same files")
        training = Training(spelled, tokenizer, shape, plan, ranks, place)
        parameters = sum(p.numel() for p in training.model.parameters())
        if ranks.is_first:
            logger.info(f"{len(spelled)} sentences, {len(spelled.units)} units; {parameters / 1e6:.2f} M parameters")
        training.go_on(state)
        training.run(state, dev, interrupts)
        if ranks.is_first:
            require_finite(training.model.state_dict(), out, f"it is not written; give a lower --lr than {plan.lr:g}")
            facts = training.settings | {"perplexity": training.validate(dev), "device": describe_device(place)}
            save_neural(out, training.model, tokenizer, shape, facts | {"seconds": time.monotonic() - begin})
            state.unlink(missing_ok=True)


class Training:
    """A model on its way."""

    def __init__(self, sentences: Sentences, tokenizer: Tokenizer, shape: Shape, plan: Plan, ranks: Ranks, device):
        self.sentences = joined(sentences, shape.context) if shape.context else sentences
        self.tokenizer, self.shape, self.plan = tokenizer, shape, plan
        self.ranks, self.device = ranks, device
        torch.manual_seed(plan.seed)
        self.model = TransformerLm(tokenizer.size, shape).to(device)
        self.shared = nn.parallel.DistributedDataParallel(self.model) if ranks.world_size > 1 else self.model
        self.optimizer = make_optimizer(self.model, config.TrainingConfig(lr=plan.lr, weight_decay=plan.weight_decay))
        self.share = max(1, plan.batch // ranks.world_size)  # units in a batch of one process
        self.epoch = max(1, len(batches(self.sentences, self.share, plan.seed)) // ranks.world_size)  # its steps
        self.step, self.steps = 0, max(1, round(plan.epochs * self.epoch))
        self.settings = asdict(plan) | asdict(shape) | {"text": sentences.digest, "processes": ranks.world_size}

    def go_on(self, state: Path) -> None:
        """Take up what an interrupted call has left in `state`. UserError when that was another training."""
        if not state.is_file():
            return
        what, hint = "the state of a training", "delete it to begin again"
        found = load_tensors(state, what, hint, self.device)
        try:
            self._restore(found, state)
        except DAMAGE as error:
            raise damaged_file(state, what, hint, error) from error
        if self.ranks.is_first:
            logger.info(f"going on after step {self.step}")

    def _restore(self, found: dict[str, Any], state: Path) -> None:
        """Take up what was saved. UserError when it is of another training, one of DAMAGE when it is invalid."""
        saved = dict(found["settings"])
        if changed := [name for name, value in self.settings.items() if saved.get(name) != value]:
            raise UserError(f"{state} is of a training with another {', '.join(changed)}; delete it to begin again")
        if type(found["step"]) is not int or not 0 <= found["step"] <= self.steps:
            raise ValueError(f"step {found['step']!r:.50} of {self.steps}")
        check_weights(dict(found["model"]), self.tokenizer.size, self.shape)
        check_optimizer(self.model, self.optimizer, found["optimizer"])
        self.model.load_state_dict(found["model"])
        self.optimizer.load_state_dict(found["optimizer"])
        self.step = found["step"]

    def save(self, state: Path) -> None:
        """What `go_on` reads."""
        if self.ranks.is_first:
            weights = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
            save_tensors(state, weights | {"settings": self.settings, "step": self.step})
            logger.info(f"wrote {state}, from which the same command goes on")

    def own_batches(self) -> Iterator[np.ndarray]:
        """Those of this process from the present step on, epoch after epoch; each process has as many."""
        size, skipped = self.ranks.world_size, self.step
        for epoch in itertools.count():
            made = batches(self.sentences, self.share, self.plan.seed + epoch)
            own = list(itertools.islice(itertools.cycle(made), -(-len(made) // size) * size))[self.ranks.rank :: size]
            yield from own[skipped:]
            skipped = max(0, skipped - len(own))

    def update(self, chosen: np.ndarray) -> tuple[float, int]:
        """One step; returns the sum of its losses and the number of units, of this process.

        A gradient that is not finite changes no weights, and the loss that is returned is NaN.
        """
        torch.manual_seed(hash((self.plan.seed, self.step, self.ranks.rank)))  # dropout: the same when going on
        inputs, lens, targets = (part.to(self.device) for part in self.sentences.batch(chosen))
        for group in self.optimizer.param_groups:
            group["lr"] = rate(self.plan, self.step, self.steps)
        self.optimizer.zero_grad(set_to_none=True)
        bf16 = uses_bf16(self.plan.precision, self.device)
        with products(self.plan.precision, self.device):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                logprobs = self.shared(inputs, lens)
            loss = nn.functional.nll_loss(logprobs, targets)
            loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        if not norm.isfinite():
            return math.nan, len(targets)
        self.optimizer.step()
        self.step += 1
        return loss.item() * len(targets), len(targets)

    def run(self, state: Path, dev: Sequence[Sequence[str]], interrupts: Interrupts) -> None:
        """The steps that are left."""
        saved, meter = time.monotonic(), Meter()
        self.model.train()
        for chosen in itertools.islice(self.own_batches(), self.steps - self.step):
            loss, units, stop = sum_over_ranks(self.ranks, *self.update(chosen), interrupts.requested)
            if not math.isfinite(loss):
                raise self._diverged(state)
            meter.add(loss, units)
            if self.ranks.is_first and (meter.due or self.step == self.steps):
                logger.info(f"step {self.step} of {self.steps}: {meter.take(self.steps - self.step)}")
            if self.step % self.epoch == 0 and self.step < self.steps:
                self.validate(dev)
            if stop:
                self.save(state)
                raise interrupts.kind
            if time.monotonic() - saved > SAVE_SECONDS:
                self.save(state)
                saved = time.monotonic()

    def _diverged(self, state: Path) -> Exception:
        """The error of a step whose loss or gradient is not finite, which every process has at the same time."""
        message = (
            f"step {self.step + 1} of {self.steps}: the loss is not finite; give a lower --lr than {self.plan.lr:g}"
        )
        if state.is_file():
            message += f", and delete {state}, which is of this one"
        return UserError(message) if self.ranks.is_first else StoppedByFirstRank(message)

    def validate(self, dev: Sequence[Sequence[str]]) -> float | None:
        """The perplexity of a word of `dev`, sentence ends counted, words that units cannot spell not; said aloud."""
        if not dev or not self.ranks.is_first:
            return None
        model = NeuralLm(self.model, self.tokenizer, self.device, self.shape.context)
        values = np.concatenate(list(model.in_order(dev)))
        self.model.train()
        found = perplexity(-values[np.isfinite(values)].mean())
        logger.info(f"step {self.step}: dev perplexity {found:.1f} a word")
        return found


def perplexity(loss: float) -> float:
    """e to the power of `loss`, a mean of negative log-probs; infinite where that is beyond float64."""
    return math.exp(loss) if loss < LARGEST_EXPONENT else math.inf


class Meter:
    """What has been since the last line."""

    def __init__(self):
        self.loss = self.units = 0.0
        self.steps, self.since = 0, time.monotonic()

    def add(self, loss: float, units: float) -> None:
        """A step."""
        self.loss, self.units, self.steps = self.loss + loss, self.units + units, self.steps + 1

    @property
    def due(self) -> bool:
        """Whether it is time for a line."""
        return time.monotonic() - self.since > LOG_SECONDS

    def take(self, left: int) -> str:
        """For a line, with how long the steps that are `left` will take."""
        seconds = time.monotonic() - self.since
        hours, found = left * seconds / self.steps / 3600, perplexity(self.loss / self.units)
        line = f"perplexity {found:.2f} a unit, {self.units / seconds:,.0f} units a second, {hours:.2f} h left"
        self.__init__()
        return line
