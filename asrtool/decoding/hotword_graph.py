"""Hotwords in graph search: their pronunciations, and the graph with the phrases."""

import itertools
import logging
from collections.abc import Iterable, Sequence

from asrtool.decoding.hotwords import Hotword, require_writable
from asrtool.errors import UserError
from asrtool.graphs.folder import DecodingGraph
from asrtool.graphs.phrase_costs import unit_labels
from asrtool.graphs.phrases import Phrase, add_phrases, require_word_starts
from asrtool.text.lexicon import Lexicon
from asrtool.text.tokenizer import PhoneTokenizer, Tokenizer
from asrtool.text.words import CASES, change_case, shortened

logger = logging.getLogger(__name__)

NEXT = "write them as the lexicon does, or add them with pronunciations: `asrtool graph --add-words`"


def add_hotwords(graph: DecodingGraph, tokenizer: Tokenizer, hotwords: Sequence[Hotword]) -> DecodingGraph:
    """Returns the graph with hotwords; `graph` must not be used any more (asrtool/graphs/phrases.py).

    Words that the graph lacks get pronunciations: the tokenizer's, or for phones predictions from its lexicon. Raises
    UserError with all hotwords that cannot have one.
    """
    require_word_starts(graph)
    words = dict.fromkeys(word for hotword in hotwords for word in hotword.words)
    lexicon = _hotword_lexicon(graph, tokenizer, hotwords, list(words))
    return add_phrases(graph, [Phrase(hotword.words, hotword.weight) for hotword in hotwords], lexicon)


def _hotword_lexicon(
    graph: DecodingGraph, tokenizer: Tokenizer, hotwords: Sequence[Hotword], words: Sequence[str]
) -> Lexicon:
    """Returns the pronunciations of all `words`, from the graph's lexicon where it has them."""
    stored, units = graph.lexicon.pronunciations, unit_labels(graph).keys()
    usable = [word for word in words if word in stored and units >= {*itertools.chain(*stored[word])}]
    lexicon = graph.lexicon.only(usable)
    if not isinstance(tokenizer, PhoneTokenizer):
        others = [hotword for hotword in hotwords if not lexicon.pronunciations.keys() >= {*hotword.words}]
        require_writable(others, tokenizer, len(hotwords))
    lexicon = tokenizer.lexicon_of(words).updated(lexicon)
    missing = [word for word in words if word not in lexicon.pronunciations]
    if missing:
        assert isinstance(tokenizer, PhoneTokenizer)  # the units of all others write all words
        lexicon = lexicon.updated(_predict(missing, tokenizer.lexicon))
    return lexicon


def _predict(words: Sequence[str], lexicon: Lexicon) -> Lexicon:
    """Returns predicted pronunciations of words that the lexicon lacks. UserError lists words that cannot have one."""
    from asrtool.text.g2p import predict_pronunciations

    other_case = [f"{word} ({case} case)" for word in words if (case := _other_case(word, lexicon.pronunciations))]
    if other_case:
        raise UserError(f"hotwords that the lexicon has in another case: {', '.join(other_case)}; {NEXT}")
    predicted = predict_pronunciations(words, lexicon, NEXT)
    if missing := [word for word in words if word not in predicted]:
        listed = ", ".join(map(shortened, missing))
        weights = "; a weight stands after a tab" if any(word.replace(".", "").isdigit() for word in missing) else ""
        raise UserError(f"hotwords with letters that no word of the lexicon has: {listed}{weights}; {NEXT}")
    for word, pronunciation in predicted.items():
        logger.info(f"hotwords: {word} is not in the lexicon; its predicted pronunciation is {' '.join(pronunciation)}")
    return Lexicon({word: (pronunciation,) for word, pronunciation in predicted.items()})


def _other_case(word: str, known: Iterable[str]) -> str | None:
    """Returns the case in which `known` has the word, None if in none."""
    return next((case for case in CASES if change_case(word, case) in known), None)
