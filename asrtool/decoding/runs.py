"""The runs of one command: every set by every method."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from asrtool.decoding.calibration import open_calibration
from asrtool.decoding.checks import check_archive_keys, check_cuts
from asrtool.decoding.decode import decode
from asrtool.decoding.options import Options, methods_of_option
from asrtool.decoding.result_folder import method_folder_name, options_as_json, require_same_options
from asrtool.decoding.search_setup import open_search
from asrtool.decoding.system_options import options_by_method
from asrtool.decoding.words import WordDescriber
from asrtool.experiment import Experiment

RESCORED = "rescored"  # the folder of --method graph with --rescore


class DecodingRun(NamedTuple):
    """One set by one method, the folder of its result, and the options that the user chose.

    `search_options` are the user's and what the system carries; results do not record the latter, so that a pack that
    was moved still replaces its own results.
    """

    method: str
    name: str
    cuts: Path
    out: Path
    adapted: Path | None
    options: dict
    search_options: Options = {}


def checkpoint_label(experiment: Experiment, which: str) -> str:
    """Returns the value of --checkpoint as results record it.

    This is a name such as "best", or a path, relative to the experiment if it is inside.
    """
    if which in ("averaged", "best", "last"):
        return which
    path, folder = experiment.checkpoint.resolve(), experiment.folder.resolve()
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def _model_options(experiment: Experiment, checkpoint: str) -> dict[str, Any]:
    """Returns the options of the model as results record them; fp32 is not recorded, as by earlier versions."""
    options: dict[str, Any] = {"checkpoint": checkpoint_label(experiment, checkpoint)}
    if experiment.precision != "fp32":
        options["precision"] = experiment.precision
    return options


def options_for_method(method: str, options: Options) -> dict[str, Any]:
    """Returns the options that have an effect on `method`."""
    return {name: value for name, value in options.items() if method in methods_of_option(name)}


def method_label(method: str, options: Options) -> str:
    """Returns how results name a method: "rescored" for graph search with lattice rescoring."""
    return RESCORED if method == "graph" and "rescore" in options else method


def plan_runs(
    experiment: Experiment,
    sets: Mapping[str, Path],
    methods: Sequence[str],
    options: Options,
    checkpoint: str,
    adapted: Path | None = None,
    transforms: Path | None = None,
    tag: str | None = None,
    overwrite: bool = False,
    max_minutes: float = 5.0,
    out: Path | None = None,
) -> list[DecodingRun]:
    """Returns the runs of `asrtool decode`, method by method; results are below `out`, by default EXP/decode.

    Raises the errors of `options_by_method`, `check_cuts`, `check_archive_keys` and `require_same_options` before
    anything is decoded.
    """
    all_options = options_by_method(experiment, methods, options)
    root = out or experiment.folder / "decode"
    shared = _model_options(experiment, checkpoint)
    if adapted:
        shared["adapted"] = adapted
    if transforms:
        shared["transforms"] = transforms
        experiment.load_transforms(transforms, sets.values())
    suffixes = {}
    experiment.max_seconds = 60 * max_minutes
    for name, path in sets.items():
        check_cuts(path, max_minutes, experiment.config.data.max_seconds)
        if "lattices" in options:
            check_archive_keys(path)
        suffixes[name] = "_fmllr" if transforms else ""
        suffixes[name] += experiment.load_adapted(adapted, path).suffix if adapted else ""
    runs = []
    for method in dict.fromkeys(methods):
        folder = method_label(method, all_options[method])
        for name, path in sets.items():
            result = root / name / method_folder_name(folder + suffixes[name], tag)
            chosen = {"method": method, "cuts": path} | shared | options_for_method(method, options)
            run = DecodingRun(method, name, path, result, adapted, options_as_json(chosen), all_options[method])
            require_same_options(result, run.options, overwrite)
            runs.append(run)
    return runs


def plan_streams(
    experiment: Experiment,
    sets: Mapping[str, Path],
    method: str,
    options: Options,
    checkpoint: str,
    tag: str | None = None,
    overwrite: bool = False,
    max_minutes: float = 60.0,
    out: Path | None = None,
) -> list[DecodingRun]:
    """Returns the runs of `asrtool stream`; results are below `out`, by default EXP/stream.

    Raises the errors of `check_cuts` and `require_same_options`.
    """
    root = out or experiment.folder / "stream"
    given = {name: value for name, value in options.items() if value is not None}
    runs = []
    for name, path in sets.items():
        check_cuts(path, max_minutes)
        chosen = {"method": method, "cuts": path} | _model_options(experiment, checkpoint) | given
        result = root / name / method_folder_name(method, tag)
        run = DecodingRun(method, name, path, result, None, options_as_json(chosen))
        require_same_options(result, run.options, overwrite)
        runs.append(run)
    return runs


def decode_runs(
    experiment: Experiment, runs: Sequence[DecodingRun], jobs: int, batch_seconds: float, workers: int
) -> Iterator[dict]:
    """Decodes the runs; yields the facts of each, in the first of several ranks."""
    for method, options in {run.method: run.search_options for run in runs}.items():
        search, settings, graph = open_search(
            method, experiment.tokenizer, options, jobs, experiment.config.objective.topology
        )
        calibration, calibration_settings = open_calibration(experiment, method_label(method, options))
        describer = WordDescriber(experiment, graph, calibration)
        for run in (run for run in runs if run.method == method):
            if run.adapted:
                experiment.load_adapted(run.adapted, run.cuts)  # the run before may have loaded another set's weights
            facts = decode(
                experiment,
                run.cuts,
                run.out,
                run.name,
                method,
                search,
                settings | calibration_settings,
                run.options,
                batch_seconds=batch_seconds,
                workers=workers,
                describer=describer,
            )
            if facts:
                yield facts
