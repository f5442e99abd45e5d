"""Checkpoints: tensors and plain types, written whole or not at all, loadable with `weights_only=True`."""

import math
import os
import platform
import random
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import lhotse
import torch
from torch import Tensor

import asrtool
from asrtool.config import Config
from asrtool.errors import UserError
from asrtool.files import atomic_path
from asrtool.models.acoustic import AcousticModel
from asrtool.tensor_files import Damaged, load_tensors, require_finite, save_tensors

WHAT = "a checkpoint of asrtool"
ANOTHER = "use another one"
STEP = re.compile(r"step-(\d{8})\.pt")
# Weights of a model at most: 40 GB in float32, many times the largest acoustic models that are published. More is a
# wrong configuration, which would fill the memory.
MAX_PARAMETERS = 10**10


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state`. A full disk is a UserError that leaves the earlier checkpoints as they were."""
    save_tensors(path, state)


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The state in `path`: "model" has finite weights by name, "config" a configuration.

    UserError when it is missing, damaged (its checksums differ) or not a checkpoint.
    """
    if not path.is_file():
        raise UserError(f"checkpoint not found: {path}; train first with `asrtool train`")
    state = load_tensors(path, WHAT, ANOTHER, device)
    weights, units = state.get("model"), state.get("units", [])
    if not isinstance(weights, dict) or not isinstance(state.get("config"), dict):
        raise Damaged(f"{path} is not {WHAT}", ANOTHER)
    if not all(isinstance(name, str) and _is_plain(weight) for name, weight in weights.items()):
        raise Damaged(f"{path} is not {WHAT} (its weights are not all tensors by name)", ANOTHER)
    if not isinstance(units, list) or not all(isinstance(unit, str) for unit in units):
        raise Damaged(f"{path} is not {WHAT} (its units are not text)", ANOTHER)
    require_finite(weights, path, ANOTHER)
    return state


def _is_plain(weight: Any) -> bool:
    """Whether this is a tensor with values of its own, which are numbers in a plain layout."""
    if not isinstance(weight, Tensor) or weight.layout != torch.strided:
        return False
    return not (weight.is_quantized or weight.is_complex() or weight.device.type == "meta")


def check_sampling_rate(state: dict[str, Any], rate: int, path: Path) -> None:
    """Raises UserError for weights that learned from features of another sampling rate (Hz): their bins differ."""
    features = state["config"].get("features")
    there = features.get("sampling_rate") if isinstance(features, dict) else None
    if there not in (None, rate):
        hint = "see `asrtool prepare --resample`"
        raise UserError(f"{path} was trained at {there} Hz, and features.sampling_rate is {rate}; {hint}")


def check_weights(model: torch.nn.Module, state: dict[str, Any], path: Path) -> None:
    """Raises UserError that names the first of a checkpoint's weights that does not fit `model`."""
    ours, theirs = model.state_dict(), state["model"]
    for name in sorted({*ours, *theirs}):
        if name not in ours or name not in theirs or ours[name].shape != theirs[name].shape:
            shapes = [tuple(s[name].shape) if name in s else "nothing" for s in (ours, theirs)]
            fit = f"{name[:100]} is {shapes[0]} in the model and {shapes[1]} in the checkpoint"
            raise UserError(f"{path} does not fit the configuration: {fit}; use the config.yaml it was trained with")


def check_units(state: dict[str, Any], symbols: Sequence[str], path: Path, hint: str) -> None:
    """Raises UserError unless the outputs of a checkpoint, as far as it names them, are the units `symbols`."""
    theirs, ours = state.get("units") or list(symbols), list(symbols)
    if theirs == ours:
        return
    pairs = zip([*theirs, None], [*ours, None], strict=False)  # None: there are no more
    number, (old, new) = next((number, pair) for number, pair in enumerate(pairs) if pair[0] != pair[1])
    shown = ["nothing" if unit is None else repr(unit[:50]) for unit in (old, new)]
    other = f"unit {number} of {len(theirs)} is {shown[0]} there, and {shown[1]} of {len(ours)} here"
    raise UserError(f"{path} has other units than the tokenizer: {other}; {hint}")


def load_weights(model: torch.nn.Module, state: dict[str, Any], path: Path) -> None:
    """Put a checkpoint's weights into `model`, if they fit."""
    check_weights(model, state, path)
    model.load_state_dict(state["model"])


def sketch(config: Config, units: int) -> AcousticModel:
    """The model of a configuration without memory for its weights. UserError when they are more than MAX_PARAMETERS."""
    with torch.device("meta"):
        model = AcousticModel(config, units)
    count = sum(parameter.numel() for parameter in model.parameters())
    if count > MAX_PARAMETERS:
        raise UserError(f"the configured model has {count:,} weights; at most {MAX_PARAMETERS:,} are supported")
    return model


def build_model(config: Config, units: int, state: dict[str, Any], path: Path) -> AcousticModel:
    """The model of a configuration with a checkpoint's weights; no memory is taken for one that they do not fit."""
    check_weights(sketch(config, units), state, path)
    model = AcousticModel(config, units)
    model.load_state_dict(state["model"])
    return model


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
        for device, state in zip(range(torch.cuda.device_count()), states["cuda"], strict=False):
            torch.cuda.set_rng_state(state.cpu(), device)


def described(config: Config, units: Sequence[str]) -> dict[str, Any]:
    """What every checkpoint says of itself beside its weights: `units` are the symbols of the model's outputs."""
    return {"config": config.model_dump(mode="json"), "units": list(units), "versions": versions()}


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

    def all(self) -> list[Path]:
        """The checkpoints of steps, the lowest first."""
        return sorted(path for path in self.folder.glob("step-*.pt") if STEP.fullmatch(path.name))

    def last(self) -> Path | None:
        """The checkpoint of the highest step."""
        return max(self.all(), default=None)

    def beyond(self, path: Path) -> str:
        """What to do about the damaged checkpoint `path`: delete it, since an earlier one is whole, or begin again."""
        for earlier in reversed(self.all()):
            if earlier < path and is_whole(earlier):
                newer = " and ".join(p.name for p in self.all() if p > earlier)
                return f"delete {newer} and repeat the command: it goes on from {earlier.name}, which is whole"
        return "no earlier one is whole; give another --exp, or delete the experiment"

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
        for old in self.all():
            if old not in kept:
                old.unlink()
        return path

    def average(self, which: str, dev_losses: dict[int, float], config: Config, units: Sequence[str] = ()) -> list[int]:
        """Write the mean of the "best" or the "last" checkpoints' weights as `averaged.pt`; returns their steps."""
        steps = self._best_steps(dev_losses) if which == "best" else self._last_steps(dev_losses)
        steps = sorted(step for step in steps if self._path(step).is_file())
        self.write_averaged(mean_of(load(self._path(step))["model"] for step in steps), steps, config, units)
        return steps

    def write_averaged(
        self, model: dict[str, Tensor], steps: list[int], config: Config, units: Sequence[str] = ()
    ) -> None:
        """Write weights that are a mean as `averaged.pt`. UserError when they are not finite."""
        path = self.folder / "averaged.pt"
        require_finite(model, path, "it was not written; lower training.lr and train again")
        save(path, {"model": model, "steps": steps, **described(config, units)})

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.pt"

    def _best_steps(self, dev_losses: dict[int, float]) -> list[int]:
        return ranked(dev_losses)[: self.keep_best]

    def _last_steps(self, dev_losses: dict[int, float]) -> list[int]:
        return sorted(dev_losses)[-self.keep_last :]


def is_whole(path: Path) -> bool:
    """Whether a checkpoint can be read, with checksums that fit and weights that are finite."""
    try:
        load(path)
    except UserError:
        return False
    return True


def find(experiment: Path, which: str) -> Path:
    """The checkpoint `which`: "averaged" (else "best"), "best", "last", one inside the experiment, or a path.

    One inside the experiment is named as its file ("step-00000900.pt"), without .pt, or by its step ("900"). UserError
    with the names that there are when `which` is none of them, and no path.
    """
    folder = experiment / "checkpoints"
    if which == "last":
        return Checkpoints(folder, 1).last() or folder / "last"
    if which == "averaged":
        return folder / ("averaged.pt" if (folder / "averaged.pt").is_file() else "best.pt")
    if which == "best":
        return folder / "best.pt"
    names = [which, f"{which}.pt", f"step-{which:0>8}.pt"]
    if Path(which).is_file() or which != Path(which).name:
        return Path(which)
    for name in names:
        if (folder / name).is_file():
            return folder / name
    there = ", ".join(sorted(path.stem for path in folder.glob("*.pt"))) or "nothing"
    raise UserError(f"checkpoint not found: {which}; {folder} has {there}; or give the path of another one")


def mean_of(models: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of weights by name, one model in memory at a time; summed in float64."""
    sums, kinds, count = {}, {}, 0
    for model in models:
        count += 1
        for name, tensor in model.items():
            sums[name] = sums[name] + tensor.double() if name in sums else tensor.double()
            kinds[name] = tensor.dtype
    return {name: (tensor / count).to(kinds[name]) for name, tensor in sums.items()}


def ranked(dev_losses: dict[int, float]) -> list[int]:
    """The steps of validations, the best first; one whose loss is not finite has no place."""
    finite = (step for step, loss in dev_losses.items() if math.isfinite(loss))
    return sorted(finite, key=lambda step: (dev_losses[step], step))
