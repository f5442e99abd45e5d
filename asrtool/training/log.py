"""What training says of itself: a bar or plain lines, `log.jsonl`, TensorBoard, and a picture of the loss."""

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from asrtool.files import atomic_path, read_jsonl, write_jsonl
from asrtool.progress import say


class TrainingLog:
    """Writes every event to `log.jsonl` at once, and its numbers to TensorBoard under the same names."""

    def __init__(self, folder: Path, first_step: int, max_steps: int):
        from torch.utils.tensorboard import SummaryWriter
        from tqdm import tqdm

        self.path = folder / "log.jsonl"
        if self.path.is_file():
            write_jsonl(self.path, [row for row in _whole_rows(self.path) if _stays(row, first_step)])
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 - open as long as the training runs
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1)
        self._terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=max_steps, initial=first_step, unit="step", disable=not self._terminal, dynamic_ncols=True
        )

    def tick(self) -> None:
        """One step is done."""
        self._bar.update()

    def event(self, kind: str, step: int, line: str, **values: object) -> None:
        """Record `values` under `kind` ("train", "dev", ...) and show `line`."""
        self._file.write(json.dumps({"event": kind, "step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            if isinstance(value, int | float):
                self._board.add_scalar(f"{kind}/{name}", value, step)
        if self._terminal and kind == "train":
            self._bar.set_postfix_str(line)
        else:
            say(line)

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(self, *_) -> None:
        """Sync and close all."""
        self._bar.close()
        self._board.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


def _stays(row: dict, first_step: int) -> bool:
    """Not so the events of steps that will now be taken again after a crash, nor an end that was none."""
    return row.get("step", 0) <= first_step and row.get("event") != "finished"


def _whole_rows(path: Path) -> Iterable[dict]:
    """The rows of the log but for a last one that a crash cut short."""
    text = path.read_text(encoding="utf-8")
    if text and not text.endswith("\n"):
        path.write_text(text[: text.rfind("\n") + 1], encoding="utf-8")
    return list(read_jsonl(path))


def plot_losses(log: Path, picture: Path) -> None:
    """Draw the losses and the learning rate of a `log.jsonl` by step, as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = list(read_jsonl(log))
    figure, axis = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for kind, label in (("train", "training loss"), ("dev", "dev loss")):
        points = [(row["step"], row["loss"]) for row in rows if row["event"] == kind]
        axis.plot(*zip(*points, strict=True), label=label, marker="." if kind == "dev" else None) if points else None
    axis.set(xlabel="step", ylabel="nats per unit", yscale="log", title=log.parent.name)
    axis.grid(alpha=0.3)
    rate = axis.twinx()
    points = [(row["step"], row["lr"]) for row in rows if row["event"] == "train"]
    rate.plot(*zip(*points, strict=True), color="grey", linestyle=":", label="learning rate") if points else None
    rate.set_ylabel("learning rate")
    figure.legend(loc="outside upper right", ncols=3)
    with atomic_path(picture) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    pyplot.close(figure)
