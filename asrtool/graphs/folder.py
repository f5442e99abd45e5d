"""The folder of a decoding graph: what `asrtool graph` writes and the decoders read.

    OUT/HLG.fst       the graph, an OpenFst file named for its kind; other kinds beside it when they were asked for
        words.txt     symbol table: <eps> 0, the words from 1, #0 last
        units.txt     symbol table: <eps> 0, unit u at u + 1 (so <blank> is 1), then #0, #1 ...
        graph.json    kind, topology, outputs, silence, sizes; sha256 of the tokenizer, the lexicon and the LM

    kind             input labels           output labels
    H, HL, HLG       acoustic output + 1    words; those of H alone: units
    L, LG            units                  words
    G                words                  words; #0 before a back-off arc, as in Kaldi

Input labels of H are what `DecodableCtc` of kaldi-decoder expects; `meta["outputs"]` is how many outputs the model must
have. Disambiguation symbols are in no graph but G. Weights are costs, -log probability.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from asrtool.errors import UserError, require_file
from asrtool.files import atomic_path, write_json, write_text
from asrtool.text.lexicon import Lexicon
from asrtool.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from kaldifst import StdVectorFst

META = "graph.json"
REMAKE = "make it anew with `asrtool graph`"


@dataclass(frozen=True)
class Graph:
    """A graph on disk. `words[label]` and `units[label]` name its labels; `meta` is graph.json."""

    folder: Path
    words: list[str]
    units: list[str]
    meta: dict

    @cached_property
    def fst(self) -> "StdVectorFst":
        """The graph itself, read when first asked for."""
        return self.read(self.meta["kind"])

    def read(self, kind: str) -> "StdVectorFst":
        """The FST of `kind` in the folder, e.g. "G". UserError when it was not stored, or is damaged."""
        path = require_file(self.folder / f"{kind}.fst", "graph", f"make it with `asrtool graph --kind {kind}`")
        import kaldifst

        fst = kaldifst.StdVectorFst.read(str(path))
        if fst is None:
            raise UserError(f"{path} is not an OpenFst file of type vector; {REMAKE}")
        return fst


def load_graph(folder: str | Path, tokenizer: Tokenizer | None = None) -> Graph:
    """The graph in `folder`. UserError when there is none, or when it was made for another tokenizer."""
    folder = Path(folder)
    path = require_file(folder / META, "graph", "make it with `asrtool graph`")
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        graph = Graph(folder, _read_symbols(folder / "words.txt"), _read_symbols(folder / "units.txt"), meta)
        made_for = meta["sha256"]["tokenizer"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} is not a whole graph folder ({error}); {REMAKE}") from error
    if tokenizer is not None and made_for != tokenizer_hash(tokenizer):
        raise UserError(f"{folder} was made for another tokenizer than the model's; {REMAKE} --tokenizer THE_MODEL'S")
    return graph


def save_graph(
    folder: str | Path, fsts: Mapping[str, "StdVectorFst"], words: Sequence[str], units: Sequence[str], meta: dict
) -> None:
    """Write the folder, `fsts` by kind, without the FSTs of an earlier graph; adds their bytes to `meta["sizes"]`.

    graph.json goes first and comes back last: without it, there is no graph.
    """
    folder = Path(folder)
    for old in [folder / META, *folder.glob("*.fst")]:
        old.unlink(missing_ok=True)
    for kind, fst in fsts.items():
        path = folder / f"{kind}.fst"
        with atomic_path(path) as temporary:
            if not fst.write(str(temporary)):
                raise UserError(f"OpenFst could not write {path}; see whether there is space, and rerun")
        meta["sizes"][kind]["bytes"] = path.stat().st_size
    write_symbols(folder / "words.txt", words)
    write_symbols(folder / "units.txt", units)
    write_json(folder / META, meta)


def write_symbols(path: str | Path, symbols: Sequence[str]) -> None:
    """An OpenFst symbol table: `symbols[label]` and its label, a line each."""
    write_text(path, "".join(f"{symbol} {label}\n" for label, symbol in enumerate(symbols)))


def _read_symbols(path: Path) -> list[str]:
    rows = [line.rsplit(maxsplit=1) for line in path.read_text(encoding="utf-8").split("\n") if line]
    if [int(label) for _, label in rows] != list(range(len(rows))):
        raise ValueError(f"{path.name}: labels are not 0, 1, 2 ...")
    return [symbol for symbol, _ in rows]


def tokenizer_hash(tokenizer: Tokenizer) -> str:
    """sha256 of what the tokenizer's file says, however the file is laid out."""
    return _hash(tokenizer.to_dict())


def lexicon_hash(lexicon: Lexicon) -> str:
    """sha256 of the words and their pronunciations, in whatever order the words came."""
    return _hash(lexicon.pronunciations)


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
