"""Checks of the checkpoints of an experiment: readable, finite, of this model and these units, and up to date."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asrtool.checkpoint import load_checkpoint, meta_model, require_matching_weights, require_same_units
from asrtool.config import Config
from asrtool.config_file import differences
from asrtool.doctor.findings import (
    Finding,
    Report,
    Severity,
    finding_of_error,
    in_folder,
    path_from,
    shell_command,
    without_subject,
)
from asrtool.doctor.work_folders import relative_manifests, training_folder
from asrtool.errors import AsrtoolError
from asrtool.tensor_files import DamagedFileError
from asrtool.text.outputs import outputs_of
from asrtool.text.tokenizer import Tokenizer
from asrtool.training.experiment_folder import CHANGEABLE_SETTINGS

MAX_CHANGES_SHOWN = 10


@dataclass(frozen=True)
class System:
    """The parts of a trained system that could be opened, None where one could not."""

    folder: Path
    config: Config | None
    tokenizer: Tokenizer | None

    @property
    def num_outputs(self) -> int | None:
        """The number of outputs of the model."""
        if not self.config or not self.tokenizer:
            return None
        return outputs_of(self.config, self.tokenizer)

    @property
    def resume_command(self) -> str:
        """The command that continues the training, in the folder that its manifests are relative to."""
        work = training_folder(self.folder, self.config)
        folder = path_from(work, self.folder)
        command = shell_command("asrtool", "train", folder / "config.yaml", "--exp", folder, "--resume")
        lost = relative_manifests(self.config) if work is None else []
        return f"{command} (in the folder with {shell_command(*lost)})" if lost else in_folder(work, command)


class DamagedWeights(Exception):
    """A file of weights cannot be read: the message says why, and `code` is the code of the finding."""

    def __init__(self, path: Path, problem: object):
        super().__init__(without_subject(str(problem), str(path)))
        self.code = "weights-not-finite" if "not finite" in str(problem) else "damaged-weights"


def read_weights(path: Path) -> Mapping[str, Any]:
    """Returns the state in a file of weights. Raises DamagedWeights, whatever the file holds."""
    try:
        return load_checkpoint(path)
    except DamagedFileError as error:
        raise DamagedWeights(path, error.problem) from error
    except Exception as error:  # any: the file may hold anything
        raise DamagedWeights(path, error) from error


def check_weights(report: Report, system: System, path: Path) -> None:
    """Adds the findings about the weights of a pack."""
    try:
        report.add(check_fit(system, path, read_weights(path)))
    except DamagedWeights as error:
        remedy = "copy the whole pack again, or write it again with `asrtool pack`"
        report.add(Finding(error.code, Severity.ERROR, str(path), str(error), remedy))


def check_fit(system: System, path: Path, state: Mapping[str, Any]) -> Iterator[Finding]:
    """Yields an error where weights do not fit the configuration or the tokenizer, a warning for another config."""
    config, tokenizer = system.config, system.tokenizer
    if tokenizer:
        try:
            hint = f"put back the tokenizer.json that {path.name} was trained with"
            require_same_units(dict(state), tokenizer.symbols, path, hint)
        except AsrtoolError as error:
            yield finding_of_error("other-units", path, error)
    if config and tokenizer:
        try:
            outputs = outputs_of(config, tokenizer)
            model = meta_model(config.model, config.features.num_bins, outputs)
            require_matching_weights(model, dict(state), path)
        except AsrtoolError as error:
            yield finding_of_error("other-model", path, error)
    if config:
        yield from _config_findings(system, config, path, state["config"])


def _config_findings(system: System, config: Config, path: Path, trained: dict) -> Iterator[Finding]:
    try:
        changes = differences(Config.model_validate(trained), config)
    except ValueError:
        return  # of an earlier version of asrtool, whose keys were others
    changes = [change for change in changes if change.split(":")[0] not in CHANGEABLE_SETTINGS]
    if changes:
        cause = f"{path.name} was trained with other settings than those in config.yaml"
        remedy = "put back the config.yaml of the training, or train again into another --exp"
        shown = tuple(changes[:MAX_CHANGES_SHOWN])
        subject = str(system.folder / "config.yaml")
        yield Finding("config-changed", Severity.ERROR, subject, cause, remedy, len(changes), shown)


def check_versions(report: Report, path: Path, versions: object) -> None:
    """Adds a note if the system was written by other versions of asrtool or torch than those in use."""
    import torch

    import asrtool

    current = {"asrtool": asrtool.__version__, "torch": str(torch.__version__)}
    if not isinstance(versions, dict):
        return
    others = tuple(
        f"{name}: {versions[name]}, now {version}"
        for name, version in current.items()
        if isinstance(versions.get(name), str) and _release(versions[name]) != _release(version)
    )
    if others:
        cause = "the system was written by other versions; results may differ in the last digits"
        remedy = "nothing to do, unless results must be repeated exactly: install those versions"
        report.add(Finding("other-versions", Severity.NOTE, str(path), cause, remedy, len(others), others))


def _release(version: str) -> str:
    return version.partition("+")[0]
