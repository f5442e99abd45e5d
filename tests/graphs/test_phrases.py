"""Phrases in graphs, compared with the enumeration of all sequences of words and phrases."""

import itertools
import math
from dataclasses import asdict
from pathlib import Path

import pytest

from asrtool.errors import UserError
from asrtool.graphs.compile import Compiler
from asrtool.graphs.folder import DecodingGraph
from asrtool.graphs.lexicon_fst import WordBoundary
from asrtool.graphs.phrases import Phrase, add_phrases
from asrtool.graphs.topology import topology_fst
from asrtool.text.lexicon import Lexicon
from tests.graphs.paths import Bigram, outputs, sequences, unit_sequences

SYMBOLS = ["<blank>", "a", "b", "SIL", "\u2581"]
BETWEEN = {
    "nothing": {},
    "separator": {"separator": "\u2581"},
    "silence": {"silence": "SIL", "probability": 0.3},
}
LM = Bigram(
    {"X": -0.5, "Y": -0.7, "Z": -1.1, "</s>": -0.4},
    {"<s>": -0.2, "X": -0.3, "Y": -0.15, "Z": 0.1},
    {("<s>", "X"): -0.3, ("X", "Y"): -0.2, ("Y", "Y"): -2.5, ("X", "</s>"): -0.25},
)
LEXICON = Lexicon({"X": (("a",), ("a", "b")), "Y": (("a",), ("b",)), "Z": (("b", "a"),)})
NEW = {"N": (("b", "b"), ("a",)), "M": (("b",),)}
WORD_COSTS = {word: -math.log(10) * value for word, value in LM.unigrams.items()}
RAREST = WORD_COSTS["Z"]


def make_graph(arpa, topology="ctc", kind="HLG", **between) -> DecodingGraph:
    boundary = WordBoundary(**between)
    compiled = Compiler(SYMBOLS, LEXICON, arpa, topology, boundary)
    fst = getattr(compiled, kind).copy()
    silence = {"unit": boundary.silence, "probability": boundary.probability} if boundary.silence else None
    meta = {"kind": kind, "topology": topology, "separator": boundary.separator, "silence": silence}
    meta["outputs"] = len(SYMBOLS) * (2 if topology == "hmm" else 1)
    meta["word_starts"] = asdict(compiled.word_starts[kind])
    return DecodingGraph(Path("graph"), compiled.words, compiled.units, meta, changed_fst=fst)


def phrase_cost(phrase: Phrase, with_lm: bool) -> float:
    """The cost of each run of known words after the empty history and back to it, and of unknown words."""
    if not with_lm:
        return -phrase.bonus * len(phrase.words)
    total = -phrase.bonus * len(phrase.words)
    for is_known, run in itertools.groupby(phrase.words, LEXICON.pronunciations.__contains__):
        words = list(run)
        total += sum(map(step, (None, *words), (*words, None))) if is_known else RAREST * len(words)
    return total


def step(before: str | None, word: str | None) -> float:
    """The cost of a word after another one; None is the empty history."""
    if before is None:
        return 0.0 if word is None else WORD_COSTS[word]
    backed_off = -math.log(10) * LM.backoffs.get(before, 0.0)
    if word is None:
        return backed_off
    found = -math.log(10) * LM.bigrams.get((before, word), -math.inf)
    return min(backed_off + WORD_COSTS[word], found)


def expected_costs(phrases, longest: int, with_lm: bool, **between) -> dict[tuple, dict[tuple, float]]:
    """For each unit sequence: its word sequences, each with the least cost of dividing it into words and phrases."""
    lexicon = Lexicon(LEXICON.pronunciations | NEW)
    result: dict[tuple, dict[tuple, float]] = {}
    for items in sequences([*LEXICON.pronunciations, *phrases], longest):
        words = tuple(itertools.chain.from_iterable(i.words if isinstance(i, Phrase) else (i,) for i in items))
        if len(words) > longest:
            continue
        cost = items_cost(items, with_lm)
        for units, silences in unit_sequences(lexicon, words, **between):
            if len(units) <= longest:
                costs = result.setdefault(units, {})
                costs[words] = min(cost + silences, costs.get(words, math.inf))
    return result


