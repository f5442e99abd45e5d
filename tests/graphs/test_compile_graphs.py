"""Compiled graphs compared with enumeration: the weight of every short input is lexicon times LM, computed by hand."""

import math
from collections.abc import Iterable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asrtool.errors import DataError, UserError
from asrtool.graphs.build import build_graph
from asrtool.graphs.compile import Compiler
from asrtool.graphs.lexicon_fst import WordBoundary
from asrtool.text.lexicon import Lexicon
from asrtool.text.tokenizer import save_tokenizer
from asrtool.text.tokenizer_training import train_tokenizer
from tests.graphs.paths import Bigram, collapse, expected, outputs, sequences

SYMBOLS = ["<blank>", "a", "b", "SIL", "\u2581"]
LEXICONS = {
    "plain": {"X": [("a",)], "Y": [("b",)]},
    "homophones": {"X": [("a", "b")], "Y": [("a", "b")], "Z": [("b",)]},
    "prefixes": {"X": [("a",)], "Y": [("a", "b")], "Z": [("a", "b", "a")]},
    "alternatives": {"X": [("a",), ("b", "b")], "Y": [("b",), ("a", "a")]},
    "all at once": {"X": [("a",), ("a", "b")], "Y": [("a",), ("b",)], "Z": [("a", "b", "b"), ("b",)]},
    "repeated": {"X": [("a",), ("a",)], "Y": [("b",)]},
}
LM = Bigram(
    {"X": -0.5, "Y": -0.7, "Z": -1.1, "</s>": -0.4},
    {"<s>": -0.2, "X": -0.3, "Z": 0.1},
    {("<s>", "X"): -0.3, ("X", "Y"): -0.2, ("Y", "Y"): -2.5, ("X", "</s>"): -0.25},
)
BETWEEN = {
    "nothing": {},
    "separator": {"separator": "\u2581"},
    "silence": {"silence": "SIL", "probability": 0.3},
}


def make_lexicon(pronunciations: dict, probabilities: Iterable[float] = ()) -> Lexicon:
    """The lexicon with probabilities of its pronunciations in turn, or without."""
    several = [(word, tuple(units)) for word, prons in pronunciations.items() for units in dict.fromkeys(prons)]
    known = dict(zip(several, probabilities, strict=False))
    return Lexicon({word: tuple(prons) for word, prons in pronunciations.items()}, known)


def compiler(lexicon: Lexicon, arpa, topology="ctc", **between) -> Compiler:
    return Compiler(SYMBOLS, lexicon, arpa, topology, WordBoundary(**between))


def check(compiled: Compiler, kind: str, wanted: dict, longest: int, symbols=(1, 2, 3, 4)) -> None:
    """Every unit sequence up to `longest` has the word sequences and costs of `wanted`, and no others."""
    fst = getattr(compiled, kind)
    for units in sequences(symbols, longest):
        labels = outputs(fst, [unit + 1 for unit in units])
        costs = {tuple(compiled.words[label] for label in words): cost for words, cost in labels.items()}
        assert costs == pytest.approx(wanted.get(tuple(SYMBOLS[unit] for unit in units), {}), abs=2e-3), units


@pytest.fixture(scope="module")
def arpa(tmp_path_factory):
    return LM.write(tmp_path_factory.mktemp("lm") / "lm.arpa")


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("name", LEXICONS)
def test_lg_has_the_costs_of_lexicon_and_lm(name, between, arpa):
    lexicon = make_lexicon(LEXICONS[name])
    compiled = compiler(lexicon, arpa, **BETWEEN[between])
    symbols = {"nothing": (1, 2), "separator": (1, 2, 4), "silence": (1, 2, 3)}[between]
    check(compiled, "LG", expected(lexicon, LM.cost, 4, **BETWEEN[between]), 4, symbols)


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("name", LEXICONS)
def test_the_probability_of_a_pronunciation_is_part_of_the_cost(name, between, arpa):
    lexicon = make_lexicon(LEXICONS[name], [0.5, 1.0, 0.01, 0.9, 0.3])
    symbols = {"nothing": (1, 2), "separator": (1, 2, 4), "silence": (1, 2, 3)}[between]
    wanted = expected(lexicon, LM.cost, 4, **BETWEEN[between])
    assert wanted != expected(make_lexicon(LEXICONS[name]), LM.cost, 4, **BETWEEN[between])
    check(compiler(lexicon, arpa, **BETWEEN[between]), "LG", wanted, 4, symbols)


