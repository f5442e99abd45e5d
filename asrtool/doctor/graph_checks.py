"""Checks of a decoding graph: its files, their hashes, and whether it fits the units of a model."""

import os
from pathlib import Path

from asrtool.doctor.findings import Finding, Report, Severity, finding_of_error, shell_command
from asrtool.errors import UserError
from asrtool.graphs.folder import META, SEARCHABLE, DecodingGraph, load_graph
from asrtool.text.tokenizer import Tokenizer

REBUILD_OPTIONS = ("--tokenizer", "MODEL_TOKENIZER.json", "--lm", "LM.arpa.gz")  # files of the user, to fill in


def is_graph(folder: Path) -> bool:
    """Returns True if `folder` has a graph.json."""
    return os.path.isfile(folder / META)  # False also for names that no file system allows


def check_graph(report: Report, folder: Path, tokenizer: Tokenizer | None = None) -> DecodingGraph | None:
    """Adds the findings about a graph; returns it, or None if it cannot be opened.

    Every FST in the folder is compared with its sha256 and read. With the `tokenizer` of a model, the graph must have
    been built for its units.
    """
    remedy = shell_command("asrtool", "graph", folder, *REBUILD_OPTIONS)
    try:
        graph = load_graph(folder)
    except (UserError, OSError) as error:
        report.add(finding_of_error("damaged-graph", folder, error, remedy))
        return None
    for kind in graph.meta["sizes"]:
        try:
            graph.read(kind)
        except UserError as error:
            report.add(finding_of_error("damaged-graph", folder / f"{kind}.fst", error, remedy))
    if tokenizer is not None:
        try:
            load_graph(folder, tokenizer)
        except UserError as error:
            report.add(finding_of_error("graph-of-other-units", folder, error, remedy))
    elif graph.meta["kind"] not in SEARCHABLE:
        cause = f"the graph is of kind {graph.meta['kind']}, which decoders cannot search"
        report.add(Finding("graph-kind", Severity.WARNING, str(folder), cause, f"{remedy} --kind HLG"))
    return graph


def graph_facts(graph: DecodingGraph) -> dict[str, object]:
    """Returns the facts about a graph for the report."""
    sizes = graph.meta["sizes"]
    return {
        "graph": f"{graph.meta['kind']}, topology {graph.meta['topology']}, {graph.meta['outputs']} outputs",
        "words": max(0, len(graph.words) - 2),  # without <eps> and #0
        "files": {f"{kind}.fst": f"{size.get('bytes', 0):,} bytes" for kind, size in sizes.items()},
    }
