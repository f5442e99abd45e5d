"""Checks of the folder of a training: configuration, units, all checkpoints, the average, and what was added later."""

import json
import os
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from asrtool.checkpoint import meta_model
from asrtool.config import Config
from asrtool.config_file import load_config
from asrtool.decoding.calibration import read_calibration
from asrtool.doctor.checkpoint_checks import check_checkpoints
from asrtool.doctor.findings import Finding, Report, Severity, finding_of_error, in_folder, path_from, shell_command
from asrtool.doctor.graph_checks import check_graph, is_graph
from asrtool.doctor.result_checks import check_results, finished_time, result_folders
from asrtool.doctor.weights_checks import System, check_versions
from asrtool.doctor.work_folders import own_path, training_folder
from asrtool.errors import AsrtoolError
from asrtool.readers import read_json, read_training_log
from asrtool.scoring.folder import read_result_facts
from asrtool.system_files import CALIBRATION, PRIORS, UNIT_COUNTS
from asrtool.text.outputs import outputs_of
from asrtool.text.tokenizer import Tokenizer, load_tokenizer
from asrtool.training.data_counts import read_unit_counts


def check_experiment(report: Report, folder: Path, checked_graphs: Container[Path] = ()) -> System:
    """Adds the facts and findings about a folder of `asrtool train`; returns what of it could be opened.

    `checked_graphs` are absolute paths of graphs that need no check.
    """
    system = System(folder, open_config(report, folder), open_tokenizer(report, folder))
    states = check_checkpoints(report, system)
    _check_log(report, system)
    check_priors(report, system)
    check_unit_counts(report, system)
    check_calibration(report, system)
    check_used_graphs(report, system, checked_graphs)
    report.add(check_results(folder))
    _add_facts(report, system, states)
    return system


def open_config(report: Report, folder: Path) -> Config | None:
    """Returns the configuration of a system; adds a finding and returns None if it cannot be read."""
    try:
        return load_config(folder / "config.yaml")
    except (AsrtoolError, OSError) as error:
        remedy = "copy config.yaml again, or write it from the configuration of the training"
        report.add(finding_of_error("damaged-config", folder / "config.yaml", error, remedy))
        return None


def open_tokenizer(report: Report, folder: Path) -> Tokenizer | None:
    """Returns the tokenizer of a system; adds a finding and returns None if it cannot be read."""
    try:
        return load_tokenizer(folder / "tokenizer.json")
    except (AsrtoolError, OSError) as error:
        remedy = "put back the tokenizer.json of the training (data.tokenizer in config.yaml names the original)"
        report.add(finding_of_error("damaged-tokenizer", folder / "tokenizer.json", error, remedy))
        return None


def _check_log(report: Report, system: System) -> None:
    """Adds a warning if the log has no end of the training, and if weights were averaged at an earlier end.

    A training that goes on after its end removes the end from its log.
    """
    path = system.folder / "log.jsonl"
    if not path.is_file():
        return
    try:
        rows = [row for row in read_training_log(path) if isinstance(row, dict)]
    except AsrtoolError as error:
        report.add(finding_of_error("damaged-log", path, error))
        return
    if any(row.get("event") == "finished" for row in rows):
        return
    steps = [row["step"] for row in rows if isinstance(row.get("step"), int)]
    cause = f"the training has not ended, or it is running: the last logged step is {max(steps, default=0):,}"
    if system.config:
        cause += f" of {system.config.training.max_steps:,}"
    report.add(Finding("unfinished-training", Severity.WARNING, str(path), cause, system.resume_command))
    averaged = system.folder / "checkpoints/averaged.pt"
    if averaged.is_file():
        cause = "it was averaged before the training went on; decoding uses it until the training ends again"
        report.add(Finding("old-average", Severity.WARNING, str(averaged), cause, system.resume_command))


def check_priors(report: Report, system: System) -> None:
    """Adds an error for priors that do not fit the units, or are missing for objective ce."""
    path = system.folder / PRIORS
    remedy = f"{shell_command('rm', path)}, and train with objective ce into another --exp, which counts them"
    if not path.is_file():
        if system.config and system.config.objective.kind == "ce":
            cause = "the objective is ce, and there are no priors: decoding cannot divide by them"
            report.add(Finding("missing-priors", Severity.WARNING, str(path), cause, remedy))
        return
    try:
        values = read_json(path, "priors", remedy)
    except AsrtoolError as error:
        report.add(finding_of_error("damaged-priors", path, error))
        return
    if not _are_counts(values):
        cause = "it is not a JSON list of numbers from 0 on, one of them positive"
        report.add(Finding("damaged-priors", Severity.ERROR, str(path), cause, remedy))
    elif system.num_outputs and len(values) != system.num_outputs:
        cause = f"it has priors of {len(values)} outputs, and the model has {system.num_outputs}"
        report.add(Finding("priors-of-other-units", Severity.ERROR, str(path), cause, remedy))


