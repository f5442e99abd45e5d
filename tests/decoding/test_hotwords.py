"""Files of hotwords, and hotwords in graph search."""

import numpy as np
import pytest
import torch

from asrtool.decoding.hotword_graph import _hotword_lexicon
from asrtool.decoding.hotwords import DEFAULT_WEIGHT, Hotword, hotwords_hash, read_hotwords, require_writable
from asrtool.decoding.options import check_options
from asrtool.decoding.search_setup import open_search
from asrtool.errors import UserError
from asrtool.graphs.build import build_graph
from asrtool.graphs.folder import load_graph
from asrtool.streaming.search_setup import open_streaming_search
from asrtool.text.lexicon import Lexicon, write_lexicon
from asrtool.text.tokenizer import SPACE, PhoneTokenizer, SymbolTokenizer, save_tokenizer
from tests.graphs.paths import Bigram

CHARACTERS = SymbolTokenizer("char", ["<blank>", *"ABEKNORTWYZ\u00c9", SPACE])


def test_phrases_weights_and_comments(tmp_path):
    path = tmp_path / "hotwords.txt"
    path.write_text("# names\n\nNEW  YORK\t3.5\r\nZOE\u0301\n  ART  \nART\n", encoding="utf-8")
    expected = [Hotword(("NEW", "YORK"), 3.5), Hotword(("ZO\u00c9",), DEFAULT_WEIGHT), Hotword(("ART",))]
    assert read_hotwords(path) == expected
    assert read_hotwords(path.read_text(encoding="utf-8").split("\n")) == expected
    assert hotwords_hash(expected) == hotwords_hash(read_hotwords(path)) != hotwords_hash(expected[:2])


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (["ART\tlots"], "line 1.*'lots' is not a number above 0"),
        (["ART\t-1"], "above 0"),
        (["ART\t0"], "above 0"),
        (["ART\tnan"], "above 0"),
        (["ART\t1e9"], "at most 100"),
        (["ART\t1\t2"], "more than one tab"),
        (["\t2"], "no phrase before the tab"),
        (["ART", "ART\t2"], "line 2.*another weight"),
        (["<unk>"], "a mark"),
        (["A\x00B"], "control character"),
        (["A " * 60], "60 words"),
        (["ART\tx", "OK", "\t1"], "line 1.*; line 3"),
        ([], "no phrases"),
        (["# only a comment"], "no phrases"),
    ],
)
def test_wrong_lines_are_refused_in_one_line(lines, complaint):
    with pytest.raises(UserError, match=complaint) as raised:
        read_hotwords(lines)
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere.txt"):
        read_hotwords(tmp_path / "nowhere.txt")


@pytest.mark.parametrize(
    ("phrases", "complaint"),
    [
        (
            ["NEW YORK", "art", "ZO\u00cb"],
            r"2 of 3 hotwords .*: art \(a r t\), ZO\u00cb \(\u00cb\); in upper case 1 of them",
        ),
        (["art", "zo\u00e9"], "in upper case they can be"),
        (["Q"], r"Q \(Q\); correct them"),
    ],
)
def test_phrases_that_the_units_cannot_write_are_all_named(phrases, complaint):
    with pytest.raises(UserError, match=complaint):
        require_writable(read_hotwords(phrases), CHARACTERS)


def test_greedy_search_has_no_hotwords():
    with pytest.raises(UserError, match="--hotwords has no effect on --method greedy"):
        check_options(["greedy"], {"hotwords": "names.txt"})


LM = Bigram({"BAD": -0.4, "DAB": -0.9, "</s>": -0.5}, {"<s>": -0.1, "BAD": -0.2}, {("<s>", "BAD"): -0.2})
LEXICON = Lexicon({"BAD": (("b", "a", "d"),), "DAB": (("d", "a", "b"),), "DADA": (("d", "a", "d", "a"),)})
PHONES = PhoneTokenizer(["<blank>", "SIL", "a", "b", "d"], LEXICON, "SIL")


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graph")
    save_tokenizer(PHONES, folder / "tokenizer.json")
    write_lexicon(LEXICON, folder / "lexicon.txt")
    build_graph(folder / "graph", folder / "tokenizer.json", lm=LM.write(folder / "lm.arpa"))
    return folder / "graph"


RARE = Lexicon(
    {"BAD": (("b", "a", "d"), ("d", "a", "b")), "DADA": (("d", "a", "d", "a"), ("a", "a"))},
    {("BAD", ("d", "a", "b")): 0.01, ("DADA", ("a", "a")): 0.02},
)


