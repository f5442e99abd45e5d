"""Checkpoints: tensors and plain types, written whole or not at all, loadable with `weights_only=True`."""

import os
import platform
import random
from pathlib import Path
from typing import Any

import lhotse
import torch

import asrtool
from asrtool.config import Config
from asrtool.errors import UserError
from asrtool.files import atomic_path
from asrtool.tensor_files import load_tensors, save_tensors
from asrtool.training.average import mean_of

WHAT = "a checkpoint of asrtool"


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state`. A full disk is a UserError that leaves the earlier checkpoints as they were."""
    save_tensors(path, state)


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The state in `path`; UserError when it is missing, damaged (its checksums differ) or not a checkpoint."""
    if not path.is_file():
        raise UserError(f"checkpoint not found: {path}; train first with `asrtool train`")
    state = load_tensors(path, WHAT, "use another one", device)
    if not isinstance(state.get("model"), dict) or not isinstance(state.get("config"), dict):
        raise UserError(f"{path} is not {WHAT}; use another one")
    return state


def check_weights(model: torch.nn.Module, state: dict[str, Any], path: Path) -> None:
    """Raises UserError that names the first of a checkpoint's weights that does not fit `model`."""
    ours, theirs = model.state_dict(), state["model"]
    for name in sorted({*ours, *theirs}):
        if name not in ours or name not in theirs or ours[name].shape != theirs[name].shape:
            shapes = [tuple(s[name].shape) if name in s else "nothing" for s in (ours, theirs)]
            fit = f"{name} is {shapes[0]} in the model and {shapes[1]} in the checkpoint"
            raise UserError(f"{path} does not fit the configuration: {fit}; use the config.yaml it was trained with")


def load_weights(model: torch.nn.Module, state: dict[str, Any], path: Path) -> None:
    """Put a checkpoint's weights into `model`, if they fit."""
    check_weights(model, state, path)
    model.load_state_dict(state["model"])


def random_states() -> dict[str, Any]:
    """The states of Python's and torch's generators; nothing draws from numpy's."""
    version, internal, gauss = random.getstate()
    states = {"python": [version, list(internal), gauss], "torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def restore_random_states(states: dict[str, Any]) -> None:
    """Undo whatever was drawn since `random_states`."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    torch.set_rng_state(states["torch"].cpu())
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])


def versions() -> dict[str, str]:
    """What made a checkpoint."""
    return {
        "asrtool": asrtool.__version__,
        "torch": str(torch.__version__),
        "lhotse": lhotse.__version__,
        "python": platform.python_version(),
    }


class Checkpoints:
    """The folder `checkpoints/` of an experiment: `step-*.pt` (those kept, and the last), `best.pt`, `averaged.pt`."""

    def __init__(self, folder: Path, keep_best: int, keep_last: int = 1):
        self.folder, self.keep_best, self.keep_last = folder, keep_best, keep_last

    def last(self) -> Path | None:
        """The checkpoint of the highest step."""
        return max(self.folder.glob("step-*.pt"), default=None)

    def name_last(self, name: str) -> Path:
        """Keep the last checkpoint under another name, too."""
        with atomic_path(self.folder / name) as temporary:
            os.link(self.last(), temporary)
        return self.folder / name

    def write(self, step: int, state: dict[str, Any], dev_losses: dict[int, float]) -> Path:
        """Write the checkpoint of `step`, point `best.pt` at the best one, and drop those no longer needed."""
        path = self._path(step)
        save(path, state)
        best = self._best_steps(dev_losses)
        if best and best[0] == step:
            with atomic_path(self.folder / "best.pt") as temporary:
                os.link(path, temporary)
        kept = {path, *map(self._path, best), *map(self._path, self._last_steps(dev_losses))}
        for old in [*self.folder.glob("step-*.pt"), *self.folder.glob(".tmp-*")]:  # the latter are of a killed process
            if old not in kept:
                old.unlink()
        return path

    def average(self, which: str, dev_losses: dict[int, float], config: Config) -> list[int]:
        """Write the mean of the "best" or the "last" checkpoints' weights as `averaged.pt`; returns their steps."""
        steps = self._best_steps(dev_losses) if which == "best" else self._last_steps(dev_losses)
        steps = sorted(step for step in steps if self._path(step).is_file())
        self.write_averaged(mean_of(load(self._path(step))["model"] for step in steps), steps, config)
        return steps

    def write_averaged(self, model: dict[str, torch.Tensor], steps: list[int], config: Config) -> None:
        """Write weights that are a mean as `averaged.pt`."""
        state = {"model": model, "config": config.model_dump(mode="json"), "versions": versions(), "steps": steps}
        save(self.folder / "averaged.pt", state)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.pt"

    def _best_steps(self, dev_losses: dict[int, float]) -> list[int]:
        return sorted(dev_losses, key=lambda step: (dev_losses[step], step))[: self.keep_best]

    def _last_steps(self, dev_losses: dict[int, float]) -> list[int]:
        return sorted(dev_losses)[-self.keep_last :]


def find(experiment: Path, which: str) -> Path:
    """The checkpoint that `which` names: "averaged" (else "best"), "best", "last", or a path."""
    folder = experiment / "checkpoints"
    if which == "last":
        return Checkpoints(folder, 1).last() or folder / "last"
    if which == "averaged":
        return folder / ("averaged.pt" if (folder / "averaged.pt").is_file() else "best.pt")
    return folder / "best.pt" if which == "best" else Path(which)
