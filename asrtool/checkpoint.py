"""Checkpoint files: tensors and plain types, written atomically, loadable with `weights_only=True`.

Training writes them (asrtool/training/checkpoint_folder.py); decoding, streaming, adaptation and export read them. A
pack has the weights as safetensors (asrtool/weight_files.py).
"""

import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lhotse
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

import asrtool
from asrtool.config import Config, ModelConfig
from asrtool.config_file import differences, flatten
from asrtool.config_types import NonNegativeInteger
from asrtool.errors import UserError
from asrtool.models.acoustic import AcousticModel
from asrtool.pack_manifest import WEIGHTS, is_pack, open_pack
from asrtool.tensor_files import DAMAGE, DamagedFileError, damaged_file, load_tensors, require_finite, save_tensors
from asrtool.weight_files import SAFETENSORS, load_safetensors

FILE_KIND = "a checkpoint of asrtool"
DAMAGED_HINT = "use another one"
STEP_FILE = re.compile(r"step-(\d{8})\.pt")
# Largest number of weights of a model: 40 GB in float32, many times the largest acoustic models that are published. A
# configuration with more is wrong, and would fill the memory.
MAX_PARAMETERS = 10**10

# Keys of the sections features and model that change neither the meaning of the weights nor recognition
TRAINING_KEYS = {
    "features.source",
    "model.activation_checkpointing",
    "model.attention_dropout",
    "model.dropout",
    "model.ff_dropout",
    "model.init.alpha",
    "model.init.exponent",
    "model.init.scheme",
    "model.init.scope",
    "model.layer_drop",
}


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes `state`. A full disk raises UserError and leaves the earlier checkpoints unchanged."""
    save_tensors(path, state)


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Returns the state in `path`: "model" has finite weights by name, "config" the configuration.

    Raises UserError when the file is missing, damaged (its checksums differ) or not a checkpoint.
    """
    if not path.is_file():
        raise UserError(f"checkpoint not found: {path}; train first with `asrtool train`")
    if path.suffix == SAFETENSORS:
        state = load_safetensors(path, FILE_KIND, DAMAGED_HINT, device)
    else:
        state = load_tensors(path, FILE_KIND, DAMAGED_HINT, device)
    weights = state.get("model")
    units = state.get("units", [])
    if not isinstance(weights, dict) or not isinstance(state.get("config"), dict):
        raise DamagedFileError(f"{path} is not {FILE_KIND}", DAMAGED_HINT)
    if not all(isinstance(name, str) and _is_real_dense(weight) for name, weight in weights.items()):
        raise DamagedFileError(f"{path} is not {FILE_KIND} (its weights are not all tensors by name)", DAMAGED_HINT)
    if not isinstance(units, list) or not all(isinstance(unit, str) for unit in units):
        raise DamagedFileError(f"{path} is not {FILE_KIND} (its units are not text)", DAMAGED_HINT)
    require_finite(weights, path, DAMAGED_HINT)
    return state


def _is_real_dense(weight: Any) -> bool:
    """Returns True for a dense tensor of real numbers that has its values in memory."""
    if not isinstance(weight, Tensor) or weight.layout != torch.strided:
        return False
    return not (weight.is_quantized or weight.is_complex() or weight.device.type == "meta")


def checkpoint_metadata(config: Config, units: Sequence[str], earlier_trainings: int = 0) -> dict[str, Any]:
    """Returns the entries of every acoustic checkpoint that describe its weights.

    `units` are the symbols of the model's outputs. `earlier_trainings` is the number of trainings that led, one after
    another, to the weights that the last one started from.
    """
    versions = {
        "asrtool": asrtool.__version__,
        "torch": str(torch.__version__),
        "lhotse": lhotse.__version__,
        "python": platform.python_version(),
    }
    facts = {"config": config.model_dump(mode="json"), "units": list(units), "versions": versions}
    return facts | {"earlier_trainings": earlier_trainings}


def count_earlier_trainings(state: dict[str, Any], path: Path) -> int:
    """Returns `earlier_trainings` of a checkpoint, 0 if it does not say. Raises DamagedFileError for anything else."""
    try:
        return TypeAdapter(NonNegativeInteger).validate_python(state.get("earlier_trainings", 0))
    except DAMAGE as error:
        raise damaged_file(path, "weights of a training", DAMAGED_HINT, error) from error


def require_sampling_rate(state: dict[str, Any], rate: int, path: Path) -> None:
    """Raises UserError for weights that learned from features of another sampling rate (Hz): their bins differ."""
    features = state["config"].get("features")
    trained_rate = features.get("sampling_rate") if isinstance(features, dict) else None
    if trained_rate not in (None, rate):
        hint = "see `asrtool prepare --resample`"
        raise UserError(f"{path} was trained at {trained_rate} Hz, and features.sampling_rate is {rate}; {hint}")


def model_changes(state: dict[str, Any], config: Config) -> list[str]:
    """Returns the keys of model and features in which a checkpoint's configuration differs, as "model.heads: 2 -> 8".

    Keys that matter in training alone are left out, and so are keys that the checkpoint does not have. A configuration
    that is not valid, such as one of an earlier version, has no differences.
    """
    trained = {name: state["config"][name] for name in ("features", "model") if name in state["config"]}
    try:
        before = Config.model_validate(trained)
    except ValidationError:
        return []
    changes = differences(before, Config(features=config.features, model=config.model))
    compared = flatten(trained).keys() - TRAINING_KEYS
    return [change for change in changes if change.split(":")[0] in compared]


