"""Builds the folder of a decoding graph from a tokenizer, a lexicon and a language model, as `asrtool graph` does."""

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from asrtool.errors import UserError
from asrtool.files import file_hash, require_own_folder
from asrtool.graphs.compile import Compiler, peak_mb
from asrtool.graphs.folder import COMMAND, META, lexicon_hash, save_graph, tokenizer_hash
from asrtool.graphs.grammar import NOT_WORDS, arpa_words, compare_vocabularies
from asrtool.graphs.lexicon_fst import WordBoundary
from asrtool.graphs.topology import num_outputs
from asrtool.text.context_units import ContextTokenizer
from asrtool.text.lexicon import Lexicon, read_lexicon
from asrtool.text.tokenizer import SPACE, Tokenizer, load_tokenizer

logger = logging.getLogger(__name__)


def build_graph(
    out: str | Path,
    tokenizer: str | Path,
    lexicon: str | Path | None = None,
    lm: str | Path | None = None,
    kinds: Sequence[str] = ("HLG",),
    topology: str = "ctc",
    silence: str | None = None,
    silence_probability: float = 0.5,
) -> dict:
    """Compiles the graphs `kinds` into the folder `out`; returns graph.json, the time and the peak memory.

    The first of the kinds is the graph to decode with. Without `lexicon`, the tokenizer gives the pronunciations of the
    LM's words. `silence` None is the tokenizer's own, where it has one; "" is none. Raises UserError for inputs that do
    not fit together, and for a folder that another command wrote.
    """
    start = time.perf_counter()
    require_own_folder(out, META, COMMAND)
    units = load_tokenizer(tokenizer)
    if lm is None and any("G" in kind for kind in kinds):
        raise UserError(f"--kind {', '.join(kinds)} has a language model, G; give --lm ARPA, or ask for --kind HL")
    lm_words = arpa_words(lm) if lm else None
    pronunciations = _load_lexicon(units, lexicon, lm_words)
    boundary = _word_boundary(units, silence, silence_probability)
    context = units if isinstance(units, ContextTokenizer) else None
    used = _in_both(pronunciations, lm_words)
    compiler = Compiler(units.symbols, used, lm, topology, boundary, context)
    fsts = {kind: getattr(compiler, kind) for kind in dict.fromkeys(kinds)}
    word_starts = compiler.word_starts.get(kinds[0])
    meta = {
        "kind": kinds[0],
        "topology": topology,
        "outputs": num_outputs(topology, units.size),
        "words": len(compiler.words) - 2,  # without <eps> and #0
        "separator": boundary.separator,
        "silence": {"unit": boundary.silence, "probability": boundary.probability} if boundary.silence else None,
        "word_starts": asdict(word_starts) if word_starts else None,
        "sizes": {kind: compiler.sizes[kind] for kind in fsts},
        "sha256": _hashes(units, pronunciations, lm),
        "steps": compiler.steps,
        "kaldifst": version("kaldifst"),
    }
    save_graph(out, fsts, compiler.words, compiler.units, meta, compiler.phones if context else None, used)
    return meta | {"seconds": round(time.perf_counter() - start, 1), "peak_mb": peak_mb()}


def _load_lexicon(tokenizer: Tokenizer, path: str | Path | None, words: list[str] | None) -> Lexicon:
    """The lexicon in the file `path`, or the tokenizer's pronunciations of `words`."""
    if path:
        return read_lexicon(path, phones=tokenizer.without_context.symbols[1:])
    if words is None:
        raise UserError("no words to build a graph of; give --lexicon FILE or --lm ARPA")
    return tokenizer_lexicon(tokenizer, [word for word in words if word not in NOT_WORDS])


def _in_both(lexicon: Lexicon, lm_words: list[str] | None) -> Lexicon:
    """The part of the lexicon whose words the LM has; logs how many words each of the two lacks."""
    if lm_words is None:
        return lexicon
    for line in compare_vocabularies(lexicon.pronunciations, lm_words):
        logger.info(line)
    in_lm = set(lm_words)
    return Lexicon({word: several for word, several in lexicon.pronunciations.items() if word in in_lm})


def _word_boundary(tokenizer: Tokenizer, silence: str | None, probability: float) -> WordBoundary:
    """A separator for characters; nothing for BPE, whose words begin with a mark; for phones, optional silence."""
    if tokenizer.separator == SPACE:
        return WordBoundary(SPACE, silence, probability)
    return WordBoundary(None, tokenizer.separator if silence is None else silence, probability)


def _hashes(tokenizer: Tokenizer, lexicon: Lexicon, lm: str | Path | None) -> dict[str, str | None]:
    """The sha256 of what a graph is built from."""
    return {
        "tokenizer": tokenizer_hash(tokenizer),
        "lexicon": lexicon_hash(lexicon),
        "lm": file_hash(lm) if lm else None,
    }


def tokenizer_lexicon(tokenizer: Tokenizer, words: Iterable[str]) -> Lexicon:
    """The pronunciations of `words` in a tokenizer's units, for the words that have any.

    Phones: the pronunciations of the tokenizer's own lexicon. Characters: the word's characters, without
    `tokenizer.separator`, the space, which stands between words. BPE: the pieces of the word alone, the first of which
    has sentencepiece's mark; no piece contains a space, so that the pieces of its words are the pieces of a text.
    Raises UserError when no word has a pronunciation.
    """
    words = list(words)
    known = {word: tokenizer.pronunciations(word) for word in words if not tokenizer.unknown(word)}
    if not known:
        raise UserError(f"the tokenizer has units for none of the {len(words)} words; are they in another case?")
    return Lexicon(known)
