"""Checks of a decoding graph: its files, their hashes, and whether it fits the units of a model."""

from pathlib import Path

from asrtool.doctor.findings import Finding, Report, Severity, finding_of_error
from asrtool.errors import UserError
from asrtool.graphs.folder import META, SEARCHABLE, DecodingGraph, load_graph
from asrtool.text.tokenizer import Tokenizer

REBUILD = "asrtool graph {folder} --tokenizer THE_MODEL'S_TOKENIZER.json --lm LM.arpa.gz"


def is_graph(folder: Path) -> bool:
    """Returns True if `folder` has a graph.json."""
    return (folder / META).is_file()


def check_graph(report: Report, folder: Path, tokenizer: Tokenizer | None = None) -> DecodingGraph | None:
    """Adds the findings about a graph; returns it, or None if it cannot be opened.

    Every FST in the folder is compared with its sha256 and read. With the `tokenizer` of a model, the graph must have
    been built for its units.
    """
    remedy = REBUILD.format(folder=folder)
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
