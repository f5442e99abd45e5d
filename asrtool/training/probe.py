"""The largest data.batch_seconds that this machine has memory for: found by training steps with the worst batches."""

import logging
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from asrtool.config import Config
from asrtool.data.batch import Batch, Position
from asrtool.data.features import FRAME_SHIFT
from asrtool.data.inspection import transcript
from asrtool.data.shards import entries_with_trees
from asrtool.device import describe_device, is_out_of_memory, pick_device
from asrtool.distributed import SINGLE_PROCESS
from asrtool.errors import UserError
from asrtool.models.acoustic import AcousticModel
from asrtool.text.tokenizer import Tokenizer, load_tokenizer
from asrtool.training.objective import make_objective
from asrtool.training.precision import products
from asrtool.training.session import make_optimizer
from asrtool.training.train import batch_loss

logger = logging.getLogger(__name__)

SPARE = 0.9  # of the memory that is free: what else runs needs some, and fragments are lost
STEP = 1.1  # the answer is right to such a factor
LONG = 60.0  # seconds: nobody wants a step that takes longer, even if it fits
SHORT = 2.0  # seconds: many short cuts are the other worst case, with most rows and most targets


@dataclass
class Trial:
    """A training step with a batch of `seconds`, in cuts of `cut` seconds."""

    seconds: float
    cut: float
    fits: bool
    memory: int = 0  # bytes at most
    took: float = 0.0  # seconds

    def __str__(self) -> str:
        what = f"{self.seconds:8.0f} s, in cuts of {self.cut:g} s: "
        if not self.fits:
            return what + "too much"
        return what + f"{self.memory / 1e9:.2f} GB, {self.took:.1f} s, {self.seconds / self.took:.0f}x real time"


