"""The decodings that one command asks for: every set by every method."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from asrtool.decoding.checks import check_cuts, check_keys
from asrtool.decoding.decode import decode
from asrtool.decoding.options import APPLIES, Options, open_search
from asrtool.decoding.result_folder import method_folder_name, options_as_json, require_same_options
from asrtool.experiment import Experiment

RESCORED = "rescored"  # the folder of graph with --rescore, beside the one without


class Run(NamedTuple):
    """One set by one method, the folder it goes into, and what the user chose."""

    method: str
    name: str
    cuts: Path
    out: Path
    adapted: Path | None
    options: dict


def checkpoint_label(experiment: Experiment, which: str) -> str:
    """What --checkpoint asks for: a rank such as "best", or a file, inside the experiment where it is there."""
    if which in ("averaged", "best", "last"):
        return which
    path, folder = experiment.checkpoint.resolve(), experiment.folder.resolve()
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def options_for_method(method: str, options: Options) -> dict:
    """The options that have an effect on `method`."""
    return {name: value for name, value in options.items() if method in APPLIES.get(name, ("graph",))}


def plan_runs(
    experiment: Experiment,
    sets: Mapping[str, Path],
    methods: Sequence[str],
    options: Options,
    checkpoint: str,
    adapted: Path | None = None,
    tag: str | None = None,
    overwrite: bool = False,
    max_minutes: float = 5.0,
) -> list[Run]:
    """The runs, method by method.

    Raises what `check_cuts`, `check_keys` and `require_same_options` raise, before anything is decoded.
    """
    shared = {"checkpoint": checkpoint_label(experiment, checkpoint)} | ({"adapted": adapted} if adapted else {})
    suffixes, experiment.max_seconds = {}, 60 * max_minutes
    for name, path in sets.items():
        check_cuts(path, max_minutes, experiment.config.data.max_seconds)
        if "lattices" in options:
            check_keys(path)
        experiment.adapt(adapted, path)
        suffixes[name] = experiment.adapted.suffix if adapted else ""
    runs = []
    for method in dict.fromkeys(methods):
        folder = RESCORED if method == "graph" and "rescore" in options else method
        for name, path in sets.items():
            out = experiment.folder / "decode" / name / method_folder_name(folder + suffixes[name], tag)
            chosen = {"method": method, "cuts": path} | shared | options_for_method(method, options)
            runs.append(Run(method, name, path, out, adapted, options_as_json(chosen)))
            require_same_options(out, runs[-1].options, overwrite)
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
) -> list[Run]:
    """The same for `asrtool stream`. Also raises what `require_same_options` raises."""
    runs = []
    for name, path in sets.items():
        check_cuts(path, max_minutes)
        chosen = {"method": method, "cuts": path, "checkpoint": checkpoint_label(experiment, checkpoint)} | options
        out = experiment.folder / "stream" / name / method_folder_name(method, tag)
        runs.append(
            Run(method, name, path, out, None, options_as_json({k: v for k, v in chosen.items() if v is not None}))
        )
        require_same_options(out, runs[-1].options, overwrite)
    return runs


def decode_runs(
    experiment: Experiment, runs: Sequence[Run], options: Options, jobs: int, batch_seconds: float, workers: int
) -> Iterator[dict]:
    """Decode them; the facts of each, in the first of several ranks."""
    for method in dict.fromkeys(run.method for run in runs):
        find, settings = open_search(method, experiment.tokenizer, options, jobs)
        for run in (run for run in runs if run.method == method):
            experiment.adapt(run.adapted, run.cuts)  # anew: the model has other weights by now
            facts = decode(
                experiment,
                run.cuts,
                run.out,
                run.name,
                method,
                batch_seconds=batch_seconds,
                workers=workers,
                find=find,
                settings=settings,
                options=run.options,
            )
            if facts:
                yield facts
