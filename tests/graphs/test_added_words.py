"""`asrtool graph --add-words` and `--from`."""

import json

import kaldifst
import pytest

from asrtool.errors import DataError, UserError
from asrtool.graphs.added_words import AddedWord, add_to_lexicon, read_added_words
from asrtool.graphs.build import build_graph, build_graph_like
from asrtool.graphs.folder import load_graph
from asrtool.lm.added_words import NewWord
from asrtool.lm.ngram_files import read_ngrams
from asrtool.text.lexicon import Lexicon
from asrtool.text.tokenizer import SPACE, PhoneTokenizer, SymbolTokenizer, save_tokenizer
from asrtool.text.tokenizer_training import untied_tokenizer
from tests.graphs.paths import Bigram, outputs

LEXICON = Lexicon({"BAD": (("b", "a", "d"),), "DAB": (("d", "a", "b"),)})
PHONES = PhoneTokenizer(["<blank>", "SIL", "a", "b", "d"], LEXICON, "SIL")
CHARACTERS = SymbolTokenizer("char", ["<blank>", "A", "B", "D", SPACE])
LM = Bigram({"BAD": -0.4, "DAB": -0.9, "<unk>": -2.0, "</s>": -0.5}, {"<s>": -0.1}, {("<s>", "BAD"): -0.2})
UNITS = ["a", "b", "d"]


def write(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_words_with_what_is_known_of_them(tmp_path):
    path = write(
        tmp_path / "words.txt", "# names", "ABBA", "", "DA like=DAB d a", "DA d a a", "AD probability=1e-4 a d"
    )
    assert read_added_words(path, UNITS) == [
        AddedWord(NewWord("ABBA")),
        AddedWord(NewWord("DA", like="DAB"), (("d", "a"), ("d", "a", "a"))),
        AddedWord(NewWord("AD", probability=1e-4), (("a", "d"),)),
    ]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("DA d x q", "line 2: DA: not units of the tokenizer: x q"),
        ("DA probability=2", "'2' is not a probability"),
        ("DA probability=nan", "is not a probability"),
        ("DA probability=0", "is not a probability"),
        ("DA like=DAB probability=0.1", "like= or probability= is given more than once"),
        ("DA like=DAB like=BAD", "like= or probability= is given more than once"),
        ("ABBA like=DAB", "an earlier line has another"),
        ("ABBA probability=0.1 a", "an earlier line has another"),
        ("<s> a", "cannot be a word"),
        ("#0 a", None),
        ("<eps>", "cannot be a word"),
    ],
)
def test_wrong_lines_are_all_named(tmp_path, line, complaint):
    path = write(tmp_path / "words.txt", "ABBA like=BAD a b b a", line, "DO z")
    with pytest.raises(DataError) as raised:
        read_added_words(path, UNITS)
    assert "line 3: DO: not units" in str(raised.value)
    assert complaint is None or complaint in str(raised.value)


@pytest.mark.parametrize("known", ["like=DAB", "probability=0.1"])
@pytest.mark.parametrize("lines", [["AB a", "AB {} a b"], ["AB {} a", "AB a b"], ["AB {} a", "AB {} a b"]])
def test_any_line_of_a_word_may_say_what_is_known_of_it(tmp_path, lines, known):
    words = read_added_words(write(tmp_path / "words.txt", *(line.format(known) for line in lines)), UNITS)
    new = NewWord("AB", like="DAB") if known == "like=DAB" else NewWord("AB", probability=0.1)
    assert words == [AddedWord(new, (("a",), ("a", "b")))]


def test_a_file_without_words_is_refused(tmp_path):
    with pytest.raises(UserError, match="has no words"):
        read_added_words(write(tmp_path / "words.txt", "# nothing"), UNITS)


@pytest.fixture
def sources(tmp_path):
    save_tokenizer(PHONES, tmp_path / "phones.json")
    save_tokenizer(CHARACTERS, tmp_path / "characters.json")
    LM.write(tmp_path / "lm.arpa")
    return tmp_path


def recognises(graph, units) -> set[tuple[str, ...]]:
    """The word sequences that a CTC graph has for units with a blank between them."""
    fst = graph.fst
    kaldifst.arcsort(fst, "ilabel")
    labels = [label for unit in units for label in (graph.units.index(unit), 1)]
    return {tuple(graph.words[label] for label in words) for words in outputs(fst, labels)}


def test_the_graph_and_its_language_model_get_the_words(sources):
    words = write(sources / "words.txt", "DA like=DAB d a", "ABBA a b b a")
    facts = build_graph(
        sources / "graph", sources / "phones.json", lm=sources / "lm.arpa", add_words=words, silence_probability=0.4
    )
    graph = load_graph(sources / "graph", PHONES)
    assert facts["words"] == 4 and facts["added_words"] == 2
    assert ("DA",) in recognises(graph, "da") and ("BAD", "ABBA") in recognises(graph, "badabba")
    assert graph.lexicon.pronunciations == LEXICON.pronunciations | {
        "DA": (("d", "a"),),
        "ABBA": (("a", "b", "b", "a"),),
    }
    lm = read_ngrams(sources / "graph" / "lm.arpa.gz")
    assert lm.score(lm.start, "DA")[0] == pytest.approx(lm.score(lm.start, "DAB")[0], abs=1e-5)
    assert lm.score(lm.start, "ABBA")[0] == pytest.approx(lm.score(lm.start, "DAB")[0], abs=1e-5)  # the rarest
    assert "lm.arpa.gz" in json.loads((sources / "graph" / "graph.json").read_text())["files"]


