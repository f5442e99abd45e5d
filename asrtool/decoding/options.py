"""The options of searches as the command line gives them: which methods have them, their ranges, and their files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from asrtool.decoding.graph_options import MAX_COST, GraphOptions, log_priors, option_flag, require_range
from asrtool.errors import UserError, require_file
from asrtool.graphs.folder import DecodingGraph
from asrtool.readers import read_json

WEIGHT_NAMES = ("acoustic_scale", "blank_penalty", "insertion_penalty")  # of the decoding weights
GRAPH_OPTIONS = ("beam", "max_active", "min_active", "lattice_beam", "lattice_max_entropy", "nbest", *WEIGHT_NAMES)
DEFAULT_LATTICE_BEAM = 8.0  # as in Kaldi's recipes
# Of a search that builds lattices, which has no limit of active states: it keeps four fifths of the arcs of 16, in half
# the time or less
LATTICE_SEARCH_BEAM = 12.0
DEFAULT_PREFIX_BEAM = 8  # prefixes
MAX_PREFIX_BEAM = 10_000  # prefixes; time and memory grow with it, and results no longer change above 100
MAX_PRIOR = 1e100  # counts from its inverse to it: their quotients stay in the range of float64
DEFAULT_LM_WEIGHT = 0.5  # below 1, since the acoustic model has learned some of the language itself
METHODS_OF_OPTION = {  # all other options are for --method graph only
    "beam": ("prefix", "graph"),
    "nbest": ("prefix", "graph"),
    "insertion_penalty": ("prefix", "graph"),
    "lm": ("prefix",),
    "lm_weight": ("prefix",),
    "lm_units": ("prefix",),
    "hotwords": ("prefix", "graph"),
}
# an option, and the one that it needs
REQUIRED_OPTIONS = (("lm_weight", "lm"), ("lm_units", "lm"), ("rescore", "graph_lm"), ("graph_lm", "rescore"))
LATTICE_REQUESTS = ("nbest", "lattices", "rescore", "lattice_beam")  # graph search builds lattices for them
Options = Mapping[str, Any]  # the options that were given, by name


def methods_of_option(name: str) -> tuple[str, ...]:
    """Returns the methods that have an option."""
    return METHODS_OF_OPTION.get(name, ("graph",))


def require_effect(methods: Sequence[str], options: Options) -> None:
    """Raises UserError for an option that none of `methods` has."""
    for name in options:
        valid = methods_of_option(name)
        if not {*methods} & {*valid}:
            valid_methods = " or ".join(f"--method {method}" for method in valid)
            given = " ".join(methods)
            raise UserError(f"{option_flag(name)} has no effect on --method {given}; it is for {valid_methods}")


def check_options(methods: Sequence[str], options: Options) -> None:
    """Raises UserError for an option that none of `methods` has, and for options that exclude each other."""
    require_effect(methods, options)
    for name, needed in REQUIRED_OPTIONS:
        if name in options and needed not in options:
            raise UserError(f"{option_flag(name)} needs {option_flag(needed)} (see --help)")
    if "prefix" in methods:
        _check_prefix_options(methods, options)
    if "graph" in methods:
        _check_graph_options(options)


def _check_prefix_options(methods: Sequence[str], options: Options) -> None:
    require_range("beam", options.get("beam", 1), 1, MAX_PREFIX_BEAM)
    require_range("nbest", options.get("nbest", 1), 1, MAX_PREFIX_BEAM)
    require_range("lm_weight", options.get("lm_weight", 0), 0, MAX_COST)
    require_range("insertion_penalty", options.get("insertion_penalty", 0), -MAX_COST, MAX_COST)
    if options.get("beam", 1) % 1:
        hint = "give a whole number of prefixes"
        raise UserError(f"--beam {options['beam']} is not possible with --method prefix; {hint}")
    if "insertion_penalty" in options and "lm" not in options and "graph" not in methods:
        raise UserError("--insertion-penalty needs --lm in --method prefix")


def _check_graph_options(options: Options) -> None:
    if "no_rescore" in options and "rescore" in options:
        raise UserError("--no-rescore and --rescore exclude each other")
    if "graph" not in options:
        raise UserError("--method graph needs --graph FOLDER; build one with `asrtool graph`")
    graph_options({name: value for name, value in options.items() if name != "decoding_weights"})  # checks ranges
    lattice_options = [name for name in LATTICE_REQUESTS if name in options]
    limits = [name for name in ("max_active", "min_active") if name in options]
    if lattice_options and limits and options.get("engine") != "k2":
        limit, lattice_option = option_flag(limits[0]), option_flag(lattice_options[0])
        raise UserError(f"{limit} and {lattice_option} exclude each other: lattice search has a beam only")


def graph_options(options: Options) -> GraphOptions:
    """Returns the options of a graph search.

    Options that are not given come from --decoding-weights, if it is given; a search that builds lattices has beams of
    its own.
    """
    values = read_decoding_weights(options["decoding_weights"]) if "decoding_weights" in options else {}
    values |= {name: options[name] for name in GRAPH_OPTIONS if name in options}
    if options.get("nbest", 1) > 1 or {"lattices", "rescore"} & {*options}:
        values.setdefault("lattice_beam", DEFAULT_LATTICE_BEAM)
    if "lattice_beam" in values:
        values.setdefault("beam", LATTICE_SEARCH_BEAM)
    return GraphOptions(**values)


def read_decoding_weights(path: Path) -> dict[str, Any]:
    """Returns the best decoding weights of `asrtool tune`, by name. Raises UserError that names the file."""
    hint = "create them with `asrtool tune`"
    tree = read_json(path, "decoding weights", hint)
    best = tree.get("best") if isinstance(tree, dict) else None
    if not isinstance(best, dict) or not all(_is_number(best.get(name)) for name in WEIGHT_NAMES):
        names = ", ".join(WEIGHT_NAMES)
        raise UserError(f"{path} has no decoding weights of `asrtool tune` ({names} under best); {hint}")
    try:
        weights: dict[str, Any] = {name: float(best[name]) for name in WEIGHT_NAMES}
        GraphOptions(**weights)
    except (OverflowError, UserError) as error:
        raise UserError(f"{path}: {error}; {hint}") from error
    return weights


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_priors(path: Path, graph: DecodingGraph) -> np.ndarray:
    """Returns log-priors (V,) from a JSON list of counts or probabilities, one for each output of the model.

    Raises UserError that names the file for anything else.
    """
    count = graph.meta["outputs"]
    expected = f"it takes {count} counts or probabilities"
    require_file(path, "priors", "give a JSON list with a count or probability for each output")
    try:
        values = read_json(path, "priors", expected)
    except UserError as error:
        raise UserError(f"{path} is not a JSON list of numbers: {error}") from error
    if not isinstance(values, list) or not all(map(_is_number, values)):
        raise UserError(f"{path} is not a JSON list of numbers; {expected}")
    if len(values) != count:
        raise UserError(f"{path} has {len(values)} numbers; {expected}, one for each output")
    if not any(values) or not all(value == 0 or 1 / MAX_PRIOR <= value <= MAX_PRIOR for value in values):
        raise UserError(f"{path} has negative, too large or too small numbers, or only zeros; it takes counts")
    return log_priors(values)