@pytest.mark.parametrize("is_in_graph", [True, False])
def test_hotwords_have_the_probabilities_of_their_pronunciations(tmp_path, is_in_graph):
    phones = PhoneTokenizer(PHONES.symbols, RARE, "SIL")
    save_tokenizer(phones, tmp_path / "tokenizer.json")
    write_lexicon(RARE if is_in_graph else LEXICON, tmp_path / "lexicon.txt")
    lm = Bigram({"BAD": -0.4, "DAB": -0.9, "DADA": -0.4, "</s>": -0.5}, {"<s>": -0.1}, {("<s>", "BAD"): -0.2})
    lm = lm if is_in_graph else LM
    build_graph(
        tmp_path / "graph", tmp_path / "tokenizer.json", lexicon=tmp_path / "lexicon.txt", lm=lm.write(tmp_path / "lm")
    )
    graph = load_graph(tmp_path / "graph", phones)
    hotwords = [Hotword(("BAD",)), Hotword(("DADA",))]
    lexicon = _hotword_lexicon(graph, phones, hotwords, ["BAD", "DADA"])
    assert lexicon.probability("DADA", ("a", "a")) == 0.02
    assert ("BAD", ("d", "a", "b")) in lexicon.probabilities or not is_in_graph


def spoken(units: str, confusion: float = 0.0) -> torch.Tensor:
    """Log-probs (1, T, V) of units with a blank after each; b and d are confused with this probability."""
    rows = []
    for unit in units:
        row = np.full(5, 1e-4)
        row[PHONES.symbols.index(unit)] = 1.0
        if unit in "bd":
            row[PHONES.symbols.index("d" if unit == "b" else "b")] = confusion + 1e-4
        rows += [row, np.array([1.0, 1e-4, 1e-4, 1e-4, 1e-4])]
    probs = np.array(rows, np.float32)
    return torch.from_numpy(np.log(probs / probs.sum(1, keepdims=True)))[None]


def words_of(log_probs, hotwords, graph, **options) -> list[str]:
    given = {"graph": graph, **options} | ({"hotwords": hotwords} if hotwords else {})
    (found,) = open_search("graph", PHONES, given).search(log_probs, torch.tensor([log_probs.size(1)]))
    return found.words


def streamed_words(log_probs, hotwords, graph) -> list[str]:
    setup = open_streaming_search("graph", PHONES, {"graph": graph} | ({"hotwords": hotwords} if hotwords else {}))
    search = setup.new_search()
    for chunk in np.split(log_probs[0].numpy(), [3, 4, 9]):
        search.advance(chunk)
    return search.finish().words


@pytest.mark.parametrize("options", [{}, {"insertion_penalty": 0.1}, {"nbest": 3}], ids=["plain", "penalty", "lattice"])
@pytest.mark.parametrize(
    ("units", "confusion", "hotwords", "expected"),
    [
        ("dab", 0.9, [], ["BAD"]),
        ("dab", 0.9, ["DAB\t2"], ["DAB"]),
        ("bad", 0.0, ["DAB\t2"], ["BAD"]),
        ("baddab", 0.0, ["BAD DAB\t2"], ["BAD", "DAB"]),
        ("dada", 0.0, ["DADA"], ["DADA"]),  # in the lexicon, not in the language model
        ("badSILdada".replace("SIL", "S"), 0.0, ["DADA"], ["BAD", "DADA"]),
    ],
)
def test_hotwords_are_recognised_in_graph_search(units, confusion, hotwords, expected, options, graph):
    log_probs = spoken(units.replace("S", ""), confusion)
    assert words_of(log_probs, hotwords, graph, **options) == expected
    if hotwords and not options:
        assert streamed_words(log_probs, hotwords, graph) == expected


@pytest.mark.parametrize("unknown", [{}, {"<unk>": -0.7}, {"<unk>": -6.0}], ids=["none", "frequent", "rare"])
@pytest.mark.parametrize("rescored_unknown", [{}, {"<unk>": -0.7}], ids=["none", "frequent"])
@pytest.mark.parametrize("units", ["dada", "baddada", "dadabad", "bad"])
def test_hotwords_keep_their_score_if_the_rescoring_model_differs_in_unk_only(
    units, unknown, rescored_unknown, tmp_path
):
    save_tokenizer(PHONES, tmp_path / "tokenizer.json")
    models = {
        name: Bigram(LM.unigrams | unk, LM.backoffs, LM.bigrams).write(tmp_path / f"{name}.arpa")
        for name, unk in (("first", unknown), ("second", rescored_unknown))
    }
    build_graph(tmp_path / "graph", tmp_path / "tokenizer.json", lm=models["first"])
    options = {"graph": tmp_path / "graph", "hotwords": ["DADA\t1", "DAB\t1"], "lattice_beam": 20.0, "nbest": 5}
    log_probs = spoken(units, 0.1)
    lens = torch.tensor([log_probs.size(1)])
    (before,) = open_search("graph", PHONES, options).search(log_probs, lens)
    rescoring = {"rescore": models["second"], "graph_lm": models["first"]}
    (after,) = open_search("graph", PHONES, options | rescoring).search(log_probs, lens)
    assert after.words == before.words == units.replace("dada", " DADA ").replace("bad", " BAD ").split()
    assert after.score == pytest.approx(before.score, abs=1e-3)


