"""The folder of a decoding graph, which `asrtool graph` writes and the decoders read.

    OUT/HLG.fst       the graph, an OpenFst file named for its kind; there may be files of other kinds, too
        words.txt     symbol table: <eps> 0, the words from 1, #0 last
        units.txt     symbol table: <eps> 0, unit u at u + 1 (so <blank> is 1), then #0, #1 ...
        lexicon.txt   pronunciations of the words, in units, or in phones if units are phones in context
        lm.arpa.gz    the n-gram model, if words were added to it
        phones.txt    the same as units.txt for phones, if units are phones in context (asrtool/text/context_units.py)
        graph.json    kind, topology, outputs, silence, the sizes and sha256 of each FST; its files; sha256 of
                      the tokenizer, the lexicon and the LM; the states where words begin (word_starts.py)

    kind             input labels           output labels
    H, HL, HLG       acoustic output + 1    words; H alone: units
    L, LG            units, or phones       words
    G                words                  words; #0 before a back-off arc, as in Kaldi

Input labels of H are as `DecodableCtc` of kaldi-decoder expects them; `meta["outputs"]` is the number of outputs that
the model must have. Only G has disambiguation symbols. Weights are costs, -log probability.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from asrtool.errors import UserError, require_file
from asrtool.files import file_hash, new_folder, require_own_folder, write_json, write_text
from asrtool.graphs import Kind
from asrtool.graphs.check import BadFst, LabelCounts, read_fst
from asrtool.graphs.lexicon_fst import BACKOFF, EPSILON
from asrtool.graphs.word_starts import MAX_WORD_COST, WordStart, WordStarts
from asrtool.locks import write_lock
from asrtool.readers import read_json, read_lines
from asrtool.text.lexicon import Lexicon, is_lexicon_word, read_lexicon, write_lexicon
from asrtool.text.tokenizer import Tokenizer
from asrtool.text.words import has_control_characters

if TYPE_CHECKING:
    from kaldifst import StdVectorFst

META = "graph.json"
WORDS = "words.txt"
UNITS = "units.txt"
PHONES = "phones.txt"
LEXICON = "lexicon.txt"
LM = "lm.arpa.gz"
COMMAND = "asrtool graph"
REBUILD = f"build it again with `{COMMAND}`"
KALDI_TOPOLOGY = "kaldi"  # of the HCLG of a Kaldi system (kaldi_graph.py)
SEARCHABLE = ("HLG", "HL")  # the kinds from the model's outputs to words
MAX_OUTPUTS = 1 << 24  # far more than any model has; labels are int32


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)


class _Silence(_Strict):
    unit: str
    probability: float = Field(gt=0, lt=1)


class _Hashes(_Strict):
    tokenizer: str
    lm: str | None = None


class _Fst(_Strict):
    sha256: str


WordCost = Annotated[float, Field(ge=-MAX_WORD_COST, le=MAX_WORD_COST)]


# JSON has lists for tuples
WordStartRow = Annotated[tuple[NonNegativeInt, NonNegativeInt, WordCost], Field(strict=False)]


class _WordStarts(_Strict):
    starts: list[WordStartRow]
    rarest_cost: WordCost
    final_cost: float = Field(ge=-MAX_WORD_COST)


class _Meta(_Strict):
    """The fields of graph.json that are read."""

    kind: Kind
    topology: Literal["ctc", "modified", "hmm", "kaldi"]
    outputs: int = Field(ge=1, le=MAX_OUTPUTS)
    separator: str | None = None
    silence: _Silence | None = None
    word_starts: _WordStarts | None = None
    sha256: _Hashes
    sizes: dict[Kind, _Fst]


@dataclass(frozen=True)
class DecodingGraph:
    """A graph on disk, or one with words and phrases that were added in memory (asrtool/graphs/phrases.py).

    `words` and `units` are symbols by label; words that were added have labels after #0. `meta` is graph.json.
    `changed_fst` is the graph with phrases, and `added` has the pronunciations of the words that were added.
    """

    folder: Path
    words: list[str]
    units: list[str]
    meta: dict
    changed_fst: "StdVectorFst | None" = None
    added: Lexicon = field(default_factory=lambda: Lexicon({}))

    @cached_property
    def fst(self) -> "StdVectorFst":
        """The graph of `meta["kind"]`, read when it is first used."""
        return self.read(self.meta["kind"]) if self.changed_fst is None else self.changed_fst

    @cached_property
    def lexicon(self) -> Lexicon:
        """The pronunciations of the words in units, or in phones if units are phones in context.

        Folders of earlier versions have no lexicon, so that only words that were added have pronunciations.
        """
        path = self.folder / LEXICON
        stored = read_lexicon(path, phones=self._lexicon_units()) if path.is_file() else Lexicon({})
        return stored.updated(self.added)

    def _lexicon_units(self) -> list[str]:
        """Returns the symbols that pronunciations may have: units, or phones if units are phones in context."""
        path = self.folder / PHONES
        table = _read_symbols(path) if path.is_file() else self.units
        return table[2 : table.index(BACKOFF)] if BACKOFF in table else table[2:]  # without <eps> and <blank>

    @property
    def word_starts(self) -> WordStarts | None:
        """The states in which words begin after the empty history; None for graphs in which they are not known."""
        stored = self.meta.get("word_starts")
        if stored is None:
            return None
        starts = [WordStart(*start) for start in stored["starts"]]
        return WordStarts(starts, stored["rarest_cost"], stored["final_cost"])

    def read(self, kind: str) -> "StdVectorFst":
        """Reads the FST of `kind`, e.g. "G", in the folder. UserError when it was not stored, or is damaged."""
        path = self.require_intact(kind)
        try:
            return read_fst(path, self.label_counts(kind))
        except BadFst as error:
            raise damaged_graph(path, error) from error

    def require_intact(self, kind: str) -> Path:
        """Returns the file of the FST of `kind`. UserError when it was not stored, or is not the one in graph.json."""
        path = require_file(self.folder / f"{kind}.fst", "graph", f"build it with `{COMMAND} --kind {kind}`")
        if file_hash(path) != self.meta["sizes"].get(kind, {}).get("sha256"):
            raise damaged_graph(path, f"is not the file that {META} describes (its sha256 is another)")
        return path

    def label_counts(self, kind: str) -> LabelCounts:
        """The numbers of labels that the FST of `kind` may have."""
        inputs = len(self.units)
        if kind.startswith("H"):
            inputs = 1 + self.meta["outputs"]
        elif kind == "G":
            inputs = len(self.words)
        return LabelCounts(inputs=inputs, outputs=len(self.units if kind == "H" else self.words))


def damaged_graph(path: Path, problem: object) -> UserError:
    """Returns the error for the file of a graph; `problem` is the end of a sentence that begins with its name."""
    return UserError(f"{path} {problem}; copy the whole folder again, or {REBUILD}")


def load_graph(folder: str | Path, tokenizer: Tokenizer | None = None) -> DecodingGraph:
    """The graph in `folder`. UserError when there is none, or it is damaged.

    With the `tokenizer` of a model, UserError also for a graph that was built for other units, or of a kind that a
    search from the model's outputs to words cannot use.
    """
    folder = Path(folder)
    meta = read_json(folder / META, "graph", f"build it with `{COMMAND}`")
    try:
        _Meta.model_validate(meta)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "all of it"
        raise UserError(f"{folder / META}: {where}: {first['msg']}; {REBUILD}") from error
    graph = DecodingGraph(
        folder=folder,
        words=_read_symbols(folder / WORDS),
        units=_read_symbols(folder / UNITS),
        meta=meta,
    )
    if tokenizer is not None:
        _check_model(graph, tokenizer)
    return graph


def _check_model(graph: DecodingGraph, tokenizer: Tokenizer) -> None:
    """Refuses a graph that a model with the units of `tokenizer` cannot search."""
    units = graph.units[1 : 1 + tokenizer.size]
    if units != tokenizer.symbols or graph.meta["sha256"]["tokenizer"] != tokenizer_hash(tokenizer):
        pairs = zip(units, tokenizer.symbols, strict=False)
        other = next((f" (its unit '{one}' is '{two}' there)" for one, two in pairs if one != two), "")
        raise UserError(
            f"{graph.folder} was built for another tokenizer than the model's{other}; {REBUILD} --tokenizer THE_MODEL'S"
        )
    if graph.meta["kind"] not in SEARCHABLE:
        raise UserError(
            f"{graph.folder} holds {graph.meta['kind']}, which decoders cannot search; {REBUILD} --kind HLG"
        )


def save_graph(
    folder: str | Path,
    fsts: Mapping[str, "StdVectorFst"],
    words: Sequence[str],
    units: Sequence[str],
    meta: dict,
    phones: Sequence[str] | None = None,
    lexicon: Lexicon | None = None,
    lm: Path | None = None,
) -> None:
    """Writes the folder, `fsts` by kind, and replaces an earlier graph there when it is complete.

    Words that a lexicon file cannot hold are left out of lexicon.txt.

    `words`, `units` and `phones` are symbols by label; there are `phones` if units are phones in context. `lm` is a
    file that is copied, the n-gram model of the graph with added words.
    The names of the files, and in `sizes` the bytes and the sha256 of each FST, are added to `meta`. UserError for a
    folder that `asrtool graph` did not write, a full disk, and another process that writes there.
    """
    require_own_folder(folder, META, COMMAND)  # before a lock is written into it
    with write_lock(folder, COMMAND), new_folder(folder, META, COMMAND) as new:
        for kind, fst in fsts.items():
            path = new / f"{kind}.fst"
            if not fst.write(str(path)):
                raise UserError(f"OpenFst could not write {folder}/{path.name}; check the free space, and run it again")
            meta["sizes"][kind] |= {"bytes": path.stat().st_size, "sha256": file_hash(path)}
        write_symbols(new / WORDS, words)
        write_symbols(new / UNITS, units)
        meta["files"] = [META, WORDS, UNITS, *(f"{kind}.fst" for kind in fsts)]
        if phones:
            write_symbols(new / PHONES, phones)
            meta["files"].append(PHONES)
        if lexicon:
            write_lexicon(lexicon.only(filter(is_lexicon_word, lexicon.pronunciations)), new / LEXICON)
            meta["files"].append(LEXICON)
        if lm:
            shutil.copyfile(lm, new / LM)
            meta["files"].append(LM)
        write_json(new / META, meta)


def write_symbols(path: str | Path, symbols: Sequence[str]) -> None:
    """Writes an OpenFst symbol table: a line for each symbol, with its label."""
    write_text(path, "".join(f"{symbol} {label}\n" for label, symbol in enumerate(symbols)))


def _read_symbols(path: Path) -> list[str]:
    """Reads the symbols by label. UserError for a file that is not a table with the labels 0, 1, 2 ..."""
    symbols: list[str] = []
    for number, line in enumerate(read_lines(path, "symbol table of a graph", REBUILD), 1):
        symbol, _, label = line.rstrip("\n").rpartition(" ")
        if not symbol or label != str(len(symbols)):
            raise UserError(f"{path}:{number}: not a symbol and the label {len(symbols)}; {REBUILD}")
        if has_control_characters(symbol):
            raise UserError(f"{path}:{number}: the symbol has control characters; {REBUILD}")
        symbols.append(symbol)
    if symbols[:1] != [EPSILON]:
        raise UserError(f"{path}: label 0 is not {EPSILON}; {REBUILD}")
    return symbols


def tokenizer_hash(tokenizer: Tokenizer) -> str:
    """sha256 of the tokenizer's content, whatever the layout of its file."""
    return _hash(tokenizer.to_dict())


def lexicon_hash(lexicon: Lexicon) -> str:
    """sha256 of the words, their pronunciations and the probabilities of these, whatever the order of the words."""
    if not lexicon.probabilities:
        return _hash(lexicon.pronunciations)
    return _hash([lexicon.pronunciations, sorted(lexicon.probabilities.items())])


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
