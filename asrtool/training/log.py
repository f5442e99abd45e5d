"""What a training logs: `log.jsonl`, trackers, a progress bar or log lines, and the values of its steps."""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from asrtool.files import json_line, write_jsonl
from asrtool.logs import shows_bars
from asrtool.readers import read_training_log
from asrtool.training.trackers import RunFacts, Tracker, flat_numbers, open_trackers

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepSummary:
    """The values of the steps since the last report, by name."""

    sums: dict[str, float]
    means: dict[str, float]
    last: dict[str, float]  # of the last step
    timed_sums: dict[str, float]  # sums over the steps that this process took in `seconds`, without resumed ones
    seconds: float  # wall-clock time since the last report
    seconds_per_step: float


class Meter:
    """Collects the values of the steps since the last report.

    `values` has a dict for each step. It is the caller's list, which a checkpoint can save and a resumed training can
    pass in again; the time that its steps took is not known then.
    """

    def __init__(self, values: list[dict[str, float]] | None = None) -> None:
        self.values = [] if values is None else values
        self._start = time.monotonic()
        self._timed_steps = 0

    def add(self, values: dict[str, float]) -> None:
        """Adds the values of one step; every step has the same names."""
        self.values.append(values)
        self._timed_steps += 1

    @property
    def seconds(self) -> float:
        """Wall-clock time since the last report."""
        return time.monotonic() - self._start

    def take(self) -> StepSummary:
        """Returns the summary of the steps since the last report, and starts again. At least one step was added."""
        seconds = max(self.seconds, 1e-9)
        sums = {name: sum(step[name] for step in self.values) for name in self.values[0]}
        timed = self.values[len(self.values) - self._timed_steps :]
        summary = StepSummary(
            sums=sums,
            means={name: total / len(self.values) for name, total in sums.items()},
            last=dict(self.values[-1]),
            timed_sums={name: sum(step[name] for step in timed) for name in sums},
            seconds=seconds,
            seconds_per_step=seconds / max(self._timed_steps, 1),
        )
        self.values.clear()
        self._start = time.monotonic()
        self._timed_steps = 0
        return summary


def peak_memory_gb() -> float:
    """Returns the largest memory of this process so far: on its GPU, if it has one; else resident."""
    import torch

    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 1e9
    # not getrusage, which counts the memory of the parent process
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024 / 1e9


class TrainingLog:
    """Writes every event to `log.jsonl` at once, and its numbers to the trackers under the same names.

    Only one rank may write the files; the others, with `writes_files` False, only show log lines. `settings` are
    recorded by trackers.
    """

    def __init__(
        self,
        folder: Path,
        first_step: int,
        max_steps: int,
        writes_files: bool = True,
        trackers: Sequence[str] = ("tensorboard",),
        settings: Mapping[str, object] | None = None,
    ):
        from tqdm import tqdm

        self._file: IO[str] | None = None
        self._trackers: list[Tracker] = []
        if writes_files:
            self._open(folder, first_step)
            self._trackers = open_trackers(trackers, RunFacts(folder, first_step, settings or {}))
        self._shows_bar = writes_files and shows_bars()
        self._bar = tqdm(
            total=max_steps, initial=first_step, unit="step", disable=not self._shows_bar, dynamic_ncols=True
        )

    def _open(self, folder: Path, first_step: int) -> None:
        path = folder / "log.jsonl"
        if path.is_file():
            write_jsonl(path, [row for row in read_training_log(path) if _is_kept(row, first_step)])
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - open as long as the training runs

    def advance(self) -> None:
        """Moves the progress bar by one step."""
        self._bar.update()

    def event(self, kind: str, step: int, line: str | None, **values: object) -> None:
        """Records `values` under `kind` ("train", "dev", ...) with the time, and shows `line`."""
        if self._file:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            self._file.write(json_line({"event": kind, "step": step, "time": now, **values}))
            self._file.flush()
            numbers = flat_numbers(kind, values)
            for tracker in self._trackers if numbers else []:
                tracker.log(numbers, step)
        if line is None:
            return
        if self._shows_bar and kind == "train":
            self._bar.set_postfix_str(line)
        else:
            logger.info(line)

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(self, *_: object) -> None:
        """Syncs and closes the files, and ends the runs of the trackers."""
        self._bar.close()
        if self._file:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        for tracker in self._trackers:
            tracker.close()


def _is_kept(row: Mapping[str, object] | object, first_step: int) -> bool:
    """Returns True for the events of a resumed training's log that stay.

    Events of steps that will be taken again, an earlier end of the training, and anything that is not an event go.
    """
    if not isinstance(row, dict):
        return False
    step = row.get("step")
    return isinstance(step, int) and step <= first_step and row.get("event") != "finished"
