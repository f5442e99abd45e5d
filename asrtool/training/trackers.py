"""Experiment trackers: TensorBoard, Weights & Biases and MLflow behind one small interface.

`training.trackers` names them. Only the first rank has trackers. TensorBoard writes files in the experiment folder. The
others may use a network, so that each runs in a thread of its own: a slow server never delays a step, and an error is
one warning, after which the training continues without that tracker.

Addresses and keys come from the environment variables of wandb and MLflow, never from the configuration.
"""

import importlib.util
import logging
import queue
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from asrtool.errors import UserError
from asrtool.files import write_text
from asrtool.logs import printable

logger = logging.getLogger(__name__)

MAX_WAITING = 10_000  # events that wait for a tracker, some megabytes; a training of days has fewer
CLOSE_SECONDS = 30.0  # at the end of a training, for what was not sent yet
MODULES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}
FOLDER = "trackers"  # in the experiment folder: the id of each tracker's run
SECRET = re.compile(r"(?<=//)[^/@\s]+@|\b[A-Za-z0-9_-]{30,}\b")  # USER:PASSWORD@ in addresses; keys


@dataclass(frozen=True)
class RunFacts:
    """What a tracker records about a training besides its values."""

    folder: Path  # the experiment folder
    first_step: int = 0  # the step that a resumed training starts from; values of later steps are recorded again
    config: Mapping[str, object] = field(default_factory=dict)  # nested, as in config.yaml

    @property
    def name(self) -> str:
        """The name of the run: the names of the experiment folder and of the folder above it."""
        return "/".join(self.folder.absolute().parts[-2:])

    def read_run(self, tracker: str) -> str | None:
        """Returns the id of the run that an earlier part of this training has started, or None."""
        path = self.folder / FOLDER / tracker
        return path.read_text(encoding="utf-8").strip() or None if path.is_file() else None

    def write_run(self, tracker: str, run: str) -> None:
        """Keeps the id of a run, which a resumed training continues."""
        path = self.folder / FOLDER / tracker
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, run + "\n")


class Tracker(Protocol):
    """Records the values of a training."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Records numbers by their names, such as "train/loss", for a step."""

    def close(self) -> None:
        """Writes or sends what is left, and ends the run."""


class TensorBoardTracker:
    """Event files in the folder `tensorboard` of the experiment."""

    def __init__(self, facts: RunFacts):
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(facts.folder / "tensorboard"), purge_step=facts.first_step + 1)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Writes scalars."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()


class BackgroundTracker:
    """Runs another tracker in a thread. Its errors are one warning, and end it; they never end the training."""

    def __init__(self, name: str, create: Callable[[], Tracker], max_waiting: int = MAX_WAITING):
        """`create` starts the tracker; it is called in the thread, because it may wait for a server."""
        self.name = name
        self._events: queue.Queue[tuple[Mapping[str, float], int] | None] = queue.Queue(max_waiting)
        self._failed = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(create,), name=f"tracker {name}", daemon=True)
        self._thread.start()

    def _run(self, create: Callable[[], Tracker]) -> None:
        try:
            tracker = create()
            while event := self._events.get():
                tracker.log(*event)
            tracker.close()
        except Exception as error:  # of a library, or of what it calls: any
            self._warn(describe(error))

    def _warn(self, problem: str) -> None:
        if not self._failed.is_set():
            self._failed.set()
            logger.warning(f"{self.name} stopped recording, the training goes on: {problem}")

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Puts the values into the queue, and returns at once."""
        if self._failed.is_set():
            return
        try:
            self._events.put_nowait((values, step))
        except queue.Full:
            self._warn(f"{self._events.maxsize} events wait for it")

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Waits for what is not recorded yet, at most `seconds`."""
        if self._failed.is_set():
            return
        try:
            self._events.put(None, timeout=seconds)
            self._thread.join(seconds)
        except queue.Full:
            pass
        if self._thread.is_alive():
            self._warn(f"not everything was recorded within {seconds:g} s")


def describe(error: BaseException) -> str:
    """Returns the type and the first line of an error, without passwords in addresses and what may be a key."""
    text = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {SECRET.sub('***', printable(text))[:300]}"


def open_trackers(names: Sequence[str], facts: RunFacts) -> list[Tracker]:
    """Starts the trackers of `training.trackers`. UserError if the package of one is not installed."""
    require_trackers(names)
    return [_open(name, facts) for name in dict.fromkeys(names)]


def require_trackers(names: Sequence[str]) -> None:
    """Raises UserError if the package of a tracker is not installed."""
    for name in names:
        if importlib.util.find_spec(MODULES[name]) is None:
            raise UserError(
                f"training.trackers has {name}, which is not installed; pip install 'asrtool[{name}]', or leave it out"
            )


def _open(name: str, facts: RunFacts) -> Tracker:
    if name == "tensorboard":
        return TensorBoardTracker(facts)
    from asrtool.training.remote_trackers import REMOTE_TRACKERS

    return BackgroundTracker(name, lambda: REMOTE_TRACKERS[name](facts))


def flat_numbers(prefix: str, values: Mapping[str, object]) -> dict[str, float]:
    """Returns the numbers among values and nested values by their names: {"dev/loss": 1.0, "dev/losses/clean": 0.9}."""
    numbers: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            numbers |= flat_numbers(f"{prefix}/{name}", value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            numbers[f"{prefix}/{name}"] = value
    return numbers