class Prober:
    """Training steps with any batch; on CPU each in a process of its own, which running out of memory may kill.

    `folder` is for what the objective counts in the training data.
    """

    def __init__(self, config: Config, device: torch.device, room: int, folder: Path):
        self.config, self.device, self.room, self.folder = config, device, room, folder
        self.tokenizer = load_tokenizer(config.data.tokenizer)
        self.words = _words(config, self.tokenizer)
        self.kinds: tuple[float, ...] = ()  # lengths of cuts to try; once it is known, the worse one

    def __call__(self, seconds: float) -> Trial:
        """A step with a batch of `seconds`, of the worse kind. Says what came of it."""
        data = self.config.data
        kinds = self.kinds or (data.max_seconds, max(SHORT, data.min_seconds))
        run = self.step if self.device.type == "cuda" else self._apart
        worse = min((run(seconds, cut) for cut in kinds), key=lambda t: (t.fits, -t.memory))
        self.kinds = (worse.cut,)
        logger.info(str(worse))
        return worse

    def _apart(self, seconds: float, cut_seconds: float) -> Trial:
        context = multiprocessing.get_context("fork")  # nothing has been computed here: no threads are lost
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=self._send, args=(sender, seconds, cut_seconds))
        process.start()
        sender.close()
        try:
            outcome = receiver.recv()
        except EOFError:  # killed, by what could not bear to get no memory
            outcome = Trial(seconds, cut_seconds, False)
        process.join()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _send(self, sender: Connection, seconds: float, cut_seconds: float) -> None:
        try:
            more = self.room - _status("VmRSS")
            resource.setrlimit(resource.RLIMIT_DATA, (_status("VmData") + more, resource.RLIM_INFINITY))
            sender.send(self.step(seconds, cut_seconds))
        except Exception as error:
            sender.send(error)

    def step(self, seconds: float, cut_seconds: float) -> Trial:
        """Forward, backward and update of a new model."""
        try:
            model = AcousticModel(self.config, self.tokenizer.size).to(self.device).train()
            optimizer = make_optimizer(model, self.config.training)
            objective = make_objective(self.config, self.tokenizer, self.folder, SINGLE_PROCESS, self.device)
            batch = self._batch(seconds, cut_seconds, model)
            began, precision = time.monotonic(), self.config.training.precision
            with products(precision, self.device):
                batch_loss(model, batch, self.device, precision, objective).sum().backward()
            optimizer.step()
            return Trial(seconds, cut_seconds, True, _peak(self.device), time.monotonic() - began)
        except (RuntimeError, MemoryError) as error:
            if not (is_out_of_memory(error) or "bad_alloc" in str(error) or "could not create" in str(error)):
                raise
            return Trial(seconds, cut_seconds, False)
        finally:
            model = optimizer = None
            _forget_peak(self.device)

    def _batch(self, seconds: float, cut_seconds: float, model: AcousticModel) -> Batch:
        cuts, frames = max(1, int(seconds / cut_seconds)), int(cut_seconds / FRAME_SHIFT)
        features = torch.randn(cuts, frames, self.config.features.num_bins)
        text = self._text(model.out_length(frames) // 3)  # a unit every third output frame is more than any speech has
        units = self.tokenizer.encode(text)
        targets, target_lens = torch.tensor([units] * cuts), torch.full((cuts,), len(units))
        labels = torch.randint(self.tokenizer.size, (cuts, frames))
        names = [str(number) for number in range(cuts)]
        lens = torch.full((cuts,), frames)
        texts = [text] * cuts
        return Batch(Position(), Position(), names, texts, features, lens, targets, target_lens, seconds, labels)

    def _text(self, most: int) -> str:
        """Words of the training data, of `most` units or few more."""
        text = next(self.words)
        while len(self.tokenizer.encode(text)) < most:
            text += " " + next(self.words)
        return text


def _words(config: Config, tokenizer: Tokenizer) -> Iterator[str]:
    """Those of the first transcript of the training data that has any, again and again."""
    texts = (transcript(tree) for _, tree in entries_with_trees(config.data.train))
    text = next((text for text in texts if text and not tokenizer.unknown(text)), None)
    if text is None:
        raise UserError(f"no transcript of {config.data.train} has units of the tokenizer; look at both")
    return cycle(text.split())


def probe(config: Config, device: str = "auto") -> str:
    """A line for people: the largest `data.batch_seconds` that fits, to a tenth. Raises UserError when nothing does."""
    place = pick_device(device)
    room = _room(place)
    logger.info(f"{describe_device(place)}: {room / 1e9:.1f} GB at most; training steps with a batch of")
    with tempfile.TemporaryDirectory() as folder:
        return _search(config, Prober(config, place, room, Path(folder)), room)


def _search(config: Config, attempt: Prober, room: int) -> str:
    size = config.data.max_seconds
    before, best = Trial(0, 0, True), attempt(size)
    if not best.fits:
        raise UserError(f"not even one cut of data.max_seconds={size:g} fits; lower it, or take a smaller model")
    while (more := attempt(_next(before, best, room))).fits and more.took < LONG:
        before, best = best, more
    if more.fits:
        slow = f"more was not tried, since a step takes {more.took:.0f} s"
        return f"data.batch_seconds={int(more.seconds)} fits ({more.memory / 1e9:.1f} GB); {slow}"
    while more.seconds > best.seconds * STEP**1.5:
        middle = attempt((more.seconds * best.seconds) ** 0.5)
        best, more = (middle, more) if middle.fits else (best, middle)
    return f"data.batch_seconds={int(best.seconds)} fits ({best.memory / 1e9:.1f} GB); {int(more.seconds)} does not"


def _next(before: Trial, last: Trial, room: int) -> float:
    """The size at which memory, which grows in proportion, would be full, or a step take too long; at most 8 times."""
    grown = max(last.memory - before.memory, 1) / (last.seconds - before.seconds)
    full = last.seconds + (room - last.memory) / grown
    slow = last.seconds * LONG * STEP / last.took
    return max(min(full, slow, 8 * last.seconds), STEP * last.seconds)


def _room(device: torch.device) -> int:
    """Bytes that a process may use."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    with open("/proc/meminfo", encoding="ascii") as file:
        free = next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    return _status("VmRSS") + int(SPARE * free)


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _status("VmHWM")


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _status(name: str) -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name + ":"))
