"""From the options of a command to a search: files are read, and what does not go together is refused."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from asrtool.decoding.decode import Search, search
from asrtool.decoding.fusion import Fusion, UnitFusion, WordFusion, check_unit_lm, check_word_lm, check_words
from asrtool.decoding.graph_search import (
    MOST_COST,
    GraphOptions,
    GraphSearch,
    check_outputs,
    load_priors,
    require_range,
)
from asrtool.decoding.lattice import Lattice, rescore
from asrtool.decoding.prefix_beam import ctc_prefix_beam
from asrtool.errors import UserError, require_file
from asrtool.files import file_hash
from asrtool.graphs.folder import Graph, load_graph
from asrtool.readers import read_json
from asrtool.text.tokenizer import SPACE, Tokenizer

SCALES = ("acoustic_scale", "blank_penalty", "insertion_penalty")
SEARCH = ("beam", "max_active", "min_active", "lattice_beam", "nbest", *SCALES)
LATTICE_BEAM = 8.0  # that of Kaldi's recipes
PREFIX_BEAM = 8  # prefixes
MAX_PREFIX_BEAM = 10_000  # prefixes; time and memory grow with it, and results settle below 100
MOST_PRIOR = 1e100  # counts from its inverse to it: their quotients do not leave the range of float64
LM_WEIGHT = 0.5  # below 1, for the acoustic model has learnt some of the language itself
APPLIES = {  # the methods that have an option; all others are for the graph alone
    "beam": ("prefix", "graph"),
    "nbest": ("prefix", "graph"),
    "insertion_penalty": ("prefix", "graph"),
    "lm": ("prefix",),
    "lm_weight": ("prefix",),
    "lm_units": ("prefix",),
}
NEEDS = (("lm_weight", "lm"), ("lm_units", "lm"), ("rescore", "graph_lm"), ("graph_lm", "rescore"))
Options = Mapping[str, Any]  # those given, by name


class Setup(NamedTuple):
    """A search, and all that decides over its results."""

    find: Search
    settings: dict


def check_options(methods: Sequence[str], options: Options) -> None:
    """Refuse an option that none of `methods` has, and what does not go together."""
    for name in options:
        having = APPLIES.get(name, ("graph",))
        if not {*methods} & {*having}:
            meant = " or ".join(f"--method {method}" for method in having)
            raise UserError(f"{_flag(name)} has no effect on --method {' '.join(methods)}; it is for {meant}")
    for name, needed in NEEDS:
        if name in options and needed not in options:
            raise UserError(f"{_flag(name)} needs {_flag(needed)}")
    if "prefix" in methods:
        _check_prefix(methods, options)
    if "graph" in methods:
        _check_graph(options)


def _check_prefix(methods: Sequence[str], options: Options) -> None:
    require_range("beam", options.get("beam", 1), 1, MAX_PREFIX_BEAM)
    require_range("lm_weight", options.get("lm_weight", 0), 0, MOST_COST)
    require_range("insertion_penalty", options.get("insertion_penalty", 0), -MOST_COST, MOST_COST)
    if options.get("beam", 1) % 1:
        raise UserError(f"--beam {options['beam']} is no number of prefixes for --method prefix; give a whole one")
    if "insertion_penalty" in options and "lm" not in options and "graph" not in methods:
        raise UserError("--insertion-penalty needs --lm in --method prefix")


def _check_graph(options: Options) -> None:
    if "graph" not in options:
        raise UserError("--method graph needs --graph FOLDER; make one with `asrtool graph`")
    graph_options({name: value for name, value in options.items() if name != "scales"})  # checks their ranges
    makers = [name for name in ("nbest", "lattices", "rescore", "lattice_beam") if name in options]
    limits = [name for name in ("max_active", "min_active") if name in options]
    if makers and limits and options.get("engine") != "k2":
        raise UserError(f"{_flag(limits[0])} and {_flag(makers[0])} exclude each other: lattices have a beam alone")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def open_search(method: str, tokenizer: Tokenizer, options: Options, jobs: int = 1) -> Setup:
    """The search of `method` with its options. `jobs`: processes of a graph search. Call `check_options` first."""
    if method == "graph":
        return _graph(tokenizer, options, jobs)
    if method == "prefix":
        return _prefix(tokenizer, options)
    return Setup(search(method), {})


def _prefix(tokenizer: Tokenizer, options: Options) -> Setup:
    beam, nbest = int(options.get("beam", PREFIX_BEAM)), options.get("nbest", 1)
    fusion, settings = prefix_fusion(tokenizer, options)
    settings = {"beam": beam, "nbest": nbest} | settings

    def find(log_probs, lens):
        found = ctc_prefix_beam(log_probs, lens, beam, nbest=nbest, fusion=fusion)
        return [best.among(others) for best, *others in found]

    return Setup(find, settings)


def prefix_fusion(tokenizer: Tokenizer, options: Options) -> tuple[Fusion | None, dict]:
    """The language model of --lm for a prefix search, if there is one, and what decides over its part."""
    if "lm" not in options:
        return None, {}
    from asrtool.lm.ngram_files import load_lm

    units = options.get("lm_units", False)
    if not units and not any(symbol.startswith(SPACE) for symbol in tokenizer.symbols):
        units = True  # a word tokenizer: its units are words
    weight, penalty = options.get("lm_weight", LM_WEIGHT), options.get("insertion_penalty", 0.0)
    lm, digest = load_lm(options["lm"]), file_hash(options["lm"])
    (check_unit_lm if units else check_word_lm)(lm, tokenizer, options["lm"])
    fusion = (UnitFusion if units else WordFusion)(lm, tokenizer.symbols, weight, penalty)
    return fusion, {"lm": digest, "lm_weight": weight, "insertion_penalty": penalty, "lm_units": units}


def _graph(tokenizer: Tokenizer, options: Options, jobs: int) -> Setup:
    graph = load_graph(options["graph"], tokenizer)
    if graph.meta["topology"] == "hmm" and options.get("blank_penalty"):
        raise UserError(f"--blank-penalty has no effect: {graph.folder} has no blank, its topology is hmm")
    check_outputs(tokenizer.size, graph.meta["outputs"])
    priors = read_priors(options["priors"], graph) if "priors" in options else None
    chosen = graph_options(options)
    change = _rescoring(graph, options, chosen.lattice_beam) if "rescore" in options else None
    further = {"priors": priors, "rescore": change, "keep_lattices": "lattices" in options}
    make = _k2_search if options.get("engine") == "k2" else GraphSearch
    find = make(graph, chosen, jobs, **further)
    settings = find.facts | {"graph": str(graph.folder), "graph_digest": file_hash(graph.folder / "graph.json")}
    settings |= {name: file_hash(options[name]) for name in ("priors", "rescore") if name in options}
    return Setup(find, settings | {"lattices": find.keep_lattices, "jobs": jobs})


def _k2_search(graph: Graph, chosen: GraphOptions, jobs: int, **further: Any) -> GraphSearch:
    from asrtool.decoding.k2_search import K2Search

    if jobs > 1:
        raise UserError("--jobs has no effect on --engine k2, which searches a batch at a time")
    return K2Search(graph, chosen, **further)


def graph_options(options: Options) -> GraphOptions:
    """Those of the search; --scales gives those that are not given themselves, lattices get their beam."""
    chosen = (read_scales(options["scales"]) if "scales" in options else {}) | {
        name: options[name] for name in SEARCH if name in options
    }
    if options.get("nbest", 1) > 1 or {"lattices", "rescore"} & {*options}:
        chosen.setdefault("lattice_beam", LATTICE_BEAM)
    return GraphOptions(**chosen)


def read_scales(path: Path) -> dict:
    """The scales that `asrtool tune` found best, by name. UserError that names the file for anything else."""
    hint = "make them with `asrtool tune`"
    tree = read_json(path, "scales", hint)
    best = tree.get("best") if isinstance(tree, dict) else None
    if not isinstance(best, dict) or not all(_is_number(best.get(name)) for name in SCALES):
        raise UserError(f"{path} has no scales of `asrtool tune` ({', '.join(SCALES)} under best); {hint}")
    try:
        scales = {name: float(best[name]) for name in SCALES}
        GraphOptions(**scales)
    except (OverflowError, UserError) as error:
        raise UserError(f"{path}: {error}; {hint}") from error
    return scales


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_priors(path: Path, graph: Graph) -> np.ndarray:
    """Log-priors (V,) from a JSON list of counts or probabilities, one for each output of the model."""
    count = graph.meta["outputs"]
    require_file(path, "priors", "give a JSON list with a count or probability for each output")
    try:
        values = read_json(path, "priors", f"it takes {count} counts or probabilities")
    except UserError as error:
        raise UserError(f"{path} is not a JSON list of numbers: {error}") from error
    if not isinstance(values, list) or not all(map(_is_number, values)):
        raise UserError(f"{path} is not a JSON list of numbers; it takes {count} counts or probabilities")
    if len(values) != count:
        raise UserError(f"{path} has {len(values)} numbers; it takes {count} counts or probabilities, one an output")
    if not any(values) or not all(value == 0 or 1 / MOST_PRIOR <= value <= MOST_PRIOR for value in values):
        raise UserError(f"{path} has negative numbers, too large or small ones, or zeros alone; it takes counts")
    return load_priors(values)


def _rescoring(graph: Graph, options: Options, beam: float):
    """Lattice -> lattice with the LM of --rescore in the place of that of --graph-lm, within `beam` again.

    What goes out is the ARPA's score. A graph lets a path back off where the higher n-gram exists, too; where that is
    cheaper, the graph's own score is better than the ARPA's by the difference, and keeps it.
    """
    from asrtool.lm.ngram_files import load_lm

    made_of = graph.meta["sha256"].get("lm")
    if made_of and file_hash(require_file(options["graph_lm"], "language model", "see --graph-lm")) != made_of:
        raise UserError(f"{graph.folder} was not made with --graph-lm {options['graph_lm']}: its sha256 is another")
    old, new = load_lm(options["graph_lm"]), load_lm(options["rescore"])
    check_words(new, graph.words[1:-1], options["rescore"], f"the words of {graph.folder}")

    def change(lattice: Lattice) -> Lattice:
        return rescore(lattice, graph.words, old, new, beam)

    return change
