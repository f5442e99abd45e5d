"""The checkpoint folder of a training: which checkpoints are written, kept, averaged and removed."""

import math
import os
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asrtool.checkpoint import load_checkpoint, save_checkpoint, step_checkpoints
from asrtool.errors import UserError
from asrtool.files import atomic_path
from asrtool.tensor_files import require_finite
from asrtool.training.average import mean_weights


class Checkpoints:
    """The folder `checkpoints/` of a training.

        step-00000900.pt   the last step, the `keep_best` steps of lowest dev loss, and the `keep_last` last validations
        best.pt            a hard link to the step of lowest dev loss
        averaged.pt        weights averaged over checkpoints or steps, written when the training finishes

    A state is a dict of tensors and plain types with the entries "model" (weights by name) and "config" (a dict).
    """

    def __init__(self, folder: Path, keep_best: int, keep_last: int = 1):
        self.folder = folder
        self.keep_best = keep_best
        self.keep_last = keep_last

    @property
    def averaged(self) -> Path:
        """The path of the averaged weights."""
        return self.folder / "averaged.pt"

    def all(self) -> list[Path]:
        """Returns the checkpoints of single steps, the lowest step first."""
        return step_checkpoints(self.folder)

    def last(self) -> Path | None:
        """Returns the checkpoint of the highest step, None in an empty folder."""
        return max(self.all(), default=None)

    def load(self, path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
        """Returns the state in a checkpoint; UserError as of `load_checkpoint`."""
        return load_checkpoint(path, device)

    def write(self, step: int, state: dict[str, Any], dev_losses: dict[int, float]) -> Path:
        """Writes the checkpoint of `step`, links `best.pt` to the best one, and removes those no longer needed.

        `dev_losses` are the dev losses of all validations so far, by step.
        """
        path = self._path(step)
        save_checkpoint(path, state)
        self.link_best(dev_losses)
        best = self._best_steps(dev_losses)
        kept = {path, *map(self._path, best), *map(self._path, self._last_steps(dev_losses))}
        for old in self.all():
            if old not in kept:
                old.unlink()
        return path

    def link_best(self, dev_losses: dict[int, float]) -> None:
        """Links `best.pt` to the existing checkpoint of lowest dev loss, if it is not linked already.

        A process that was killed between a checkpoint and its link has left a `best.pt` of an earlier step, or none.
        """
        for step in self._best_steps(dev_losses)[:1]:
            path = self._path(step)
            link = self.folder / "best.pt"
            if not (link.is_file() and link.samefile(path)):
                self._link(path, "best.pt")

    def link_last(self, name: str) -> Path:
        """Gives the last checkpoint a second name, which stays when later checkpoints remove the first one."""
        last = self.last()
        if last is None:
            raise UserError(f"{self.folder} has no checkpoint yet")
        return self._link(last, name)

    def average(self, which: str, dev_losses: dict[int, float], metadata: dict[str, Any]) -> list[int]:
        """Writes the mean weights of the "best" or the "last" checkpoints as `averaged.pt`; returns their steps."""
        steps = self._best_steps(dev_losses) if which == "best" else self._last_steps(dev_losses)
        steps = sorted(step for step in steps if self._path(step).is_file())
        weights = mean_weights(load_checkpoint(self._path(step))["model"] for step in steps)
        self.write_averaged(weights, steps, metadata)
        return steps

    def write_averaged(self, weights: dict[str, Tensor], steps: list[int], metadata: dict[str, Any]) -> None:
        """Writes averaged weights as `averaged.pt`. Raises UserError when they are not finite."""
        require_finite(weights, self.averaged, "it was not written; lower training.lr and train again")
        save_checkpoint(self.averaged, {"model": weights, "steps": steps, **metadata})

    def damage_hint(self, damaged: Path) -> str:
        """Returns what to do about a damaged checkpoint: delete it where an earlier one is intact, or start again."""
        for earlier in reversed(self.all()):
            if earlier < damaged and _is_intact(earlier):
                newer = " and ".join(path.name for path in self.all() if path > earlier)
                return f"delete {newer} and repeat the command: it resumes from {earlier.name}, which is intact"
        return "no earlier one is intact; give another --exp, or delete the experiment"

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.pt"

    def _link(self, path: Path, name: str) -> Path:
        with atomic_path(self.folder / name) as temporary:
            os.link(path, temporary)
        return self.folder / name

    def _best_steps(self, dev_losses: dict[int, float]) -> list[int]:
        """The steps of lowest dev loss whose checkpoints exist.

        Where a later checkpoint was deleted, those that it had replaced are gone, too.
        """
        existing = (step for step in rank_by_loss(dev_losses) if self._path(step).is_file())
        return list(islice(existing, self.keep_best))

    def _last_steps(self, dev_losses: dict[int, float]) -> list[int]:
        return sorted(dev_losses)[-self.keep_last :]


def rank_by_loss(dev_losses: dict[int, float]) -> list[int]:
    """Returns the steps of the validations, the lowest loss first, without those whose loss is not finite."""
    finite = (step for step, loss in dev_losses.items() if math.isfinite(loss))
    return sorted(finite, key=lambda step: (dev_losses[step], step))


def _is_intact(path: Path) -> bool:
    try:
        load_checkpoint(path)
    except UserError:
        return False
    return True
