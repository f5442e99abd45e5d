"""The decoding graph of a Kaldi system, HCLG, as a graph of asrtool, for models whose units are the system's pdfs.

HCLG holds all that pdfs need in decoding: the tree (context of any width), the HMMs with their self-loops and
transition probabilities, position-dependent phones, optional silence and the language model. Its input labels are
transition ids, of which every frame takes one. So what is needed is a relabelling: the transition id becomes its pdf
(asrtool/text/pdf_tokenizer.py), and words get labels without a gap.

Kaldi's mkgraph.sh writes HCLG.fst, an OpenFst file of type const or vector, and words.txt, a symbol table.
"""

import re
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asrtool.errors import UserError, require_file
from asrtool.files import report_full_disk, require_own_folder
from asrtool.graphs.check import (
    EXPANDED_MUTABLE,
    HEADER,
    MAGIC,
    PROPERTIES,
    STATE_BYTES,
    BadFst,
    LabelCounts,
    checked_blocks,
    has_property,
    read_fst,
)
from asrtool.graphs.compile import peak_mb
from asrtool.graphs.const_fst import ARC, STATE
from asrtool.graphs.const_fst import MAGIC as CONST_MAGIC
from asrtool.graphs.folder import COMMAND, KALDI_TOPOLOGY, META, save_graph, tokenizer_hash
from asrtool.graphs.lexicon_fst import BACKOFF, EPSILON
from asrtool.readers import read_lines
from asrtool.text.pdf_tokenizer import PdfTokenizer
from asrtool.text.tokenizer import load_tokenizer
from asrtool.text.words import has_control_characters

GRAPH = "HCLG.fst"
HINT = "give a folder of Kaldi's mkgraph.sh"
MAX_LABELS = 1 << 28


class _Graph(NamedTuple):
    """The states and arcs of an FST: the arcs of state s follow the arcs of state s - 1."""

    start: int
    final: np.ndarray  # (S,) float32: weights, infinity where a state is not final
    num_arcs: np.ndarray  # (S,) int64
    labels: np.ndarray  # (A, 2) int32: input and output
    cost: np.ndarray  # (A,) float32
    target: np.ndarray  # (A,) int32


def build_kaldi_graph(out: Path, folder: Path, tokenizer: Path) -> dict:
    """Writes HCLG of a folder of Kaldi as the graph folder `out`, for a tokenizer of pdfs.

    Returns graph.json, the time and the peak memory. Raises UserError for files that are missing,
    damaged or of another system.
    """
    start = time.perf_counter()
    require_own_folder(out, META, COMMAND, [folder, tokenizer])
    units = load_tokenizer(tokenizer)
    if not isinstance(units, PdfTokenizer):
        raise UserError(f"{tokenizer} has other units than pdfs; create it with `asrtool tokenizer --type pdf`")
    path = require_file(folder / GRAPH, "graph of Kaldi", HINT)
    words = _read_words(folder / "words.txt")
    _check_num_pdfs(folder, units)
    try:
        graph = _read_graph(path)
        used = _used_words(graph, words)
        relabelled = _relabel(graph, units, used)
        disk = f"temporary files in {tempfile.gettempdir()} (TMPDIR names another folder)"
        with tempfile.TemporaryDirectory() as temporary, report_full_disk(disk):
            fst_path = Path(temporary) / "HLG.fst"
            _write_vector_fst(relabelled, fst_path)
            fst = read_fst(fst_path, LabelCounts(inputs=1 + units.size, outputs=len(used) + 2))
    except BadFst as error:
        raise UserError(f"{path} {error}; {HINT}") from error
    sizes = {"states": len(graph.final), "arcs": len(graph.target)}
    meta = {
        "kind": "HLG",
        "topology": KALDI_TOPOLOGY,
        "outputs": units.size,
        "words": len(used),
        "added_words": 0,
        "separator": None,
        "silence": None,
        "word_starts": None,
        "sizes": {"HLG": sizes | {name: has_property(fst, name) for name in PROPERTIES}},
        "sha256": {"tokenizer": tokenizer_hash(units), "lm": None},
    }
    symbols = [EPSILON, *(words[label] for label in used), BACKOFF]
    save_graph(out, {"HLG": fst}, symbols, [EPSILON, *units.symbols, BACKOFF], meta)
    return meta | {"seconds": round(time.perf_counter() - start, 1), "peak_mb": peak_mb()}


def _read_words(path: Path) -> dict[int, str]:
    """Returns the symbols of a symbol table by label."""
    words: dict[int, str] = {}
    for number, line in enumerate(read_lines(path, "symbol table of Kaldi", HINT), 1):
        fields = line.split()
        if len(fields) != 2 or not re.fullmatch("[0-9]{1,9}", fields[1]) or int(fields[1]) in words:
            raise UserError(f"{path}:{number}: no word and a label of its own; {HINT}")
        if has_control_characters(fields[0]):
            raise UserError(f"{path}:{number}: the word has control characters; {HINT}")
        words[int(fields[1])] = fields[0]
    return words


