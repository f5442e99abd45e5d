"""What training says of itself: a bar or plain lines, `log.jsonl`, TensorBoard, and a picture of the loss."""

import logging
import os
import sys
import time
from pathlib import Path

from asrtool.files import atomic_path, json_line, read_jsonl, write_jsonl
from asrtool.training_log import read_log

logger = logging.getLogger(__name__)


class Meter:
    """Means over the steps since the last report, whose `values` live in the checkpoint."""

    def __init__(self, values: list[dict[str, float]]) -> None:
        self.values = values
        self._start, self._steps, self._seconds = time.monotonic(), 0, 0.0

    def add(self, values: dict[str, float]) -> None:
        """The values of one step."""
        self.values.append(values)
        self._steps, self._seconds = self._steps + 1, self._seconds + values["seconds"]

    def take(self, ranks: int, steps_left: int) -> dict[str, float]:
        """What to report, then start afresh. Seconds are those of this rank's audio, times the number of ranks."""
        sums = {name: sum(v[name] for v in self.values) for name in self.values[0]}
        spent = max(time.monotonic() - self._start, 1e-9)
        taken = {name: sums[name] / len(self.values) for name in ("loss", "gradient_norm")}
        taken |= {"lr": self.values[-1]["lr"], "padding": 1 - sums["seconds"] / sums["padded"]}
        taken |= {"times_real_time": ranks * self._seconds / spent, "peak_memory_gb": peak_memory_gb()}
        taken |= {"hours_left": steps_left * spent / max(self._steps, 1) / 3600}
        self.values.clear()
        self._start, self._steps, self._seconds = time.monotonic(), 0, 0.0
        return taken


def peak_memory_gb() -> float:
    """The most memory that this process has had so far: on its GPU, if it has one; else resident."""
    import torch

    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 1e9
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:  # not getrusage: it counts the parent's
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024 / 1e9


class TrainingLog:
    """Writes every event to `log.jsonl` at once, and its numbers to TensorBoard under the same names.

    Only one rank may keep the files; the others, `keeps` false, have the lines alone.
    """

    def __init__(self, folder: Path, first_step: int, max_steps: int, keeps: bool = True):
        from tqdm import tqdm

        self._file = self._board = None
        if keeps:
            self._open(folder, first_step)
        self._terminal = keeps and sys.stderr.isatty()
        self._bar = tqdm(
            total=max_steps, initial=first_step, unit="step", disable=not self._terminal, dynamic_ncols=True
        )

    def _open(self, folder: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        path = folder / "log.jsonl"
        if path.is_file():
            write_jsonl(path, [row for row in read_log(path) if _stays(row, first_step)])
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - open as long as the training runs
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1)

    def tick(self) -> None:
        """One step is done."""
        self._bar.update()

    def event(self, kind: str, step: int, line: str | None, **values: object) -> None:
        """Record `values` under `kind` ("train", "dev", ...) and show `line`."""
        if self._file:
            self._file.write(json_line({"event": kind, "step": step, **values}))
            self._file.flush()
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(f"{kind}/{name}", value, step)
        if line is None:
            return
        if self._terminal and kind == "train":
            self._bar.set_postfix_str(line)
        else:
            logger.info(line)

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(self, *_) -> None:
        """Sync and close all."""
        self._bar.close()
        if self._file:
            self._board.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()


def _stays(row: object, first_step: int) -> bool:
    """Not so the events of steps that will now be taken again after a crash, an end that was none, and other lines."""
    step = row.get("step") if isinstance(row, dict) else None
    return isinstance(step, int) and step <= first_step and row.get("event") != "finished"


def _points(rows: list, event: str, name: str) -> list[tuple[float, float]]:
    """Step and value of `name` in the rows of an event; rows of a resumed log may hold anything."""
    events = (row for row in rows if isinstance(row, dict) and row.get("event") == event)
    pairs = [(row.get("step"), row.get(name)) for row in events]
    return [pair for pair in pairs if all(type(value) in (int, float) for value in pair)]


def plot_losses(log: Path, picture: Path) -> None:
    """Draw the losses and the learning rate of a `log.jsonl` by step, as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = list(read_jsonl(log))
    figure, axis = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for kind, label in (("train", "training loss"), ("dev", "dev loss")):
        points = _points(rows, kind, "loss")
        axis.plot(*zip(*points, strict=True), label=label, marker="." if kind == "dev" else None) if points else None
    axis.set(xlabel="step", ylabel="nats per unit", yscale="log", title=log.parent.name)
    axis.grid(alpha=0.3)
    rate = axis.twinx()
    points = _points(rows, "train", "lr")
    rate.plot(*zip(*points, strict=True), color="grey", linestyle=":", label="learning rate") if points else None
    rate.set_ylabel("learning rate")
    figure.legend(loc="outside upper right", ncols=3)
    with atomic_path(picture) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    pyplot.close(figure)
