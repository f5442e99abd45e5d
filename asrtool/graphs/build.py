"""Builds the folder of a decoding graph from a tokenizer, a lexicon and a language model, as `asrtool graph` does."""

import logging
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from asrtool.config import DEFAULT_SILENCE_PROBABILITY
from asrtool.errors import UserError
from asrtool.files import file_hash, require_own_folder
from asrtool.graphs.added_words import add_to_lexicon, read_added_words, write_lm_with_words
from asrtool.graphs.compile import Compiler, peak_mb
from asrtool.graphs.folder import COMMAND, LM, META, lexicon_hash, save_graph, tokenizer_hash
from asrtool.graphs.grammar import NOT_WORDS, arpa_words, compare_vocabularies
from asrtool.graphs.lexicon_fst import WordBoundary
from asrtool.graphs.sources import graph_sources
from asrtool.graphs.topology import DEFAULT_TOPOLOGY
from asrtool.lm.added_words import NewWord
from asrtool.lm.ngram_files import convert_ngrams, is_compiled, source_hash
from asrtool.text.context_units import ContextTokenizer
from asrtool.text.lexicon import Lexicon, read_lexicon
from asrtool.text.outputs import num_outputs
from asrtool.text.pdf_tokenizer import PdfTokenizer, no_pronunciations
from asrtool.text.tokenizer import SPACE, Tokenizer, load_tokenizer

logger = logging.getLogger(__name__)

DEFAULT_KINDS = ("HLG",)


def build_graph_like(source: Path, out: Path, **options: Any) -> dict:
    """Builds a graph as `build_graph` does; what is not among `options` is as in `source`, a pack or another graph.

    Raises UserError where `source` does not have the file of an option that is not given.
    """
    require_own_folder(out, META, COMMAND, [source])
    sources = asdict(graph_sources(source))
    given = {name: value for name, value in sources.items() if value is not None} | options
    if options.get("silence") == "" and "silence_probability" not in options:
        given.pop("silence_probability", None)
    if "tokenizer" not in given:
        raise UserError(f"{source} is a graph, which does not contain its tokenizer; give --tokenizer FILE, too")
    if "lm" not in given and any("G" in kind for kind in given["kinds"]):
        raise UserError(f"{source} does not contain the n-gram model of its graph; give --lm ARPA, too")
    return build_graph(out, **given)


class _Inputs(NamedTuple):
    """What a graph is compiled from: the pronunciations of all words, the n-gram model, and the words of the latter."""

    lexicon: Lexicon
    lm: Path | None
    lm_words: list[str] | None
    lm_hash: str | None  # sha256 of the ARPA file that the user gave, or that a compiled model was converted from
    num_added: int = 0

    def usable_lexicon(self) -> Lexicon:
        """The part of the lexicon whose words the LM has; logs how many words each of the two lacks."""
        if self.lm_words is None:
            return self.lexicon
        for line in compare_vocabularies(self.lexicon.pronunciations, self.lm_words):
            logger.info(line)
        in_lm = set(self.lm_words)
        return self.lexicon.only(word for word in self.lexicon.pronunciations if word in in_lm)


def build_graph(
    out: str | Path,
    tokenizer: str | Path,
    lexicon: str | Path | None = None,
    lm: str | Path | None = None,
    kinds: Sequence[str] = DEFAULT_KINDS,
    topology: str = DEFAULT_TOPOLOGY,
    silence: str | None = None,
    silence_probability: float | None = None,
    add_words: str | Path | None = None,
) -> dict:
    """Compiles the graphs `kinds` into the folder `out`; returns graph.json, the time and the peak memory.

    The first of the kinds is the graph to decode with. Without `lexicon`, the tokenizer gives the pronunciations of the
    LM's words. `silence` None is the tokenizer's own, where it has one; "" is none. `silence_probability` None is
    DEFAULT_SILENCE_PROBABILITY, and another one needs a silence. `add_words` is a file of words that the lexicon and
    the LM get as well (asrtool/graphs/added_words.py); the LM with these words is stored in the folder. Raises
    UserError for inputs that do not fit together, and for a folder that another command wrote or that has an input.
    """
    start = time.perf_counter()
    require_own_folder(out, META, COMMAND, filter(None, (tokenizer, lexicon, lm, add_words)))
    units = load_tokenizer(tokenizer)
    if isinstance(units, PdfTokenizer):
        raise no_pronunciations()
    if lm is None and any("G" in kind for kind in kinds):
        raise UserError(f"--kind {', '.join(kinds)} has a language model, G; give --lm ARPA, or ask for --kind HL")
    with tempfile.TemporaryDirectory() as temporary:
        inputs = _read_inputs(units, lexicon, Path(lm) if lm else None, Path(temporary))
        if add_words:
            inputs = _with_added_words(inputs, units, add_words, Path(temporary))
        boundary = _word_boundary(units, silence, silence_probability or DEFAULT_SILENCE_PROBABILITY)
        if silence_probability is not None and not boundary.silence:
            raise UserError(
                "--silence-prob has no effect: the graph has no silence; give --silence UNIT, or leave it out"
            )
        context = units if isinstance(units, ContextTokenizer) else None
        used = inputs.usable_lexicon()
        compiler = Compiler(units.symbols, used, inputs.lm, topology, boundary, context)
        fsts = {kind: getattr(compiler, kind) for kind in dict.fromkeys(kinds)}
        meta = _graph_meta(compiler, kinds, units, inputs)
        phones = compiler.phones if context else None
        new_lm = inputs.lm if add_words else None
        save_graph(out, fsts, compiler.words, compiler.units, meta, phones, used, new_lm)
    return meta | {"seconds": round(time.perf_counter() - start, 1), "peak_mb": peak_mb()}