def _check_num_pdfs(folder: Path, units: PdfTokenizer) -> None:
    """Raises UserError if num_pdfs, which Kaldi writes into the folder of the graph, is not the tokenizer's number."""
    path = folder / "num_pdfs"
    if not path.is_file():
        return
    with open(path, "rb") as file:
        text = file.read(100).strip()
    if text != str(units.size - 1).encode():
        is_of = f"a system of {text.decode('ascii', 'replace')} pdfs, the tokenizer of one with {units.size - 1}"
        raise UserError(f"{folder} is the graph of {is_of}; take both from the same final.mdl")


def _read_graph(path: Path) -> _Graph:
    """Reads an OpenFst file of type const or vector with arcs of type standard. Raises BadFst for any other."""
    with open(path, "rb") as file:
        if file.read(len(CONST_MAGIC)) == CONST_MAGIC:
            return _read_const_fst(file.read())
    start, num_states, blocks = checked_blocks(path, LabelCounts(MAX_LABELS, MAX_LABELS))
    parts = list(blocks)
    sources = np.concatenate([part.arcs.source for part in parts])
    return _Graph(
        start,
        np.concatenate([part.final for part in parts]),
        np.bincount(sources, minlength=num_states),
        np.concatenate([part.arcs.labels for part in parts]),
        np.concatenate([part.arcs.cost for part in parts]),
        np.concatenate([part.arcs.target for part in parts]),
    )


def _read_const_fst(content: bytes) -> _Graph:
    """Reads a const FST from its `content` without the magic (asrtool/graphs/const_fst.py has the format)."""
    if len(content) < HEADER.size:
        raise BadFst("is cut short")
    flags, _, start, num_states, num_arcs = HEADER.unpack_from(content)
    if flags:
        raise BadFst("has symbol tables, or is aligned; convert it with fstconvert --fst_type=const")
    rest = len(content) - HEADER.size
    if not (
        0 <= start < num_states and num_arcs >= 0 and rest == num_states * STATE.itemsize + num_arcs * ARC.itemsize
    ):
        raise BadFst(f"has {num_states} states and {num_arcs} arcs by its header, which do not fit its size")
    states = np.frombuffer(content, STATE, num_states, HEADER.size)
    arcs = np.frombuffer(content, ARC, num_arcs, HEADER.size + num_states * STATE.itemsize)
    counts = states["arcs"].astype(np.int64)
    if counts.sum() != num_arcs or not np.array_equal(np.cumsum(counts) - counts, states["first"]):
        raise BadFst("has states whose arcs do not follow each other")
    return _Graph(start, states["final"], counts, arcs["labels"], arcs["cost"], arcs["target"])


def _used_words(graph: _Graph, words: dict[int, str]) -> list[int]:
    """Returns the output labels of the graph, without epsilon. Raises BadFst for one that is not a word."""
    used = np.unique(graph.labels[:, 1])
    labels = used[used != 0].tolist()
    unknown = next((label for label in labels if label not in words), None)
    if unknown is not None:
        raise BadFst(f"has the output label {unknown}, which words.txt does not have")
    return labels


def _relabel(graph: _Graph, units: PdfTokenizer, used: list[int]) -> _Graph:
    """Returns the graph with pdf + 2 as the input label (output pdf + 1 of the model, plus 1), and words from 1."""
    transitions = graph.labels[:, 0]
    limit = len(units.transition_pdfs)
    if len(transitions) and not 0 <= transitions.min() <= transitions.max() <= limit:
        raise BadFst(f"has transition ids beyond the {limit} of the tokenizer's model")
    new_input = np.array([0, *(pdf + 2 for pdf in units.transition_pdfs)], np.int32)
    outputs = np.searchsorted(np.array([0, *used]), graph.labels[:, 1]).astype(np.int32)
    return graph._replace(labels=np.stack([new_input[transitions], outputs], axis=1))


def _write_vector_fst(graph: _Graph, path: Path) -> None:
    """Writes an OpenFst file of type vector (asrtool/graphs/check.py has the format)."""
    state_words = STATE_BYTES // 4
    arc_words = 4
    ends = np.cumsum(state_words + arc_words * graph.num_arcs)
    heads = ends - state_words - arc_words * graph.num_arcs  # where each state begins, in int32 numbers
    content = np.zeros(ends[-1], "<i4")
    is_arc = np.ones(len(content), bool)
    is_arc[heads[:, None] + np.arange(state_words)] = False
    content[heads] = graph.final.view("<i4")
    content[heads + 1] = graph.num_arcs  # the lower half of an int64
    table = np.empty((len(graph.target), arc_words), "<i4")
    table[:, :2] = graph.labels
    table[:, 2] = graph.cost.view("<i4")
    table[:, 3] = graph.target
    content[is_arc] = table.reshape(-1)
    with open(path, "wb") as file:
        file.write(MAGIC + HEADER.pack(0, EXPANDED_MUTABLE, graph.start, len(graph.final), len(graph.target)))
        file.write(content.tobytes())
