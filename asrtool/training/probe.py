"""The largest data.batch_seconds that this machine has memory for: found by training steps with the worst batches."""

import resource
import time
from dataclasses import dataclass

import torch

from asrtool.config import Config
from asrtool.data.features import FRAME_SHIFT
from asrtool.data.loading import Batch, Position
from asrtool.device import describe, out_of_memory, pick_device
from asrtool.errors import UserError
from asrtool.models.acoustic import AcousticModel
from asrtool.progress import say
from asrtool.text.tokenizer import load_tokenizer
from asrtool.training.precision import products
from asrtool.training.session import make_optimizer
from asrtool.training.train import batch_loss

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
    """A model in training, to try batches on."""

    def __init__(self, config: Config, device: torch.device):
        self.config, self.device = config, device
        self.units = load_tokenizer(config.data.tokenizer).size
        self.model = AcousticModel(config, self.units).to(device).train()
        self.optimizer = make_optimizer(self.model, config)
        self.kinds: tuple[float, ...] = ()  # lengths of cuts to try; once it is known, the worse one

    def __call__(self, seconds: float) -> Trial:
        """A step with batches of `seconds`, of the worse kind. Says what came of it."""
        data = self.config.data
        trials = [self._try(seconds, cut) for cut in self.kinds or (data.max_seconds, max(SHORT, data.min_seconds))]
        worse = min(trials, key=lambda t: (t.fits, -t.memory))
        self.kinds = self.kinds or (worse.cut,)
        say(str(worse))
        return worse

    def _try(self, seconds: float, cut_seconds: float) -> Trial:
        _forget_peak(self.device)
        began = time.monotonic()
        try:
            self._step(self._batch(max(1, int(seconds / cut_seconds)), cut_seconds))
            memory = _peak(self.device)
        except (RuntimeError, MemoryError) as error:
            if not (out_of_memory(error) or "bad_alloc" in str(error) or "could not create" in str(error)):
                raise
            return Trial(seconds, cut_seconds, False)
        finally:
            self.optimizer.zero_grad(set_to_none=True)
        return Trial(seconds, cut_seconds, True, memory, time.monotonic() - began)

    def _step(self, batch: Batch) -> None:
        precision = self.config.training.precision
        with products(precision, self.device):
            loss = batch_loss(self.model, batch, self.device, precision).sum()
            (0.0 * loss).backward()  # no weight moves
        self.optimizer.step()

    def _batch(self, cuts: int, seconds: float) -> Batch:
        frames = int(seconds / FRAME_SHIFT)
        features = torch.randn(cuts, frames, self.config.features.num_bins)
        most = max(1, self.model.out_length(frames) // 3)  # a unit every third output frame is more than any speech has
        targets = torch.randint(1, self.units, (cuts, most))
        lens, target_lens = torch.full((cuts,), frames), torch.full((cuts,), most)
        names = [str(number) for number in range(cuts)]
        return Batch(Position(), Position(), names, names, features, lens, targets, target_lens, cuts * seconds)


def probe(config: Config, device: str = "auto") -> str:
    """A line for people: the largest `data.batch_seconds` that fits, to a tenth. Raises UserError when nothing does."""
    place = pick_device(device)
    room = _limit_memory(place)
    say(f"{describe(place)}: {room / 1e9:.1f} GB to use; training steps with a batch of")
    attempt, size = Prober(config, place), config.data.max_seconds
    before, best = Trial(0, 0, True), attempt(size)
    if not best.fits:
        raise UserError(f"not even one cut of data.max_seconds={size:g} fits; lower it, or take a smaller model")
    while (more := attempt(_next(before, best, room))).fits and more.took < LONG:
        before, best = best, more
    if more.fits:
        return (
            f"data.batch_seconds={int(more.seconds)} fits ({more.memory / 1e9:.1f} GB); a step takes {more.took:.0f} s"
        )
    while not (less := attempt(more.seconds / STEP)).fits:
        more = less
    best = max(best, less, key=lambda trial: trial.seconds)
    return f"data.batch_seconds={int(best.seconds)} fits ({best.memory / 1e9:.1f} GB); {int(more.seconds)} does not"


def _next(before: Trial, last: Trial, room: int) -> float:
    """The size at which memory, which grows in proportion, would be full, or a step take too long; at most 8 times."""
    grown = max(last.memory - before.memory, 1) / (last.seconds - before.seconds)
    full = last.seconds + (room - last.memory) / grown
    slow = last.seconds * LONG * STEP / last.took
    return max(min(full, slow, 8 * last.seconds), STEP * last.seconds)


def _limit_memory(device: torch.device) -> int:
    """Bytes that training may use here; on CPU what is beyond them fails as on a GPU, and does not kill."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    with open("/proc/meminfo", encoding="ascii") as file:
        free = next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    room = int(SPARE * free)
    resource.setrlimit(resource.RLIMIT_DATA, (_status("VmData") + room, resource.RLIM_INFINITY))
    return room


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")  # the peak of resident memory starts anew


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _status("VmHWM")


def _status(name: str) -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name + ":"))
