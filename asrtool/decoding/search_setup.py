"""From the options of a command to a search: opens the files that they name and checks that these fit together."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from asrtool.decoding.fusion import Fusion, UnitFusion, WordFusion, check_unit_lm, check_vocabulary, check_word_lm
from asrtool.decoding.graph_options import GraphOptions
from asrtool.decoding.graph_search import GraphSearch
from asrtool.decoding.greedy import greedy_search
from asrtool.decoding.hotword_fusion import HotwordFusion
from asrtool.decoding.hotword_graph import add_hotwords
from asrtool.decoding.hotwords import hotwords_hash, read_hotwords, require_writable
from asrtool.decoding.hypothesis import Hypothesis, Search
from asrtool.decoding.kaldi_search import require_num_outputs
from asrtool.decoding.lattice import POS_INF, Lattice
from asrtool.decoding.lattice_rescoring import rescore_lattice
from asrtool.decoding.options import (
    DEFAULT_LM_WEIGHT,
    DEFAULT_PREFIX_BEAM,
    Options,
    graph_options,
    read_priors,
)
from asrtool.decoding.prefix_beam import ctc_prefix_beam
from asrtool.errors import UserError, require_file
from asrtool.files import file_hash
from asrtool.graphs.folder import DecodingGraph, load_graph
from asrtool.text.outputs import num_outputs
from asrtool.text.pdf_tokenizer import PdfTokenizer
from asrtool.text.tokenizer import Tokenizer


class SearchSetup(NamedTuple):
    """A search, the settings that determine its results, and the graph that it searches, if it does."""

    search: Search
    settings: dict
    graph: DecodingGraph | None = None


def open_search(
    method: str, tokenizer: Tokenizer, options: Options, jobs: int = 1, topology: str = "ctc"
) -> SearchSetup:
    """Returns the search of `method` with its options. Call `check_options` first.

    `jobs` is the number of processes of a graph search, `topology` the model's (`objective.topology`).
    """
    require_readable_units(method, tokenizer)
    if method == "graph":
        search, settings = open_graph_search(tokenizer, options, jobs, topology)
        return SearchSetup(search, settings, search.graph)
    if method == "prefix":
        require_prefixes(topology)
        return _open_prefix_search(tokenizer, options)
    return SearchSetup(greedy_search(topology), {})


def require_readable_units(method: str, tokenizer: Tokenizer) -> None:
    """Raises UserError for a search without a graph, if units are pdfs of Kaldi: they are not a text."""
    if method != "graph" and tokenizer.output_type == "pdfs":
        hint = "use --method graph, with a graph of `asrtool graph --kaldi-graph`"
        raise UserError(f"--method {method} has no words: the model's units are pdfs of Kaldi; {hint}")


def require_prefixes(topology: str) -> None:
    """Raises UserError for a topology that prefix search does not have."""
    if topology == "hmm":
        hint = "use --method graph or greedy"
        raise UserError(f"--method prefix is for models with a blank, and objective.topology is hmm; {hint}")


def _open_prefix_search(tokenizer: Tokenizer, options: Options) -> SearchSetup:
    nbest = options.get("nbest", 1)
    beam = max(nbest, int(options.get("beam", DEFAULT_PREFIX_BEAM)))  # it holds all hypotheses that are returned
    fusion, settings = open_fusion(tokenizer, options)

    def search(log_probs: torch.Tensor, lens: torch.Tensor) -> list[Hypothesis]:
        nbest_lists = ctc_prefix_beam(log_probs, lens, beam, nbest=nbest, fusion=fusion, text=tokenizer.decode)
        return [best.with_others(others) for best, *others in nbest_lists]

    return SearchSetup(search, {"beam": beam, "nbest": nbest} | settings)


def open_fusion(tokenizer: Tokenizer, options: Options) -> tuple[Fusion | None, dict]:
    """Returns the language model of --lm and the bonuses of --hotwords for a prefix search, and their settings.

    The fusion is None where neither is given.
    """
    fusion, settings = _open_lm_fusion(tokenizer, options) if "lm" in options else (None, {})
    if "hotwords" not in options:
        return fusion, settings
    if tokenizer.output_type != "words":
        raise UserError("--hotwords needs words, and the model's units are phones; use --method graph")
    hotwords = read_hotwords(options["hotwords"])
    require_writable(hotwords, tokenizer)
    return HotwordFusion(hotwords, tokenizer, fusion), settings | {"hotwords": hotwords_hash(hotwords)}


def _open_lm_fusion(tokenizer: Tokenizer, options: Options) -> tuple[Fusion, dict]:
    from asrtool.lm.ngram_files import load_lm

    over_units = bool(options.get("lm_units")) or tokenizer.units_are_words
    weight = options.get("lm_weight", DEFAULT_LM_WEIGHT)
    penalty = options.get("insertion_penalty", 0.0)
    lm = load_lm(options["lm"])
    fusion: Fusion
    if over_units:
        check_unit_lm(lm, tokenizer, options["lm"])
        fusion = UnitFusion(lm, tokenizer.symbols, weight, penalty)
    else:
        check_word_lm(lm, tokenizer, options["lm"])
        fusion = WordFusion(lm, tokenizer.symbols, weight, penalty)
    settings = {"lm": file_hash(options["lm"]), "lm_weight": weight}
    return fusion, settings | {"insertion_penalty": penalty, "lm_units": over_units}


class GraphSetup(NamedTuple):
    """An opened graph, the options of its search, log-priors (V,), and the settings of the files."""

    graph: DecodingGraph
    options: GraphOptions
    priors: np.ndarray | None
    settings: dict


def open_graph(tokenizer: Tokenizer, options: Options, topology: str = "ctc") -> GraphSetup:
    """Opens the files of --graph, --priors, --decoding-weights and --hotwords, for a model of `topology`.

    Raises UserError for files that do not fit.
    """
    graph = load_graph(options["graph"], tokenizer)
    if graph.meta["topology"] == "hmm" and options.get("blank_penalty"):
        raise UserError(f"--blank-penalty has no effect: {graph.folder} has no blank, its topology is hmm")
    if isinstance(tokenizer, PdfTokenizer) and options.get("blank_penalty"):
        raise UserError(f"--blank-penalty has no effect: {graph.folder} is of a Kaldi system, which has no blank")
    _require_topology(graph, topology)
    require_num_outputs(num_outputs(topology, tokenizer.size), graph.meta["outputs"])
    hotwords = read_hotwords(options["hotwords"]) if "hotwords" in options else []
    if hotwords:
        graph = add_hotwords(graph, tokenizer, hotwords)
    priors = read_priors(options["priors"], graph) if "priors" in options else None
    settings = {"graph": str(graph.folder), "graph_digest": file_hash(graph.folder / "graph.json")}
    if "priors" in options:
        settings["priors"] = file_hash(options["priors"])
    if hotwords:
        settings["hotwords"] = hotwords_hash(hotwords)
    return GraphSetup(graph, graph_options(options), priors, settings)


def _require_topology(graph: DecodingGraph, topology: str) -> None:
    """Raises UserError unless both have two outputs for each unit, or none of them."""
    graph_topology = graph.meta["topology"]
    if (graph_topology == "hmm") != (topology == "hmm"):
        hint = f"build it again with `asrtool graph --topology {topology}`"
        raise UserError(f"{graph.folder} has the topology {graph_topology}, and the model {topology}; {hint}")


def open_graph_search(
    tokenizer: Tokenizer, options: Options, jobs: int = 1, topology: str = "ctc"
) -> tuple[GraphSearch, dict]:
    """Returns the search in the graph of --graph by `jobs` processes, and the settings that determine its results."""
    setup = open_graph(tokenizer, options, topology)
    rescore = _open_rescoring(setup, options) if "rescore" in options else None
    keep_lattices = "lattices" in options
    search: GraphSearch
    if options.get("engine") == "k2":
        from asrtool.decoding.k2_search import K2Search

        if jobs > 1:
            raise UserError("--jobs has no effect on --engine k2, which searches a batch at a time")
        search = K2Search(setup.graph, setup.options, setup.priors, rescore, keep_lattices)
    else:
        search = GraphSearch(setup.graph, setup.options, jobs, setup.priors, rescore, keep_lattices)
    settings = search.settings | setup.settings
    if "rescore" in options:
        settings["rescore"] = file_hash(options["rescore"])
    return search, settings | {"lattices": keep_lattices, "jobs": jobs}


def _open_rescoring(setup: GraphSetup, options: Options) -> Callable[[Lattice], Lattice]:
    """Returns a function that replaces the scores of --graph-lm in a lattice by those of --rescore.

    The lattice is pruned by its beam again. What is subtracted is the score of --graph-lm. A graph lets a path back off
    where the higher n-gram exists as well; where that is cheaper, the graph's score is better than the model's by the
    difference, and keeps it. A hotword that the graph lacks costs as much as the graph's rarest word, minus its bonus:
    it is scored as this word, so that it keeps the bonus.
    """
    from asrtool.lm.ngram_files import load_lm, source_hash
    from asrtool.lm.unknown_words import score_unknown_as_rarest

    graph, graph_lm, new_lm = setup.graph, options["graph_lm"], options["rescore"]
    if "G" not in graph.meta["kind"]:
        hint = "build a graph with --kind HLG and --lm, or leave --rescore out"
        raise UserError(f"{graph.folder} has no language model whose scores --rescore could replace; {hint}")
    expected_hash = graph.meta["sha256"].get("lm")
    if expected_hash and source_hash(require_file(graph_lm, "language model", "see --graph-lm")) != expected_hash:
        raise UserError(f"{graph.folder} was not built with --graph-lm {graph_lm}: its sha256 is another")
    old, new = score_unknown_as_rarest(load_lm(graph_lm)), load_lm(new_lm)
    check_vocabulary(new, graph.words[1:-1], new_lm, f"the words of {graph.folder}")
    beam = POS_INF if setup.options.lattice_beam is None else setup.options.lattice_beam

    def rescore(lattice: Lattice) -> Lattice:
        return rescore_lattice(lattice, graph.words, old, new, beam)

    return rescore
