"""The largest data.batch_seconds that the memory of this machine allows, measured by training steps."""

import logging
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
from asrtool.data.batch import Batch
from asrtool.data.batch_cost import UtteranceCost
from asrtool.data.features import FRAME_SHIFT
from asrtool.data.inspection import transcript
from asrtool.data.shards import entries_with_dicts
from asrtool.device import describe_device, is_out_of_memory, use_device
from asrtool.distributed import SINGLE_PROCESS
from asrtool.errors import UserError
from asrtool.forking import fork_context
from asrtool.machine import free_memory
from asrtool.models.acoustic import AcousticModel
from asrtool.models.cost import attention_seconds
from asrtool.text.outputs import outputs_of
from asrtool.text.pdf_tokenizer import PdfTokenizer
from asrtool.text.tokenizer import Tokenizer, load_tokenizer
from asrtool.training.objective import create_objective
from asrtool.training.optimizer import create_optimizer
from asrtool.training.step import batch_loss

logger = logging.getLogger(__name__)

USED_SHARE = 0.9  # of the free memory: other programs need some, and fragmentation wastes some
TOLERANCE = 1.1  # the result is within this factor of the largest size that fits
MAX_STEP_SECONDS = 60.0  # nobody wants a step that takes longer, even if it fits
SHORT_CUT_SECONDS = 2.0  # many short cuts are the other worst case: the most rows and the most targets
MAX_GROWTH = 8  # from one size that is tried to the next
FRAMES_PER_UNIT = 3  # output frames: more units than any speech has


@dataclass
class Trial:
    """The result of a training step with a batch of `seconds`, in cuts of `cut_seconds`."""

    seconds: float
    cut_seconds: float
    fits: bool
    memory: int = 0  # bytes, the peak
    step_seconds: float = 0.0

    def __str__(self) -> str:
        size = f"{self.seconds:8.0f} s, in cuts of {self.cut_seconds:g} s: "
        if not self.fits:
            return size + "too large"
        speed = self.seconds / self.step_seconds
        return size + f"{self.memory / 1e9:.2f} GB, {self.step_seconds:.1f} s, {speed:.0f}x real time"