@pytest.mark.parametrize("unknown", [{}, {"<unk>": -0.2}], ids=["no unk", "unk"])
def test_words_that_only_the_rescoring_model_lacks_keep_their_score(graph, tmp_path, unknown):
    smaller = Bigram({"BAD": -0.4, "</s>": -0.5, **unknown}, LM.backoffs, LM.bigrams).write(tmp_path / "smaller.arpa")
    log_probs = spoken("baddab", 0.1)
    lens = torch.tensor([log_probs.size(1)])
    options = {"graph": graph, "lattice_beam": 20.0}
    (before,) = open_search("graph", PHONES, options).search(log_probs, lens)
    rescoring = {"rescore": smaller, "graph_lm": graph.parent / "lm.arpa"}
    (after,) = open_search("graph", PHONES, options | rescoring).search(log_probs, lens)
    assert after.words == before.words == ["BAD", "DAB"]
    assert after.score == pytest.approx(before.score, abs=1e-3)


def test_words_without_a_pronunciation_get_a_predicted_one(graph, monkeypatch):
    predicted = {"ABBA": ("a", "b", "b", "a")}
    monkeypatch.setattr("asrtool.text.g2p.predict_pronunciations", lambda words, lexicon, otherwise: predicted)
    assert words_of(spoken("abba"), ["ABBA"], graph) == ["ABBA"]
    setup = open_search("graph", PHONES, {"graph": graph, "hotwords": ["ABBA"]})
    assert setup.search.graph.lexicon.pronunciations["ABBA"] == (("a", "b", "b", "a"),)
    assert setup.settings["hotwords"] == hotwords_hash([Hotword(("ABBA",))])


@pytest.mark.parametrize(
    ("hotwords", "complaint"),
    [
        (["dab", "BAD", "dada"], r"another case: dab \(upper case\), dada \(upper case\)"),
        (["QUIZ"], "letters that no word of the lexicon has: QUIZ; write"),
        (["QUIZ 5"], "letters that no word of the lexicon has: QUIZ, 5; a weight stands after a tab"),
    ],
)
def test_words_that_cannot_have_a_pronunciation_are_all_named(graph, monkeypatch, hotwords, complaint):
    monkeypatch.setattr("asrtool.text.g2p.predict_pronunciations", lambda words, lexicon, otherwise: {})
    with pytest.raises(UserError, match=complaint):
        words_of(spoken("bad"), hotwords, graph)


def test_prefix_search_over_phones_is_refused():
    with pytest.raises(UserError, match="units are phones; use --method graph"):
        open_search("prefix", PHONES, {"hotwords": ["BAD"]})


def test_hotwords_of_one_stream_leave_the_graph_of_the_others_as_it_is(graph):
    setup = open_streaming_search("graph", PHONES, {"graph": graph})
    log_probs = spoken("dab", 0.9)
    for hotwords, expected in ((["DAB\t2"], ["DAB"]), ([], ["BAD"]), (["DADA"], ["BAD"])):
        search = (setup.with_hotwords(hotwords) if hotwords else setup).new_search()
        search.advance(log_probs[0].numpy())
        assert search.finish().words == expected == streamed_words(log_probs, hotwords, graph)


def test_a_large_graph_takes_no_hotwords_of_single_streams(graph, monkeypatch):
    setup = open_streaming_search("graph", PHONES, {"graph": graph})
    monkeypatch.setattr("asrtool.streaming.search_setup.MAX_HOTWORD_GRAPH_STATES", 3)
    with pytest.raises(UserError, match="states, and hotwords of one stream need at most 3; give hotwords for all"):
        setup.with_hotwords(["DAB"])


def test_hotwords_in_streaming_prefix_search_are_those_of_prefix_search():
    log_probs = torch.randn(20, CHARACTERS.size, generator=torch.Generator().manual_seed(3)).log_softmax(1)
    options = {"hotwords": ["NEW YORK", "ART"], "beam": 6}
    (whole,) = open_search("prefix", CHARACTERS, options).search(log_probs[None], torch.tensor([20]))
    search = open_streaming_search("prefix", CHARACTERS, options).new_search()
    for chunk in np.split(log_probs.numpy(), [5, 6, 15]):
        search.advance(chunk)
    assert (search.finish().tokens, search.finish().score) == (whole.tokens, whole.score)


def test_all_hotwords_are_counted_where_some_cannot_be_written(tmp_path):
    letters = SymbolTokenizer("char", ["<blank>", *"ABD", SPACE])
    save_tokenizer(letters, tmp_path / "tokenizer.json")
    lm = LM.write(tmp_path / "lm.arpa")
    build_graph(tmp_path / "graph", tmp_path / "tokenizer.json", lm=lm)
    with pytest.raises(UserError, match=r"1 of 2 hotwords cannot be written in the model's units: QUIZ \(Q U I Z\)"):
        open_search("graph", letters, {"graph": tmp_path / "graph", "hotwords": ["BAD\t3", "QUIZ"]})