def require_same_model(state: dict[str, Any], config: Config, path: Path) -> None:
    """Raises UserError for weights that were trained as another model: many keys do not change a weight's shape."""
    changes = model_changes(state, config)
    if changes:
        hint = "use the config.yaml it was trained with"
        raise UserError(f"{path} was trained with another model or other features ({'; '.join(changes)}); {hint}")


def require_matching_weights(model: torch.nn.Module, state: dict[str, Any], path: Path) -> None:
    """Raises UserError that names the first weight of a checkpoint that does not fit `model`."""
    model_weights = model.state_dict()
    saved_weights = state["model"]
    for name in sorted({*model_weights, *saved_weights}):
        model_shape = tuple(model_weights[name].shape) if name in model_weights else "nothing"
        saved_shape = tuple(saved_weights[name].shape) if name in saved_weights else "nothing"
        if model_shape != saved_shape:
            mismatch = f"{name[:100]} is {model_shape} in the model and {saved_shape} in the checkpoint"
            hint = "use the config.yaml it was trained with"
            raise UserError(f"{path} does not fit the configuration: {mismatch}; {hint}")


def require_same_units(state: dict[str, Any], symbols: Sequence[str], path: Path, hint: str) -> None:
    """Raises UserError unless the outputs of a checkpoint, where it names them, are the units `symbols`."""
    expected_units: list[str | None] = list(symbols)
    saved_units: list[str | None] = list(state.get("units") or symbols)
    if saved_units == expected_units:
        return
    pairs = zip([*saved_units, None], [*expected_units, None], strict=False)  # None: behind the last unit
    number, (saved, expected) = next((number, pair) for number, pair in enumerate(pairs) if pair[0] != pair[1])
    saved_shown, expected_shown = ("nothing" if unit is None else repr(unit[:50]) for unit in (saved, expected))
    there = f"unit {number} of {len(saved_units)} is {saved_shown} there"
    here = f"{expected_shown} of {len(expected_units)} here"
    raise UserError(f"{path} has other units than the tokenizer: {there}, and {here}; {hint}")


def load_weights(model: torch.nn.Module, state: dict[str, Any], path: Path) -> None:
    """Copies the weights of a checkpoint into `model`. Raises UserError when they do not fit."""
    require_matching_weights(model, state, path)
    model.load_state_dict(state["model"])


def meta_model(config: ModelConfig, num_bins: int, num_outputs: int) -> AcousticModel:
    """Returns the model of a configuration without memory for its weights, on torch's device "meta".

    Raises UserError for a model with more than MAX_PARAMETERS weights.
    """
    with torch.device("meta"):
        model = AcousticModel(config, num_bins, num_outputs)
    count = sum(parameter.numel() for parameter in model.parameters())
    if count > MAX_PARAMETERS:
        raise UserError(f"the configured model has {count:,} weights; at most {MAX_PARAMETERS:,} are supported")
    return model


def build_model(
    config: ModelConfig, num_bins: int, num_outputs: int, state: dict[str, Any], path: Path
) -> AcousticModel:
    """Returns the model of a configuration with the weights of a checkpoint.

    The weights are compared with the model before memory is allocated for it. Raises UserError when they do not fit.
    """
    require_matching_weights(meta_model(config, num_bins, num_outputs), state, path)
    model = AcousticModel(config, num_bins, num_outputs)
    model.load_state_dict(state["model"])
    return model


def step_checkpoints(folder: Path) -> list[Path]:
    """Returns the checkpoints of single steps in a folder, the lowest step first."""
    return sorted(path for path in folder.glob("step-*.pt") if STEP_FILE.fullmatch(path.name))


def find_checkpoint(experiment: Path, name: str) -> Path:
    """Returns the path of the checkpoint `name`: "averaged" (else "best"), "best", "last", a file name, or a path.

    A checkpoint of the experiment can be named by its file ("step-00000900.pt"), without .pt, or by its step ("900"),
    and is taken before a file of this name in the current folder. A pack has one, "averaged". Raises UserError with the
    names that exist when `name` is not one of them, nor a path.
    """
    if is_pack(experiment):
        return _checkpoint_of_pack(experiment, name)
    folder = experiment / "checkpoints"
    if name == "last":
        return max(step_checkpoints(folder), default=folder / "last")
    if name == "averaged":
        return folder / ("averaged.pt" if (folder / "averaged.pt").is_file() else "best.pt")
    if name == "best":
        return folder / "best.pt"
    if name != Path(name).name:
        return Path(name)
    for file in (name, f"{name}.pt", f"step-{name:0>8}.pt"):
        if (folder / file).is_file():
            return folder / file
    if Path(name).is_file():
        return Path(name)
    existing = ", ".join(sorted(path.stem for path in folder.glob("*.pt"))) or "nothing"
    raise UserError(f"checkpoint not found: {name}; {folder} has {existing}; or give the path of another one")


def _checkpoint_of_pack(pack: Path, name: str) -> Path:
    if name in ("averaged", WEIGHTS):
        return pack / WEIGHTS
    if Path(name).is_file():
        return Path(name)
    hint = "leave --checkpoint out, or give the path of another one"
    raise UserError(f"checkpoint not found: {name}; {pack} is a pack, which has one checkpoint; {hint}")


def initial_checkpoint(path: Path) -> Path:
    """Returns the checkpoint to start a training from: `path`, which may be an experiment or a pack.

    A pack is verified. Raises UserError for a folder that is neither.
    """
    pack = path if path.is_dir() else path.parent
    if is_pack(pack) and path in (pack, pack / WEIGHTS):
        open_pack(pack)
        return pack / WEIGHTS
    if not path.is_dir():
        return path
    if not (path / "config.yaml").is_file():
        raise UserError(f"{path} is neither a checkpoint nor an experiment or a pack; give one of them")
    return find_checkpoint(path, "averaged")