def test_words_of_characters_need_no_pronunciation(sources):
    words = write(sources / "words.txt", "ABBA")
    build_graph(sources / "graph", sources / "characters.json", lm=sources / "lm.arpa", add_words=words)
    graph = load_graph(sources / "graph", CHARACTERS)
    assert recognises(graph, ["B", "A", "D", SPACE, "A", "B", "B", "A"]) == {("BAD", "ABBA")}


def test_words_without_a_pronunciation_get_a_predicted_one(sources, monkeypatch):
    monkeypatch.setattr("asrtool.text.g2p.predict_pronunciations", lambda *_: {"ABBA": ("a", "b", "a")})
    words = write(sources / "words.txt", "ABBA")
    build_graph(sources / "graph", sources / "phones.json", add_words=words, lm=sources / "lm.arpa")
    assert ("ABBA",) in recognises(load_graph(sources / "graph", PHONES), "aba")


@pytest.mark.parametrize("kind", ["phones", "phones in context"])
def test_words_of_the_tokenizers_lexicon_keep_their_probabilities(kind):
    rare = Lexicon({"DA": (("d", "a"), ("d",)), "BAD": (("b", "a", "d"),)}, {("DA", ("d",)): 0.1})
    tokenizer = PhoneTokenizer(PHONES.symbols, rare, "SIL")
    if kind == "phones in context":
        tokenizer = untied_tokenizer("biphone", tokenizer)
    own = Lexicon({"DAB": (("d", "a", "b"), ("b",))}, {("DAB", ("b",)): 0.2})
    joined = add_to_lexicon(own, [AddedWord(NewWord("DA")), AddedWord(NewWord("DAB"), (("d",),))], tokenizer)
    assert joined.probabilities == {("DA", ("d",)): 0.1, ("DAB", ("b",)): 0.2}
    assert joined.pronunciations == {"DA": (("d", "a"), ("d",)), "DAB": (("d", "a", "b"), ("b",), ("d",))}


@pytest.mark.parametrize(
    ("tokenizer", "line", "complaint"),
    [
        ("phones", "QUIZ", "QUIZ: no pronunciation can be predicted"),
        ("characters", "QUIZ", "QUIZ: it has characters without a unit"),
        ("phones", "BAD like=DAB", "BAD: it is in the language model already"),
        ("phones", "DA like=NONE d a", "like='NONE' is not a word of the language model"),
    ],
)
def test_words_that_cannot_be_added_are_named_and_nothing_is_written(sources, monkeypatch, tokenizer, line, complaint):
    monkeypatch.setattr("asrtool.text.g2p.predict_pronunciations", lambda *_: {})
    words = write(sources / "words.txt", line)
    with pytest.raises(DataError, match=complaint):
        build_graph(sources / "graph", sources / f"{tokenizer}.json", lm=sources / "lm.arpa", add_words=words)
    assert not (sources / "graph" / "graph.json").exists()


def test_without_a_language_model_words_have_no_probabilities(sources):
    words = write(sources / "words.txt", "DA probability=0.1 d a")
    arguments = {"lexicon": write(sources / "lexicon.txt", "BAD b a d"), "kinds": ["HL"]}
    with pytest.raises(UserError, match="which need a language model"):
        build_graph(sources / "graph", sources / "phones.json", add_words=words, **arguments)
    words = write(sources / "words.txt", "DA d a")
    build_graph(sources / "graph", sources / "phones.json", add_words=words, **arguments)
    assert ("DA", "BAD") in recognises(load_graph(sources / "graph", PHONES), "dabad")


def test_a_graph_like_another_one_with_more_words(sources):
    more = write(sources / "more.txt", "ABBA a b b a")
    first = write(sources / "first.txt", "DA d a")
    arguments = {"lm": sources / "lm.arpa", "topology": "modified", "silence_probability": 0.3}
    build_graph(sources / "one", sources / "phones.json", add_words=first, **arguments)
    with pytest.raises(UserError, match="give --tokenizer"):
        build_graph_like(sources / "one", sources / "two", add_words=more)
    build_graph_like(sources / "one", sources / "two", add_words=more, tokenizer=sources / "phones.json")
    graph = load_graph(sources / "two", PHONES)
    assert graph.words[1:-1] == ["ABBA", "BAD", "DA", "DAB"]
    assert graph.meta["topology"] == "modified" and graph.meta["silence"] == {"unit": "SIL", "probability": 0.3}


def test_a_graph_like_one_whose_language_model_is_elsewhere_needs_it(sources):
    build_graph(sources / "one", sources / "phones.json", lm=sources / "lm.arpa")
    words = write(sources / "words.txt", "DA d a")
    arguments = {"add_words": words, "tokenizer": sources / "phones.json"}
    with pytest.raises(UserError, match="give --lm ARPA"):
        build_graph_like(sources / "one", sources / "two", **arguments)
    build_graph_like(sources / "one", sources / "two", lm=sources / "lm.arpa", **arguments)
    assert ("DA",) in recognises(load_graph(sources / "two", PHONES), "da")
