"""Checks of all checkpoints of a training: which are damaged, which are missing, and what fixes them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asrtool.doctor.findings import Finding, Report, Severity, shell_command
from asrtool.doctor.result_checks import result_folders
from asrtool.doctor.weights_checks import DamagedWeights, System, check_fit, read_weights
from asrtool.errors import AsrtoolError
from asrtool.readers import read_training_log
from asrtool.scoring.folder import read_result_facts

AVERAGED = "averaged.pt"


@dataclass
class Checkpoints:
    """The checkpoints of a training.

    `states` are those that could be read, by name, without their weights. `damaged` are the others, each with all
    names of its file. `averaged` are the steps of the average by the log, None if the training has not ended.
    """

    folder: Path
    averaged: list[int] | None = None
    states: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    damaged: list[tuple[list[Path], DamagedWeights]] = field(default_factory=list)

    def lost_steps(self) -> list[int]:
        """Returns the steps of the average whose checkpoints are missing or damaged."""
        return [step for step in self.averaged or () if f"step-{step:08d}.pt" not in self.states]


def check_checkpoints(report: Report, system: System) -> dict[str, Mapping[str, Any]]:
    """Adds the findings about all checkpoints; returns the states that could be read, without weights, by name."""
    checkpoints = Checkpoints(system.folder / "checkpoints", _averaged_steps(system.folder))
    for paths in _files(checkpoints.folder):
        try:
            state = read_weights(paths[0])
        except DamagedWeights as error:
            checkpoints.damaged.append((paths, error))
            continue
        report.add(check_fit(system, paths[0], state))
        kept = {name: state.get(name) for name in ("versions", "progress", "steps", "device_hours")}
        checkpoints.states |= {path.name: kept for path in paths}
    for paths, problem in checkpoints.damaged:
        remedy = _remedy(system, checkpoints, paths)
        report.add(Finding(problem.code, Severity.ERROR, str(paths[0]), str(problem), remedy))
    if not checkpoints.states and not checkpoints.damaged:
        cause = "there is no checkpoint; the training stopped before its first one"
        report.add(Finding("no-checkpoint", Severity.ERROR, str(checkpoints.folder), cause, system.resume_command))
    else:
        _check_missing(report, system, checkpoints)
    return checkpoints.states


def _files(folder: Path) -> list[list[Path]]:
    """Returns the names of each file: best.pt is a hard link to the file of a step."""
    by_inode: dict[int, list[Path]] = {}
    for path in sorted(folder.glob("*.pt"), reverse=True):
        by_inode.setdefault(path.lstat().st_ino, []).append(path)  # of a symbolic link its own: its target may be gone
    return list(by_inode.values())


def _averaged_steps(experiment: Path) -> list[int] | None:
    """Returns the steps of the average by the last end of the training in the log, None without an end."""
    path = experiment / "log.jsonl"
    try:
        rows = read_training_log(path) if path.is_file() else []
    except (AsrtoolError, OSError):
        return None  # another check says so
    ends = [row.get("averaged") for row in rows if isinstance(row, dict) and row.get("event") == "finished"]
    steps = ends[-1] if ends else None
    return [step for step in steps if isinstance(step, int)] if isinstance(steps, list) else None


def _remedy(system: System, checkpoints: Checkpoints, paths: list[Path]) -> str:
    """Returns the remedy for a damaged file: an intact average is kept, since a new one may be of other steps."""
    remove = shell_command("rm", *paths)
    if paths[0].name == AVERAGED:
        return f"{remove}; {average_again(system, checkpoints)}"
    if AVERAGED not in checkpoints.states or checkpoints.averaged is None:
        return f"{remove}; {system.resume_command}, which continues from the newest intact checkpoint"
    steps = [step for step in checkpoints.averaged if f"step-{step:08d}.pt" in {path.name for path in paths}]
    kept = f"{AVERAGED} is intact, and decoding uses it"
    if steps:
        kept += f"; do not average again: a new average would lack step {steps[0]:,}, and differ"
    return f"{remove} ({kept})"


def average_again(system: System, checkpoints: Checkpoints) -> str:
    """Returns the command that writes the average again, and says if it will be another one, or what to do instead."""
    if not any(name.startswith("step-") for name in checkpoints.states):
        return "copy it again from the original; no step-*.pt is left, from which the training could continue"
    lost = ", ".join(f"{step:,}" for step in checkpoints.lost_steps())
    if not lost:
        return system.resume_command
    return f"{system.resume_command} (the average will differ from the one before: it lacks step {lost})"


def _check_missing(report: Report, system: System, checkpoints: Checkpoints) -> None:
    """Adds findings about checkpoints that the training averaged or wrote, or that results are of, and are gone."""
    present = checkpoints.states.keys() | {path.name for paths, _ in checkpoints.damaged for path in paths}
    results = _results_by_checkpoint(system.folder)
    has_ended = checkpoints.averaged is not None
    if AVERAGED not in present and has_ended:
        folders = results.get(AVERAGED, ())
        cause = "it is missing, and the log says that the training wrote it; decoding takes best.pt in its place"
        cause += ", so that it will not repeat the results of averaged.pt" if folders else ""
        remedy = average_again(system, checkpoints)
        subject = str(checkpoints.folder / AVERAGED)
        report.add(Finding("missing-checkpoint", Severity.WARNING, subject, cause, remedy, 1, tuple(folders)))
    lost = [f"step-{step:08d}.pt" for step in checkpoints.lost_steps()]
    if lost := [name for name in lost if name not in present]:
        severity = Severity.NOTE if AVERAGED in checkpoints.states else Severity.WARNING
        cause = "checkpoints that the log lists in the average are missing; a new average would differ"
        remedy = "copy them again from the original, if averaged.pt has to be written again"
        subject = str(checkpoints.folder)
        report.add(Finding("missing-checkpoint", severity, subject, cause, remedy, len(lost), tuple(lost)))
    for name, folders in results.items():
        if has_ended and name not in present and name not in (AVERAGED, *lost):
            cause = "it is missing, and results are of it"
            remedy = "copy it again from the original, or decode again with another --checkpoint"
            subject = str(checkpoints.folder / name)
            found = Finding("missing-checkpoint", Severity.WARNING, subject, cause, remedy, 1, tuple(folders))
            report.add(found)


def _results_by_checkpoint(experiment: Path) -> dict[str, list[str]]:
    """Returns the folders of the results of each checkpoint in the experiment, by its name."""
    results: dict[str, list[str]] = {}
    for folder in result_folders(experiment):
        try:
            name = read_result_facts(folder).get("checkpoint")
        except (AsrtoolError, OSError):
            continue  # the check of results says so
        if isinstance(name, str) and name == Path(name).name and name.endswith(".pt"):
            results.setdefault(name, []).append(str(folder))
    return results
