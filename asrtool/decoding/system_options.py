"""The options of a search that a trained system carries, and the best method that it allows."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from asrtool.decoding.options import (
    LATTICE_SEARCH_BEAM,
    Options,
    check_options,
    methods_of_option,
    require_effect,
)
from asrtool.experiment import Experiment
from asrtool.system_files import SystemFiles

logger = logging.getLogger(__name__)

# The files of a system that a method reads, by the names of its options.
METHOD_FILES: dict[str, tuple[str, ...]] = {
    "greedy": (),
    "prefix": ("lm",),
    "graph": ("graph", "priors", "decoding_weights", "rescore", "graph_lm"),
}
# Carried options that are left out where the user gives one of these instead.
REPLACED_BY = {
    "graph": ("decoding_weights", "rescore", "graph_lm", "lattice_beam"),  # they belong to the carried graph
    "lm": ("lm_weight", "lm_units", "insertion_penalty"),  # they belong to the carried model
}
RESCORING_FILES = ("rescore", "graph_lm")
LATTICE_OPTIONS = (*RESCORING_FILES, "lattice_beam", "nbest")  # a search without lattices has none of them
WEIGHTS = ("decoding_weights", "acoustic_scale", "blank_penalty", "insertion_penalty")
LIMITS = ("max_active", "min_active")  # of graph search; a search that builds lattices on CPUs has none
# Graph search whose words need confidences builds lattices, with LATTICE_SEARCH_BEAM. Wider beams gain less than 0.2 %
# WER and take several times as long (docs/confidence.md).
CONFIDENCE_LATTICE_BEAM = 6.0
# Nats in a second: utterances have up to 1.2 in the median and 1.7 at most, with a phone system of five hours. At 2,
# lattice search takes about six times as long as for these; at 2.5, fifty times (docs/confidence.md).
CONFIDENCE_MAX_ENTROPY = 2.0


def carried_options(experiment: Experiment, method: str, streaming: bool = False) -> dict[str, Any]:
    """Returns the options of a search that a system carries, by the names of asrtool/decoding/options.py.

    With `method` "graph" these are the graph, the priors, the decoding weights, and, unless `streaming`, the models for
    lattice rescoring. Raises UserError for a file of a pack that is not the one that was packed.
    """
    options = _listed_options(experiment.files, method, streaming)
    return _verified(experiment.files, options)


def _listed_options(files: SystemFiles, method: str, streaming: bool) -> dict[str, Any]:
    options = dict(files.options.get(method, {}))
    options |= {name: getattr(files, name) for name in METHOD_FILES[method] if getattr(files, name) is not None}
    if not {*RESCORING_FILES} <= {*options}:
        options = _without(options, RESCORING_FILES)
    return _without(options, LATTICE_OPTIONS) if streaming else options


def _verified(files: SystemFiles, options: dict[str, Any]) -> dict[str, Any]:
    """Returns `options`. Raises UserError for a carried file among them that is not the one that was packed."""
    for path in dict.fromkeys(path for path in options.values() if isinstance(path, Path)):
        files.require_intact(path)
    return options


def search_options(experiment: Experiment, method: str, given: Options, streaming: bool = False) -> dict[str, Any]:
    """Returns the options of one method: those that the user has given, and those that the system carries otherwise.

    The options that belong to a carried graph or language model are left out where the user gives another. Raises the
    errors of `check_options` and of `carried_options`.
    """
    options = _listed_options(experiment.files, method, streaming)
    chosen = {name: value for name, value in given.items() if method in methods_of_option(name)}
    for name, dependent in REPLACED_BY.items():
        if name in chosen:
            options = _without(options, dependent)
    if {*LIMITS} & {*chosen} and chosen.get("engine") != "k2":
        options = _without(options, LATTICE_OPTIONS)
    if "no_rescore" in chosen:
        options = _without(options, RESCORING_FILES)
    if "rescore" in chosen and "graph" not in chosen and experiment.files.graph_lm:
        options["graph_lm"] = experiment.files.graph_lm
    options |= chosen
    check_options([method], options)
    return _verified(experiment.files, options)


def with_lattices(method: str, options: Options) -> dict[str, Any]:
    """Returns the options of a search whose words need confidences: in graph search, it builds lattices.

    Where `options` has no beams, they are narrower than in `asrtool decode`. Audio that the model does not recognise is
    searched without lattices (GraphOptions.lattice_max_entropy). The options stay as they are with a limit of the
    active states, which lattice search does not have, and with k2, which has both.
    """
    if method != "graph" or {*LIMITS} & {*options} or options.get("engine") == "k2":
        return dict(options)
    defaults = {
        "beam": LATTICE_SEARCH_BEAM,
        "lattice_beam": CONFIDENCE_LATTICE_BEAM,
        "lattice_max_entropy": CONFIDENCE_MAX_ENTROPY,
    }
    return defaults | dict(options)


def warn_of_unused_weights(experiment: Experiment, method: str, options: Options) -> None:
    """Logs a warning if graph search has no weights in `options`, and `asrtool tune` has left tuned ones in EXP/decode.

    The weights are not taken silently, since they belong to the graph that they were tuned with.
    """
    if method != "graph" or {*WEIGHTS} & {*options}:
        return
    paths = sorted(experiment.folder.glob("decode/*/decoding_weights.json"))
    if paths:
        logger.warning(
            f"graph search without tuned weights, which may cost accuracy; {paths[0]} has some, of `asrtool tune`: "
            "if they are of this graph, give --decoding-weights FILE (in Python decoding_weights=FILE)"
        )


def options_by_method(
    experiment: Experiment, methods: Sequence[str], given: Options, streaming: bool = False
) -> dict[str, dict[str, Any]]:
    """Returns the options of each method, as `search_options`.

    Raises UserError for an option that none of the methods has.
    """
    require_effect(methods, given)
    options = {}
    for method in dict.fromkeys(methods):
        ineffective = set()
        if method == "prefix" and "graph" in methods and not (experiment.files.lm or "lm" in given):
            ineffective = {"insertion_penalty"}  # of graph search: prefix search has one with a language model only
        options[method] = search_options(experiment, method, _without(dict(given), ineffective), streaming)
        warn_of_unused_weights(experiment, method, options[method])
    return options


def _without(options: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in names}


def tuning_options(experiment: Experiment, graph: Path | None, given: Options) -> dict[str, Any]:
    """Returns the options of the search by which `asrtool tune` tunes a system: the user's, in `graph` if there is one.

    The graph and the priors of the system are used where none are given. Its decoding weights are not.
    """
    files = {"graph": graph or experiment.files.graph, "priors": experiment.files.priors}
    carried = {name: path for name, path in files.items() if path}
    options: dict[str, Any] = {**carried, **given}
    check_options(["graph"], options)
    return options


def best_method(experiment: Experiment) -> str:
    """Returns the most accurate search that a system carries the files for.

    That is the method that it was packed for; else "graph" where there is a graph, "prefix" where the units
    are words or parts of them and the model has a blank, and "greedy" for phones and topology hmm.
    """
    files = experiment.files
    if files.default_method:
        return files.default_method
    if files.graph:
        return "graph"
    has_blank = experiment.config.objective.topology != "hmm"
    return "prefix" if has_blank and experiment.tokenizer.output_type == "words" else "greedy"
