"""A graph's folder from the files of a tokenizer, a lexicon and a language model: what `asrtool graph` does."""

import logging
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

from asrtool.errors import UserError
from asrtool.files import file_hash, require_own_folder
from asrtool.graphs.compile import Compiler, peak_mb
from asrtool.graphs.folder import COMMAND, META, lexicon_hash, save_graph, tokenizer_hash
from asrtool.graphs.grammar import NOT_WORDS, arpa_words, compare
from asrtool.graphs.lexicon_fst import Between
from asrtool.graphs.topology import num_outputs
from asrtool.text.lexicon import Lexicon
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
    """Compile the graphs `kinds` into the folder `out`, the first being the one to decode with; returns graph.json.

    Without `lexicon`, the words of the LM are spelled by the tokenizer. `silence` None is the tokenizer's own, where it
    has one; "" is none. UserError for what does not fit together, and for an `out` that another command wrote.
    """
    start = time.perf_counter()
    require_own_folder(out, META, COMMAND)
    units = load_tokenizer(tokenizer)
    if lm is None and any("G" in kind for kind in kinds):
        raise UserError(f"{', '.join(kinds)}: G is the language model; give it with --lm ARPA, or ask for --kind HL")
    known = arpa_words(lm) if lm else None
    spelled = _pronounce(units, lexicon, known)
    between = _between(units, silence, silence_probability)
    compiler = Compiler(units.symbols, _recognisable(spelled, known), lm, topology, between)
    fsts = {kind: getattr(compiler, kind) for kind in dict.fromkeys(kinds)}
    meta = {
        "kind": kinds[0],
        "topology": topology,
        "outputs": num_outputs(topology, units.size),
        "words": len(compiler.words) - 2,  # less <eps> and #0
        "separator": between.separator,
        "silence": {"unit": between.silence, "probability": between.probability} if between.silence else None,
        "sizes": {kind: compiler.sizes[kind] for kind in fsts},
        "sha256": {
            "tokenizer": tokenizer_hash(units),
            "lexicon": lexicon_hash(spelled),
            "lm": file_hash(lm) if lm else None,
        },
        "steps": compiler.steps,
        "kaldifst": version("kaldifst"),
    }
    save_graph(out, fsts, compiler.words, compiler.units, meta)
    return meta | {"seconds": round(time.perf_counter() - start, 1), "peak_mb": peak_mb()}


def _pronounce(tokenizer: Tokenizer, path: str | Path | None, words: list[str] | None) -> Lexicon:
    """The lexicon in the file `path`, or `words` as the tokenizer spells them."""
    from asrtool.graphs.build import lexicon_of
    from asrtool.text.lexicon import read_lexicon

    if path:
        return read_lexicon(path, phones=tokenizer.symbols[1:])
    if words is None:
        raise UserError("no words to make a graph of; give --lexicon FILE or --lm ARPA")
    return lexicon_of(tokenizer, [word for word in words if word not in NOT_WORDS])


def _recognisable(lexicon: Lexicon, known: list[str] | None) -> Lexicon:
    """The part of the lexicon that the LM knows; what each of the two lacks is said."""
    if known is None:
        return lexicon
    for line in compare(lexicon.pronunciations, known):
        logger.info(line)
    known = set(known)
    return Lexicon({word: ways for word, ways in lexicon.pronunciations.items() if word in known})


def _between(tokenizer: Tokenizer, silence: str | None, probability: float) -> Between:
    """Characters have a mark between words; words of BPE begin with theirs; a phone tokenizer may name its silence."""
    if tokenizer.separator == SPACE:
        return Between(SPACE, silence, probability)
    return Between(None, tokenizer.separator if silence is None else silence, probability)


def lexicon_of(tokenizer: "Tokenizer", words: Iterable[str]) -> Lexicon:
    """The pronunciations of `words` in the symbols of a tokenizer's units; words that have none are not in it.

    Phones: what the tokenizer's own lexicon says. Characters: the word's, without `tokenizer.separator`, the space,
    which stands between words. BPE: the pieces of the word alone, the first of which has sentencepiece's mark; no piece
    reaches over a space, so that the words' pieces in turn are those of the text. Raises UserError when none is left.
    """
    words = list(words)
    known = {word: tokenizer.pronunciations(word) for word in words if not tokenizer.unknown(word)}
    if not known:
        raise UserError(f"the tokenizer has units for none of the {len(words)} words; are they in another case?")
    return Lexicon(known)