class Prober:
    """Runs training steps with batches of any size; on a CPU each in a process of its own, which may run out of memory.

    `max_memory` is in bytes; `folder` keeps the counts of the objective.
    """

    def __init__(self, config: Config, device: torch.device, max_memory: int, folder: Path):
        self.config = config
        self.device = device
        self.max_memory = max_memory
        self.folder = folder
        self.tokenizer = load_tokenizer(config.data.tokenizer)
        self.words = _training_words(config.data.train_manifests[0], self.tokenizer)
        self.cut_lengths: tuple[float, ...] = ()  # seconds; after the first trial only the worse length

    def __call__(self, seconds: float) -> Trial:
        """Runs a step with a batch of `seconds`, in cuts of the worse length, and logs the result."""
        data = self.config.data
        lengths = self.cut_lengths or (data.max_seconds, max(SHORT_CUT_SECONDS, data.min_seconds))
        run = self.step if self.device.type == "cuda" else self._step_in_process
        worse = min((run(seconds, length) for length in lengths), key=lambda trial: (trial.fits, -trial.memory))
        self.cut_lengths = (worse.cut_seconds,)
        logger.info(str(worse))
        return worse

    def _step_in_process(self, seconds: float, cut_seconds: float) -> Trial:
        context = fork_context()  # nothing has been computed here: no threads are lost
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=self._send_step, args=(sender, seconds, cut_seconds))
        process.start()
        sender.close()
        try:
            outcome = receiver.recv()
        except EOFError:  # the process was killed for lack of memory
            outcome = Trial(seconds, cut_seconds, fits=False)
        process.join()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _send_step(self, sender: Connection, seconds: float, cut_seconds: float) -> None:
        """Runs a step in a process with limited memory, and sends the trial, or the error."""
        try:
            more = self.max_memory - _process_status("VmRSS")
            resource.setrlimit(resource.RLIMIT_DATA, (_process_status("VmData") + more, resource.RLIM_INFINITY))
            sender.send(self.step(seconds, cut_seconds))
        except Exception as error:
            sender.send(error)

    def step(self, seconds: float, cut_seconds: float) -> Trial:
        """Runs forward pass, backward pass and update of a new model."""
        try:
            return self._try_step(seconds, cut_seconds)
        except (RuntimeError, MemoryError) as error:
            if not (is_out_of_memory(error) or "bad_alloc" in str(error) or "could not create" in str(error)):
                raise
            return Trial(seconds, cut_seconds, fits=False)
        finally:
            _reset_peak_memory(self.device)

    def _try_step(self, seconds: float, cut_seconds: float) -> Trial:
        model = AcousticModel(self.config.model, self.config.features.num_bins, self._num_outputs)
        model.to(self.device).train()
        optimizer = create_optimizer(model, self.config.training)
        objective = create_objective(self.config, self.tokenizer, self.folder, SINGLE_PROCESS, self.device)
        batch = self._worst_batch(seconds, cut_seconds, model)
        start_time = time.monotonic()
        batch_loss(model, batch, self.device, self.config.training.precision, objective).sum().backward()
        optimizer.step()
        return Trial(
            seconds,
            cut_seconds,
            fits=True,
            memory=_peak_memory(self.device),
            step_seconds=time.monotonic() - start_time,
        )

    @property
    def _num_outputs(self) -> int:
        return outputs_of(self.config, self.tokenizer)

    def _worst_batch(self, seconds: float, cut_seconds: float, model: AcousticModel) -> Batch:
        """A batch of random features, with as many units as speech of that length can have."""
        cost = UtteranceCost(attention_seconds(self.config, self._num_outputs))
        num_cuts = cost.capacity(seconds, cut_seconds)
        num_frames = int(cut_seconds / FRAME_SHIFT)
        text, units = self._transcript(model.out_length(num_frames) // FRAMES_PER_UNIT)
        return Batch(
            ids=[str(number) for number in range(num_cuts)],
            texts=[text] * num_cuts,
            features=torch.randn(num_cuts, num_frames, self.config.features.num_bins),
            feature_lens=torch.full((num_cuts,), num_frames),
            targets=torch.tensor([units] * num_cuts),
            target_lens=torch.full((num_cuts,), len(units)),
            seconds=num_cuts * cut_seconds,
            labels=torch.randint(self._num_outputs, (num_cuts, num_frames)),
        )

    def _transcript(self, num_units: int) -> tuple[str, list[int]]:
        """Words of the training data with `num_units` units, or a few more, and the units; any pdfs without words."""
        if isinstance(self.tokenizer, PdfTokenizer):
            return "", [1] * num_units
        text = next(self.words)
        while len(self.tokenizer.encode(text)) < num_units:
            text += " " + next(self.words)
        return text, self.tokenizer.encode(text)


def _training_words(manifest: Path, tokenizer: Tokenizer) -> Iterator[str]:
    """The words of the first transcript of a manifest that has units, repeated without end."""
    texts = (transcript(cut_dict) for _, cut_dict in entries_with_dicts(manifest))
    text = next((text for text in texts if text and not tokenizer.unknown(text)), None)
    if text is None:
        raise UserError(f"no transcript of {manifest} has units of the tokenizer; look at both")
    return cycle(text.split())


def probe_batch_seconds(config: Config, device_name: str = "auto") -> str:
    """Returns a line for people: the largest `data.batch_seconds` that fits. Raises UserError when no cut fits."""
    device = use_device(device_name)
    max_memory = _max_memory(device)
    logger.info(f"{describe_device(device)}: {max_memory / 1e9:.1f} GB at most; training steps with a batch of")
    with tempfile.TemporaryDirectory() as folder:
        return _search(config.data.max_seconds, Prober(config, device, max_memory, Path(folder)), max_memory)


def _search(cut_seconds: float, run_trial: Prober, max_memory: int) -> str:
    """Raises the size until a step does not fit or takes too long, then halves the interval between the last two."""
    smaller = Trial(0, 0, fits=True)
    best = run_trial(cut_seconds)
    if not best.fits:
        raise UserError(f"not even one cut of data.max_seconds={cut_seconds:g} fits; lower it, or take a smaller model")
    while True:
        larger = run_trial(_next_size(smaller, best, max_memory))
        if not larger.fits:
            break
        if larger.step_seconds >= MAX_STEP_SECONDS:
            slow = f"more was not tried, since a step takes {larger.step_seconds:.0f} s"
            return f"data.batch_seconds={int(larger.seconds)} fits ({larger.memory / 1e9:.1f} GB); {slow}"
        smaller, best = best, larger
    while larger.seconds > best.seconds * TOLERANCE**1.5:
        middle = run_trial((larger.seconds * best.seconds) ** 0.5)
        if middle.fits:
            best = middle
        else:
            larger = middle
    return f"data.batch_seconds={int(best.seconds)} fits ({best.memory / 1e9:.1f} GB); {int(larger.seconds)} does not"


def _next_size(smaller: Trial, last: Trial, max_memory: int) -> float:
    """The size at which memory, which grows linearly, would be full, or a step take too long; grown by MAX_GROWTH."""
    memory_per_second = max(last.memory - smaller.memory, 1) / (last.seconds - smaller.seconds)
    full = last.seconds + (max_memory - last.memory) / memory_per_second
    slow = last.seconds * MAX_STEP_SECONDS * TOLERANCE / last.step_seconds
    return max(min(full, slow, MAX_GROWTH * last.seconds), TOLERANCE * last.seconds)


def _max_memory(device: torch.device) -> int:
    """Bytes that this process may use."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return _process_status("VmRSS") + int(USED_SHARE * free_memory())


def _peak_memory(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _process_status("VmHWM")


def _reset_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _process_status(name: str) -> int:
    """Bytes of an entry of /proc/self/status."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name + ":"))