def _graph_meta(compiler: Compiler, kinds: Sequence[str], tokenizer: Tokenizer, inputs: _Inputs) -> dict:
    """Returns the content of graph.json without the names and hashes of files."""
    boundary = compiler.boundary
    word_starts = compiler.word_starts.get(kinds[0])
    return {
        "kind": kinds[0],
        "topology": compiler.topology,
        "outputs": num_outputs(compiler.topology, tokenizer.size),
        "words": len(compiler.words) - 2,  # without <eps> and #0
        "added_words": inputs.num_added,
        "separator": boundary.separator,
        "silence": {"unit": boundary.silence, "probability": boundary.probability} if boundary.silence else None,
        "word_starts": asdict(word_starts) if word_starts else None,
        "sizes": {kind: compiler.sizes[kind] for kind in dict.fromkeys(kinds)},
        "sha256": _hashes(tokenizer, inputs),
        "steps": compiler.steps,
        "kaldifst": version("kaldifst"),
    }


def _as_arpa(lm: Path, folder: Path) -> Path:
    """Returns the n-gram model `lm` as an ARPA file: a compiled one is written into `folder`."""
    if not is_compiled(lm):
        return lm
    arpa = folder / "compiled.arpa"
    convert_ngrams(lm, arpa)
    return arpa


def _read_inputs(tokenizer: Tokenizer, lexicon: str | Path | None, lm: Path | None, folder: Path) -> _Inputs:
    arpa = _as_arpa(lm, folder) if lm else None
    lm_words = arpa_words(arpa) if arpa else None
    return _Inputs(_load_lexicon(tokenizer, lexicon, lm_words), arpa, lm_words, source_hash(lm) if lm else None)


def _with_added_words(inputs: _Inputs, tokenizer: Tokenizer, path: str | Path, folder: Path) -> _Inputs:
    """Returns the inputs with the words of the file `path`; the new n-gram model is a file in `folder`."""
    words = read_added_words(path, tokenizer.without_context.symbols[1:])
    lexicon = add_to_lexicon(inputs.lexicon, words, tokenizer)
    if inputs.lm is None:
        if rows := [word.word for word in words if word.lm != NewWord(word.word)]:
            raise UserError(f"{path} has probabilities or like= ({rows[0]}), which need a language model; give --lm")
        return inputs._replace(lexicon=lexicon, num_added=len(words))
    lm = folder / LM
    num_new = write_lm_with_words(inputs.lm, words, lm)
    logger.info(f"{len(words)} words of {path} are added, {num_new} of them to the language model")
    return _Inputs(lexicon, lm, arpa_words(lm), file_hash(lm), len(words))


def _load_lexicon(tokenizer: Tokenizer, path: str | Path | None, words: list[str] | None) -> Lexicon:
    """The lexicon in the file `path`, or the tokenizer's pronunciations of `words`."""
    if path:
        return read_lexicon(path, phones=tokenizer.without_context.symbols[1:])
    if words is None:
        raise UserError("no words to build a graph of; give --lexicon FILE or --lm ARPA")
    return tokenizer_lexicon(tokenizer, [word for word in words if word not in NOT_WORDS])


def _word_boundary(tokenizer: Tokenizer, silence: str | None, probability: float) -> WordBoundary:
    """A separator for characters; nothing for BPE, whose words begin with a mark; for phones, optional silence."""
    if tokenizer.separator == SPACE:
        return WordBoundary(SPACE, silence, probability)
    return WordBoundary(None, tokenizer.separator if silence is None else silence, probability)


def _hashes(tokenizer: Tokenizer, inputs: _Inputs) -> dict[str, str | None]:
    """The sha256 of what a graph is built from."""
    return {"tokenizer": tokenizer_hash(tokenizer), "lexicon": lexicon_hash(inputs.lexicon), "lm": inputs.lm_hash}


def tokenizer_lexicon(tokenizer: Tokenizer, words: Iterable[str]) -> Lexicon:
    """The pronunciations of `words` in a tokenizer's units, for the words that have any.

    Phones: the pronunciations of the tokenizer's own lexicon. Characters: the word's characters, without
    `tokenizer.separator`, the space, which stands between words. BPE: the pieces of the word alone, the first of which
    has sentencepiece's mark; no piece contains a space, so that the pieces of its words are the pieces of a text.
    Raises UserError when no word has a pronunciation.
    """
    words = list(words)
    lexicon = tokenizer.lexicon_of(words)
    if not lexicon.pronunciations:
        raise UserError(f"the tokenizer has units for none of the {len(words)} words; are they in another case?")
    return lexicon
