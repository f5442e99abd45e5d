"""Graphs of units in context compared with enumeration, and with the graphs of phones."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asrtool.graphs.compile import Compiler
from asrtool.graphs.context import add_context, context_fst, transcript_graph
from asrtool.graphs.lexicon_fst import WordBoundary
from asrtool.graphs.training_graphs import UnitGraph, numerator_graph
from asrtool.graphs.unit_ngram import UnitNgram
from asrtool.text.context_units import BOUNDARY, ContextTokenizer, Leaf, Question
from asrtool.text.lexicon import Lexicon
from asrtool.text.tokenizer import BLANK_SYMBOL, PhoneTokenizer
from asrtool.text.tokenizer_training import untied_tokenizer
from tests.graphs.paths import Bigram, collapse, expected, outputs, sequences

LEXICON = Lexicon({"X": (("a",), ("b", "b")), "Y": (("a", "b"),), "Z": (("a", "b"), ("b",))})
SYMBOLS = [BLANK_SYMBOL, "SIL", "a", "b"]
SIL, A, B = 1, 2, 3
LM = Bigram(
    {"X": -0.5, "Y": -0.7, "Z": -1.1, "</s>": -0.4},
    {"<s>": -0.2, "X": -0.3, "Z": 0.1},
    {("<s>", "X"): -0.3, ("X", "Y"): -0.2, ("Y", "Y"): -2.5, ("X", "</s>"): -0.25},
)


def phones() -> PhoneTokenizer:
    return PhoneTokenizer(SYMBOLS, LEXICON, "SIL")


def tied(kind: str) -> ContextTokenizer:
    """Two units for a: after b or an edge, and elsewhere; as a triphone, the first is split by a b after it."""
    trees = {SIL: [Leaf(1)], A: [Question("left", frozenset([BOUNDARY, B]), 1, 2), Leaf(2), Leaf(3)], B: [Leaf(4)]}
    symbols = [BLANK_SYMBOL, "SIL", "a_1", "a_2", "b"]
    if kind == "triphone":
        split = Question("right", frozenset([B]), 3, 4)
        trees[A] = [Question("left", frozenset([BOUNDARY, B]), 1, 2), split, Leaf(3), Leaf(2), Leaf(5)]
        symbols.append("a_3")
    return ContextTokenizer(kind, symbols, phones(), trees)


def without_context(kind: str) -> ContextTokenizer:
    """One unit for each phone."""
    return ContextTokenizer(kind, SYMBOLS, phones(), {phone: [Leaf(phone)] for phone in (SIL, A, B)})


CREATE = {
    "tied biphones": lambda: tied("biphone"),
    "tied triphones": lambda: tied("triphone"),
    "untied biphones": lambda: untied_tokenizer("biphone", phones()),
    "untied triphones": lambda: untied_tokenizer("triphone", phones()),
    "one class": lambda: without_context("triphone"),
}


@pytest.fixture(params=CREATE)
def tokenizer(request) -> ContextTokenizer:
    return CREATE[request.param]()


@pytest.fixture(scope="module")
def arpa(tmp_path_factory):
    return LM.write(tmp_path_factory.mktemp("lm") / "lm.arpa")


def paths(graph: UnitGraph, longest: int) -> dict[tuple[int, ...], list[float]]:
    """The weights of all paths of at most `longest` units, sorted, for each unit sequence."""
    found: dict[tuple[int, ...], list[float]] = {}
    queue = [((), 0, 0.0)]
    while queue:
        units, state, weight = queue.pop()
        if state in graph.final:
            found.setdefault(units, []).append(weight + graph.final[state])
        if len(units) < longest:
            queue += [((*units, a.unit), a.target, weight + a.log_weight) for a in graph.arcs if a.source == state]
    return {units: sorted(weights) for units, weights in found.items()}


def in_context(tokenizer: ContextTokenizer, wanted: dict) -> dict:
    return {tuple(tokenizer.context_units(sequence)): value for sequence, value in wanted.items()}


def test_c_maps_units_in_context_to_their_phones_and_refuses_other_sequences(tokenizer):
    fst = context_fst(tokenizer, [SIL, A, B], [])
    units_of = {tuple(tokenizer.context_units(s)): s for s in sequences([SIL, A, B], 3)}
    for units in sequences(range(1, tokenizer.size), 2 if tokenizer.size > 20 else 3):
        found = outputs(fst, [unit + 1 for unit in units])
        wanted = {tuple(phone + 1 for phone in units_of[units]): 0.0} if units in units_of else {}
        assert found == wanted, units
    for units, sequence in units_of.items():
        assert outputs(fst, [unit + 1 for unit in units]) == {tuple(phone + 1 for phone in sequence): 0.0}


def test_disambiguation_symbols_stand_anywhere_in_c_and_are_no_context():
    tokenizer = tied("triphone")
    fst = context_fst(tokenizer, [SIL, A, B], [(20, 10)])
    units = [unit + 1 for unit in tokenizer.context_units([A, B, A])]
    for place in range(4):
        with_mark = [*units[:place], 20, *units[place:]]
        phone_labels = [A + 1, B + 1, A + 1]
        assert outputs(fst, with_mark) == {(*phone_labels[:place], 10, *phone_labels[place:]): 0.0}


@pytest.mark.parametrize("between", [{}, {"silence": "SIL", "probability": 0.3}], ids=["no silence", "silence"])
@pytest.mark.parametrize("kind", ["HLG", "HL"])
def test_graphs_have_the_costs_of_lexicon_and_lm(tokenizer, kind, between, arpa):
    compiled = Compiler(tokenizer.symbols, LEXICON, arpa, "ctc", WordBoundary(**between), tokenizer)
    wanted = expected(LEXICON, LM.cost if kind == "HLG" else lambda words: 0.0, 3, **between)
    fst = getattr(compiled, kind)
    for phone_symbols, costs in wanted.items():
        units = tokenizer.context_units([SYMBOLS.index(symbol) for symbol in phone_symbols])
        frames = [frame for unit in units for frame in (unit, 0)]
        assert words_of(compiled, fst, frames) == pytest.approx(costs, abs=2e-3), phone_symbols


def words_of(compiled: Compiler, fst, frames) -> dict[tuple[str, ...], float]:
    labels = outputs(fst, [frame + 1 for frame in frames])
    return {tuple(compiled.words[label] for label in words): cost for words, cost in labels.items()}


@pytest.mark.parametrize("name", ["tied biphones", "tied triphones"])
@pytest.mark.parametrize("topology", ["ctc", "modified", "hmm"])
def test_all_frame_sequences_have_the_words_of_their_phones(name, topology, arpa):
    tokenizer = CREATE[name]()
    compiled = Compiler(tokenizer.symbols, LEXICON, arpa, topology, WordBoundary(), tokenizer)
    wanted = in_context(tokenizer, by_number(expected(LEXICON, LM.cost, 3)))
    size = 2 * tokenizer.size if topology == "hmm" else tokenizer.size
    for frames in sequences(range(size), 3):
        costs: dict[tuple, float] = {}
        for units in unit_sequences(topology, frames):
            for words, cost in wanted.get(units, {}).items():
                costs[words] = min(cost, costs.get(words, math.inf))
        assert words_of(compiled, compiled.HLG, frames) == pytest.approx(costs, abs=2e-3), frames


def by_number(wanted: dict) -> dict:
    return {tuple(map(SYMBOLS.index, symbols)): costs for symbols, costs in wanted.items()}


def unit_sequences(topology: str, frames) -> list[tuple[int, ...]]:
    """All unit sequences of which `frames` are an alignment."""
    if topology == "ctc":
        return [collapse(frames)]
    if topology == "hmm":
        units = tuple(frame // 2 for frame in frames if frame % 2 == 0)
        again = [frame % 2 == 0 or (n > 0 and frames[n - 1] // 2 == frame // 2) for n, frame in enumerate(frames)]
        return [units] if all(again) and 0 not in units else []
    runs = [(unit, len(list(run))) for unit, run in itertools.groupby(frames)]
    choices = [[(unit,) * count for count in range(1, length + 1)] for unit, length in runs if unit]
    return [tuple(itertools.chain.from_iterable(choice)) for choice in itertools.product(*choices)]


def test_a_graph_of_one_class_is_that_of_the_phones(arpa):
    between = WordBoundary(silence="SIL")
    plain = Compiler(SYMBOLS, LEXICON, arpa, "modified", between).HLG
    context = Compiler(SYMBOLS, LEXICON, arpa, "modified", between, without_context("triphone")).HLG
    assert context.num_states == plain.num_states
    for frames in sequences(range(4), 4):
        labels = [frame + 1 for frame in frames]
        assert outputs(context, labels) == pytest.approx(outputs(plain, labels), abs=1e-6), frames


pronunciations = st.lists(st.lists(st.sampled_from([A, B]), min_size=1, max_size=3), min_size=1, max_size=3)


@settings(max_examples=40, deadline=None)
@given(st.lists(pronunciations, max_size=3), st.sampled_from(sorted(CREATE)))
def test_a_numerator_has_all_pronunciations_in_the_contexts_of_their_neighbours(words, name):
    tokenizer = CREATE[name]()
    graph = numerator_graph(words)
    wanted = in_context(tokenizer, paths(graph, 9))
    assert paths(add_context(graph, tokenizer), 9) == wanted


@settings(max_examples=20, deadline=None)
@given(st.lists(pronunciations, min_size=1, max_size=3), st.sampled_from(sorted(CREATE)))
def test_a_state_belongs_to_the_word_of_the_unit_before_it(words, name):
    graph = add_context(numerator_graph(words), CREATE[name]())
    tokenizer = CREATE[name]()
    for arc in graph.arcs:
        word = graph.word[arc.target]
        assert word - graph.word.get(arc.source, 0) in (0, 1)
        assert tokenizer.phone_of[arc.unit] in {phone for units in words[word] for phone in units}
    assert {graph.word[state] for state in graph.final} == {len(words) - 1}


def test_a_transcript_has_the_pronunciations_of_the_lexicon(tokenizer):
    found = paths(transcript_graph(tokenizer, "X Z"), 9)
    wanted = [[A, A, B], [A, B], [B, B, A, B], [B, B, B]]
    assert found == {tuple(tokenizer.context_units(sequence)): [0.0] for sequence in wanted}
    assert paths(transcript_graph(phones(), "X Z"), 9) == {tuple(sequence): [0.0] for sequence in wanted}


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_denominator_has_the_probabilities_of_the_phones(tokenizer, order):
    sentences = [[A, B, A], [B, B], [SIL, A, A, SIL, B], []]
    ngram = UnitNgram(order, UnitNgram.count(sentences, order, 1))
    plain = paths(ngram.denominator_graph(), 4)
    found = paths(add_context(ngram.denominator_graph(), tokenizer), 4)
    assert found.keys() == in_context(tokenizer, plain).keys()
    for sequence, weights in plain.items():
        assert np.allclose(found[tuple(tokenizer.context_units(sequence))], weights)


def test_a_path_of_one_class_has_the_states_of_the_phones():
    ngram = UnitNgram(3, UnitNgram.count([[A, B, A], [B, B, A, A]], 3, 1))
    plain = ngram.denominator_graph()
    context = add_context(plain, without_context("triphone"))
    assert len(context.arcs) == len(plain.arcs) and len(context.final) == len(plain.final)