def _are_counts(values: object) -> bool:
    if not isinstance(values, list) or any(isinstance(value, bool) for value in values):
        return False
    return all(isinstance(value, int | float) and value >= 0 for value in values) and sum(values) > 0


def check_unit_counts(report: Report, system: System) -> None:
    """Adds an error for n-gram counts of units that cannot be read, or are of other units."""
    path = system.folder / UNIT_COUNTS
    if path.is_file() and system.tokenizer:
        try:
            read_unit_counts(path, system.tokenizer.without_context.size)
        except AsrtoolError as error:
            report.add(finding_of_error("damaged-unit-counts", path, error))


def check_calibration(report: Report, system: System) -> None:
    """Adds findings for a calibration that cannot be read, or is older than the end of the training."""
    path = system.folder / CALIBRATION
    if not path.is_file():
        return
    try:
        methods = read_calibration(path)
        entries = json.loads(path.read_text(encoding="utf-8"))["methods"]
    except (AsrtoolError, OSError) as error:
        report.add(finding_of_error("damaged-calibration", path, error))
        return
    ended = finished_time(system.folder)
    for method in methods:
        name = entries[method].get("checkpoint")
        weights = system.folder / "checkpoints" / str(name)
        if ended and isinstance(name, str) and os.path.isfile(weights) and path.stat().st_mtime < ended:
            cause = f"its confidences of method {method} were fitted to an earlier {name}"
            remedy = _calibrate_command(system, method, entries[method].get("cuts"))
            report.add(Finding("old-calibration", Severity.WARNING, str(path), cause, remedy))


def _calibrate_command(system: System, method: str, cuts: object) -> str:
    """Returns the command that calibrates a method again, on the manifest that is recorded as it was given."""
    work = training_folder(system.folder, system.config)
    folder = path_from(work, system.folder)
    if not isinstance(cuts, str):
        command = in_folder(work, shell_command("asrtool", "calibrate", folder, "CUTS", "--method", method))
        return f"{command}, where CUTS is the manifest of a development set"
    return in_folder(work, shell_command("asrtool", "calibrate", folder, cuts, "--method", method))


def check_used_graphs(report: Report, system: System, checked: Container[Path] = ()) -> None:
    """Checks each graph that a result in the folder was decoded with, and that still exists, but those in `checked`.

    In a copy of a work folder, these are the graphs of the copy.
    """
    if system.tokenizer is None:
        return
    graphs = set()
    for folder in result_folders(system.folder):
        try:
            graph = own_path(system.folder, read_result_facts(folder), "graph")
        except AsrtoolError:
            continue  # check_results says so
        if graph is not None and Path(graph) not in checked:
            graphs.add(graph)
    for graph in sorted(graphs):
        if is_graph(Path(graph)):
            check_graph(report, Path(graph), system.tokenizer)


def _add_facts(report: Report, system: System, states: Mapping[str, Mapping[str, Any]]) -> None:
    """Adds the facts of the checkpoint that decoding uses by default."""
    config, tokenizer = system.config, system.tokenizer
    if config:
        report.facts["model"] = f"{config.model.architecture}, {config.model.layers} layers, dim {config.model.dim}"
        report.facts["objective"] = config.objective.kind
    if tokenizer:
        report.facts["units"] = tokenizer.size
    name = next((name for name in ("averaged.pt", "best.pt") if name in states), None)
    if name is None:
        return
    state = states[name]
    report.facts["checkpoint"] = f"{name}: {_steps(state)}"
    if config and tokenizer:
        report.facts["parameters"] = _parameters(config, tokenizer)
    report.facts["all checkpoints"] = ", ".join(sorted(states))
    if isinstance(state["versions"], dict):
        report.facts["versions"] = ", ".join(f"{key} {value}" for key, value in state["versions"].items())
    check_versions(report, system.folder / "checkpoints" / name, state["versions"])


def _parameters(config: Config, tokenizer: Tokenizer) -> str:
    """Returns the number of parameters of the model, as training logs it: statistics of the features are none."""
    try:
        outputs = outputs_of(config, tokenizer)
        model = meta_model(config.model, config.features.num_bins, outputs)
    except AsrtoolError as error:
        return f"unknown: {error}"
    return f"{sum(parameter.numel() for parameter in model.parameters()):,}"


def _steps(state: Mapping[str, Any]) -> str:
    steps, progress = state["steps"], state["progress"]
    if isinstance(steps, list) and steps:
        return f"mean of the weights of steps {', '.join(map(str, steps))}"
    if not isinstance(progress, dict) or not isinstance(progress.get("step"), int):
        return "its step is not recorded"
    seconds = progress.get("seconds")
    hours = f", {seconds / 3600:.1f} hours of audio" if isinstance(seconds, int | float) else ""
    return f"step {progress['step']:,}{hours}"