@pytest.mark.parametrize("kind", ["L", "HL"])
def test_without_lm_all_words_have_cost_zero(kind):
    lexicon = make_lexicon(LEXICONS["all at once"])
    compiled = compiler(lexicon, None)
    wanted = expected(lexicon, lambda words: 0.0, 4)
    if kind == "L":
        return check(compiled, "L", wanted, 4, (1, 2))
    for frames in sequences((0, 1, 2), 4):
        labels = outputs(compiled.HL, [frame + 1 for frame in frames])
        costs = {tuple(compiled.words[label] for label in words): cost for words, cost in labels.items()}
        assert costs == pytest.approx(wanted.get(tuple(SYMBOLS[unit] for unit in collapse(frames)), {})), frames


@pytest.mark.parametrize("between", ["nothing", "silence"])
@pytest.mark.parametrize("topology", ["ctc", "modified", "hmm"])
def test_composing_the_topology_changes_no_cost(topology, between, arpa):
    """HLG of frames has the least cost of LG over the unit sequences that H maps them to."""
    compiled = compiler(make_lexicon(LEXICONS["all at once"]), arpa, topology, **BETWEEN[between])
    columns = range(2, 8) if topology == "hmm" else range(4)
    for frames in sequences(columns, 3):
        labels = [frame + 1 for frame in frames]
        wanted: dict[tuple, float] = {}
        for units in outputs(compiled.H, labels):
            for words, cost in outputs(compiled.LG, units).items():
                wanted[words] = min(cost, wanted.get(words, math.inf))
        assert outputs(compiled.HLG, labels) == pytest.approx(wanted, abs=1e-3), frames


SILENCES = {
    "a word of silence": {"X": [("SIL",)], "Y": [("a",)]},
    "two words of silence": {"X": [("SIL",)], "Y": [("SIL",), ("a",)]},
    "silence as an alternative": {"X": [("a",), ("SIL",)], "Z": [("b",)]},
    "silence at the edges of words": {"X": [("SIL", "a")], "Y": [("a", "SIL")], "Z": [("a",)]},
    "silence alone and in words": {"X": [("SIL",)], "Y": [("SIL", "SIL")], "Z": [("SIL", "b", "SIL")]},
}


@pytest.mark.parametrize("name", SILENCES)
def test_words_may_have_the_unit_of_silence(name, arpa):
    """As Kaldi's `!SIL SIL`."""
    lexicon = make_lexicon(SILENCES[name], [0.5, 0.9])
    compiled = compiler(lexicon, arpa, **BETWEEN["silence"])
    check(compiled, "LG", expected(lexicon, LM.cost, 4, **BETWEEN["silence"]), 4, (1, 2, 3))
    assert compiled.HL.num_states and compiled.HLG.num_states


WORDS = ["X", "Y", "Z"]
PRONUNCIATIONS = st.lists(st.lists(st.sampled_from("ab"), min_size=1, max_size=3).map(tuple), min_size=1, max_size=2)
logprobs = st.floats(-3, -0.05)


@st.composite
def bigrams(draw) -> Bigram:
    histories, words = ["<s>", *WORDS], [*WORDS, "</s>"]
    pairs = draw(st.sets(st.tuples(st.sampled_from(histories), st.sampled_from(words)), max_size=6))
    return Bigram(
        {word: draw(logprobs) for word in words},
        {word: draw(logprobs) for word in histories if draw(st.booleans())},
        {pair: draw(logprobs) for pair in sorted(pairs)},
    )


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.fixed_dictionaries(dict.fromkeys(WORDS, PRONUNCIATIONS)), st.lists(st.floats(1e-3, 1), max_size=6), bigrams())
def test_any_lexicon_with_any_bigram_model(tmp_path, pronunciations, probabilities, lm):
    lexicon = make_lexicon(pronunciations, probabilities)
    compiled = compiler(lexicon, lm.write(tmp_path / "lm.arpa"))
    check(compiled, "LG", expected(lexicon, lm.cost, 3), 3, (1, 2))


def test_words_are_labelled_from_1_and_units_from_their_number_plus_1(arpa):
    compiled = compiler(make_lexicon(LEXICONS["prefixes"]), arpa)
    assert compiled.words == ["<eps>", "X", "Y", "Z", "#0"]
    assert compiled.units[:6] == ["<eps>", *SYMBOLS] and compiled.units[6:] == ["#0", "#1"]
    assert len(compiler(make_lexicon(LEXICONS["homophones"]), arpa).units) == 6 + 3  # #0, one for X and one for Y
    assert len(compiler(make_lexicon(LEXICONS["plain"]), arpa, silence="SIL").units) == 6 + 2  # #0 and that of silence


