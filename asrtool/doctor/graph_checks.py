"""Checks of a decoding graph: its files, their hashes, and whether it fits the units of a model."""

import os
from pathlib import Path
from typing import Any

from asrtool.doctor.findings import Finding, Report, Severity, finding_of_error, shell_command
from asrtool.errors import AsrtoolError, UserError
from asrtool.files import file_hash
from asrtool.graphs.folder import KALDI_TOPOLOGY, LEXICON, META, SEARCHABLE, DecodingGraph, load_graph, tokenizer_hash
from asrtool.graphs.topology import DEFAULT_TOPOLOGY
from asrtool.readers import read_json
from asrtool.text.tokenizer import Tokenizer, load_tokenizer


def is_graph(folder: Path) -> bool:
    """Returns True if `folder` has a graph.json."""
    return os.path.isfile(folder / META)  # False also for names that no file system allows


def check_graph(
    report: Report, folder: Path, tokenizer: Tokenizer | None = None, remedy: str = ""
) -> DecodingGraph | None:
    """Adds the findings about a graph; returns it, or None if it cannot be opened.

    Every FST in the folder is compared with its sha256 and read. With the `tokenizer` of a model, the graph must have
    been built for its units. `remedy` is the command that builds the graph, by default one from the files beside it.
    """
    remedy = remedy or rebuild_command(folder)
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
    if tokenizer is not None and not _has_units(graph, tokenizer):
        cause = f"the graph was built for other units than the units of the model{_other_unit(graph, tokenizer)}"
        report.add(Finding("graph-of-other-units", Severity.ERROR, str(folder), cause, remedy))
    elif graph.meta["kind"] not in SEARCHABLE:
        cause = f"the graph is of kind {graph.meta['kind']}, which decoders cannot search"
        severity = Severity.WARNING if tokenizer is None else Severity.ERROR
        report.add(Finding("graph-kind", severity, str(folder), cause, "build it with `asrtool graph --kind HLG`"))
    return graph


def _has_units(graph: DecodingGraph, tokenizer: Tokenizer) -> bool:
    units = graph.units[1 : 1 + tokenizer.size]
    return units == tokenizer.symbols and graph.meta["sha256"]["tokenizer"] == tokenizer_hash(tokenizer)


def _other_unit(graph: DecodingGraph, tokenizer: Tokenizer) -> str:
    """Returns the first unit that differs, as the end of a sentence; "" if only other properties differ."""
    pairs = zip(graph.units[1:], tokenizer.symbols, strict=False)
    other = next(((number, *pair) for number, pair in enumerate(pairs) if pair[0] != pair[1]), None)
    return f": unit {other[0]} is {other[1]} in the graph, and {other[2]} in the model" if other else ""


def rebuild_command(folder: Path) -> str:
    """Returns the command that builds a graph again from the tokenizer and the language model in the same folder.

    The files are those whose checksums are in graph.json, if it is lost those with the usual names. Without these
    files, the remedy is an instruction.
    """
    meta = _meta(folder)
    if meta.get("topology") == KALDI_TOPOLOGY:
        return f"copy {folder} again, or build it with `asrtool graph --kaldi-graph` from the same graph of Kaldi"
    recorded = meta.get("sha256")
    hashes = recorded if isinstance(recorded, dict) else {}
    tokenizers = [path for path in _beside(folder, "*.json") if _is_tokenizer(path, hashes.get("tokenizer"))]
    lms = [path for path in _beside(folder, "*.arpa*") if hashes.get("lm") in (None, file_hash(path))]
    if not tokenizers or not lms:
        return f"copy {folder} again, or build it with `asrtool graph` from the same tokenizer and language model"
    options: list[object] = ["--tokenizer", tokenizers[0], "--lm", lms[0]]
    if (folder.parent / LEXICON).is_file():
        options += ["--lexicon", folder.parent / LEXICON]
    for kind in meta.get("sizes", ()) if meta.get("kind") in meta.get("sizes", ()) else ():
        options += ["--kind", kind]
    if meta.get("topology", DEFAULT_TOPOLOGY) != DEFAULT_TOPOLOGY:
        options += ["--topology", meta["topology"]]
    return shell_command("asrtool", "graph", folder, *options)


def _meta(folder: Path) -> dict[str, Any]:
    """Returns graph.json, an empty dict if it cannot be read."""
    try:
        content = read_json(folder / META, "graph", "")
    except AsrtoolError:
        return {}
    return content if isinstance(content, dict) else {}


def _beside(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in Path(folder).parent.glob(pattern) if path.is_file())


def _is_tokenizer(path: Path, expected: object) -> bool:
    """Returns True for a tokenizer with the checksum `expected`, or for tokenizer.json if this is None."""
    if expected is None:
        return path.name == "tokenizer.json"
    try:
        return tokenizer_hash(load_tokenizer(path)) == expected
    except (AsrtoolError, OSError, ValueError, LookupError, TypeError):
        return False


def graph_facts(graph: DecodingGraph) -> dict[str, object]:
    """Returns the facts about a graph for the report."""
    sizes = graph.meta["sizes"]
    return {
        "graph": f"{graph.meta['kind']}, topology {graph.meta['topology']}, {graph.meta['outputs']} outputs",
        "words": max(0, len(graph.words) - 2),  # without <eps> and #0
        "files": {f"{kind}.fst": f"{size.get('bytes', 0):,} bytes" for kind, size in sizes.items()},
    }