def items_cost(items, with_lm: bool) -> float:
    total, before = 0.0, "<s>"
    for item in items:
        if isinstance(item, Phrase):
            total += phrase_cost(item, with_lm) + (step(before, None) if with_lm else 0.0)
            before = None
        else:
            total += step(before, item) if with_lm else 0.0
            before = item
    return total + (step(before, "</s>") if with_lm else 0.0)


@pytest.fixture(scope="module")
def arpa(tmp_path_factory):
    return LM.write(tmp_path_factory.mktemp("lm") / "lm.arpa")


PHRASES = {
    "a known word": [Phrase(("Z",), 1.5)],
    "a new word": [Phrase(("N",), 0.7)],
    "a new word that overrides all": [Phrase(("M",), 5.0)],
    "two known words": [Phrase(("X", "Y"), 0.5)],
    "known and new words": [Phrase(("X", "N"), 0.5), Phrase(("M",), 0.1)],
    "the same word twice": [Phrase(("M", "M"), 0.3), Phrase(("Y",), 0.2)],
}


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("name", PHRASES)
@pytest.mark.parametrize("topology", ["ctc", "modified"])
def test_phrases_cost_what_words_after_the_empty_history_cost_less_the_bonus(name, between, topology, arpa):
    longest = 4 if between == "nothing" else 3
    check(make_graph(arpa, topology, **BETWEEN[between]), PHRASES[name], topology, longest, between)


@pytest.mark.parametrize("name", PHRASES)
def test_phrases_in_a_graph_without_a_language_model_cost_their_bonus(name):
    check(make_graph(None, kind="HL"), PHRASES[name], "ctc", 4, "nothing", with_lm=False)


@pytest.mark.parametrize("name", PHRASES)
def test_phrases_in_the_hmm_topology(name, arpa):
    check(make_graph(arpa, "hmm"), PHRASES[name], "hmm", 3, "nothing")


def check(graph, phrases, topology, longest, between, with_lm=True):
    """Every sequence of frames has the word sequences and costs of the enumeration, and no others."""
    changed = add_phrases(graph, phrases, Lexicon(LEXICON.pronunciations | NEW))
    kaldifst_sorted(changed.fst)
    wanted = expected_costs(phrases, longest, with_lm, **BETWEEN[between])
    units = {"nothing": (1, 2), "separator": (1, 2, 4), "silence": (1, 2, 3)}[between]
    columns = [2 * unit + part for unit in units for part in (0, 1)] if topology == "hmm" else [0, *units]
    h = topology_fst(topology, units)
    kaldifst_sorted(h)
    for frames in sequences(columns, longest):
        labels = [frame + 1 for frame in frames]
        best: dict[tuple, float] = {}
        for sequence in outputs(h, labels):
            for words, cost in wanted.get(tuple(SYMBOLS[label - 1] for label in sequence), {}).items():
                best[words] = min(cost, best.get(words, math.inf))
        found = {
            tuple(changed.words[label] for label in words): cost for words, cost in outputs(changed.fst, labels).items()
        }
        assert found == pytest.approx(best, abs=2e-3), frames


def kaldifst_sorted(fst):
    import kaldifst

    kaldifst.arcsort(fst, "ilabel")


def test_new_words_have_labels_after_the_others_and_pronunciations(arpa):
    graph = make_graph(arpa)
    num_words = len(graph.words)
    changed = add_phrases(graph, [Phrase(("N", "X"), 1.0), Phrase(("M",), 1.0)], Lexicon(LEXICON.pronunciations | NEW))
    assert changed.words[:num_words] == graph.words and changed.words[num_words:] == ["N", "M"]
    assert changed.lexicon.pronunciations == NEW


def test_a_graph_that_does_not_say_where_words_begin_is_refused(arpa):
    graph = make_graph(arpa)
    graph.meta["word_starts"] = None
    with pytest.raises(UserError, match="does not say where words begin"):
        add_phrases(graph, [Phrase(("N",), 1.0)], Lexicon(NEW))


@pytest.mark.parametrize("starts", [[], [[10**6, 0, 0.0]]])
def test_word_starts_that_the_graph_lacks_are_refused(arpa, starts):
    graph = make_graph(arpa)
    graph.meta["word_starts"] = {"starts": starts, "rarest_cost": 1.0, "final_cost": 1.0}
    with pytest.raises(UserError, match="has states that the graph lacks"):
        add_phrases(graph, [Phrase(("N",), 1.0)], Lexicon(NEW))