def test_properties_hold_and_sizes_are_recorded(arpa):
    compiled = compiler(make_lexicon(LEXICONS["all at once"]), arpa)
    assert compiled.HLG.num_states == compiled.sizes["HLG"]["states"]
    for kind in ("HLG", "LG", "H", "G"):
        assert getattr(compiled, kind).num_states
        assert compiled.sizes[kind]["input_sorted"] and compiled.sizes[kind]["connected"]
    assert compiled.sizes["H"]["deterministic"] and compiled.sizes["H"]["input_epsilon_free"]
    assert compiled.sizes["G"]["deterministic"] and compiled.sizes["G"]["input_epsilon_free"]
    assert {"L", "G", "LG determinised", "HLG"} <= {step["step"] for step in compiled.steps}


@pytest.mark.parametrize("kind", ["L", "LG", "HL", "HLG"])
def test_no_disambiguation_symbol_is_left(kind, arpa):
    import kaldifst

    compiled = compiler(make_lexicon(LEXICONS["all at once"]), arpa, silence="SIL")
    fst = getattr(compiled, kind)
    arcs = [arc for state in range(fst.num_states) for arc in kaldifst.ArcIterator(fst, state)]
    assert all(arc.ilabel <= len(SYMBOLS) and arc.olabel < len(compiled.words) - 1 for arc in arcs)


def test_a_graph_of_bpe_units_needs_nothing_between_words(arpa):
    lexicon = Lexicon({"X": (("\u2581", "a"),), "Y": (("\u2581", "a", "b"),)})
    check(compiler(lexicon, arpa), "LG", expected(lexicon, LM.cost, 4), 4, (1, 2, 4))


@pytest.mark.parametrize("transcripts, separator", [(["X Y"], "\u2581"), (["X", "Y"], None)])
def test_a_graph_of_characters_separates_words_where_the_units_have_a_space(transcripts, separator, arpa, tmp_path):
    save_tokenizer(train_tokenizer("char", transcripts), tmp_path / "tokenizer.json")
    assert build_graph(tmp_path / "graph", tmp_path / "tokenizer.json", lm=arpa)["separator"] == separator


@pytest.mark.parametrize("kind", ["char", "word"])
def test_a_silence_probability_without_a_silence_is_refused(kind, arpa, tmp_path):
    save_tokenizer(train_tokenizer(kind, ["X Y"]), tmp_path / "tokenizer.json")
    for silence in (None, ""):
        with pytest.raises(UserError, match="--silence-prob has no effect"):
            build_graph(
                tmp_path / "graph", tmp_path / "tokenizer.json", lm=arpa, silence=silence, silence_probability=0.3
            )
    assert not (tmp_path / "graph").exists()


def test_unusable_words_are_all_listed():
    lexicon = Lexicon({"X": (("a", "q"),), "Y": ((),), "Z": (("b",),), "W": (("<blank>",),)})
    with pytest.raises(DataError) as raised:
        compiler(lexicon, None).L  # noqa: B018
    assert [problem.split(":")[0] for problem in raised.value.problems] == ["X", "Y", "W"]
    assert "q" in raised.value.problems[0] and "empty" in raised.value.problems[1]


@pytest.mark.parametrize(
    ("between", "message"),
    [
        ({"silence": "SILENCE"}, "no unit 'SILENCE'"),
        ({"silence": "<blank>"}, "no unit '<blank>'"),
        ({"silence": "SIL", "probability": 1.0}, "between 0 and 1"),
        ({"silence": "SIL", "separator": "\u2581"}, "leave --silence out"),
    ],
)
def test_impossible_word_boundaries_are_refused(between, message):
    with pytest.raises(UserError, match=message):
        compiler(make_lexicon(LEXICONS["plain"]), None, **between).L  # noqa: B018


@pytest.mark.parametrize("word", ["<s>", "</s>", "<eps>", "#0"])
def test_reserved_symbols_are_refused_as_words(word):
    with pytest.raises(UserError, match=f"{word}.* not a word"):
        compiler(Lexicon({word: (("a",),)}), None)


def test_units_named_as_disambiguation_symbols_are_refused():
    with pytest.raises(UserError, match="#0"):
        Compiler(["<blank>", "a", "#0"], make_lexicon({"X": [("a",)]}), None, "ctc", WordBoundary())
