"""The division of the units of a hypothesis among its words."""

from types import SimpleNamespace

import numpy as np
import pytest

from asrtool.decoding.hypothesis import Hypothesis
from asrtool.decoding.word_units import WordSplitter
from asrtool.text.lexicon import Lexicon
from asrtool.text.tokenizer import SPACE, PhoneTokenizer
from asrtool.text.tokenizer_training import train_tokenizer

LEXICON = {"a": (("x",), ("x", "y")), "b": (("y", "z"),), "c": (("z",),), "d": (("z", "x"),)}


def phone_tokenizer() -> PhoneTokenizer:
    return PhoneTokenizer(["<blank>", "SIL", "x", "y", "z"], Lexicon(LEXICON), "SIL")


def graph(topology: str = "ctc", **meta) -> SimpleNamespace:
    """A graph that has the word "new", which the tokenizer lacks."""
    lexicon = Lexicon({"new": (("z", "z"),), "bad": (("q",),)})
    return SimpleNamespace(meta={"topology": topology, **meta}, lexicon=lexicon)


def hypothesis(words: str, units: str, word_frames=None) -> Hypothesis:
    """Units as letters, "_" is silence; unit n begins in frame 2 n."""
    tokens = ["?_xyz".index(unit) for unit in units]
    frames = [2 * n for n in range(len(tokens))]
    return Hypothesis(tokens, frames, 0.0, words.split(), word_frames or [0] * len(words.split()))


@pytest.mark.parametrize("words, units, bounds", [
    ("a b", "xyz", [(0, 1), (1, 3)]),
    ("a c", "xyz", [(0, 2), (2, 3)]),
    ("a b", "_xyyz_", [(1, 3), (3, 5)]),
    ("a b", "x_yz", [(0, 1), (2, 4)]),
    ("a a a", "xxyx", [(0, 1), (1, 3), (3, 4)]),
    ("", "_", []),
    ("", "", []),
])  # fmt: skip
def test_words_of_a_graph_have_the_units_of_their_pronunciations(words, units, bounds):
    found = WordSplitter(phone_tokenizer(), graph()).words(hypothesis(words, units))
    assert found == list(zip(words.split(), bounds, strict=True))


def test_random_words_get_their_own_units():
    draw = np.random.default_rng(1)
    splitter = WordSplitter(phone_tokenizer(), graph())
    for _ in range(100):
        words = [str(word) for word in draw.choice(list(LEXICON), int(draw.integers(1, 8)))]
        units = []
        for word in words:
            pronunciations = LEXICON[word]
            units += ["_"] * int(draw.integers(2)) + list(pronunciations[int(draw.integers(len(pronunciations)))])
        found = splitter.words(hypothesis(" ".join(words), "".join(units)))
        assert [word for word, _ in found] == words
        for word, (begin, end) in found:
            assert tuple(units[begin:end]) in LEXICON[word]
        ends = [0, *(end for _, (_, end) in found)]
        between = [units[end:begin] for end, (_, (begin, _)) in zip(ends, found, strict=False)]
        assert all(gap in ([], ["_"]) for gap in between)


def test_where_repeats_are_merged_a_unit_may_belong_to_two_words():
    found = WordSplitter(phone_tokenizer(), graph("modified")).words(hypothesis("b c", "yz"))
    assert found == [("b", (0, 2)), ("c", (1, 2))]


@pytest.mark.parametrize("words, units, bounds", [
    ("e d", "xyzx", [(0, 3), (2, 4)]),  # z is in both words, although e also ends after x
    ("c e d", "zxyzx", [(0, 1), (1, 4), (3, 5)]),
    ("e d d", "xyzxzx", [(0, 3), (2, 4), (4, 6)]),
    ("e d", "xzx", [(0, 1), (1, 3)]),
])  # fmt: skip
def test_merged_repeats_leave_no_unit_between_two_words(words, units, bounds):
    lexicon = Lexicon(LEXICON | {"e": (("x",), ("x", "y", "z"))})
    tokenizer = PhoneTokenizer(["<blank>", "SIL", "x", "y", "z"], lexicon, "SIL")
    found = WordSplitter(tokenizer, graph("modified")).words(hypothesis(words, units))
    assert found == list(zip(words.split(), bounds, strict=True))


@pytest.mark.parametrize("separator", [None, "SIL"])
@pytest.mark.parametrize("meta, silence", [
    ({"silence": {"unit": "x", "probability": 0.5}, "separator": None}, "x"),
    ({"silence": {"unit": "SIL", "probability": 0.5}, "separator": None}, "_"),
    ({"silence": None, "separator": "SIL"}, "_"),
    ({"silence": None, "separator": None}, ""),
])  # fmt: skip
def test_the_silence_of_a_graph_belongs_to_no_word(separator, meta, silence):
    lexicon = Lexicon({"c": (("z",),), "g": (("y", "z"),)})
    tokenizer = PhoneTokenizer(["<blank>", "SIL", "x", "y", "z"], lexicon, separator)
    units = silence.join(["", "z", "yz", ""])
    size = len(silence)
    found = WordSplitter(tokenizer, graph(**meta)).words(hypothesis("c g", units))
    assert found == [("c", (size, size + 1)), ("g", (2 * size + 1, 2 * size + 3))]


def test_words_that_only_the_graph_has_get_the_units_of_its_lexicon():
    splitter = WordSplitter(phone_tokenizer(), graph())
    assert splitter.words(hypothesis("a new b", "xzzyz")) == [("a", (0, 1)), ("new", (1, 3)), ("b", (3, 5))]


@pytest.mark.parametrize("word, units", [("a", "zx"), ("a", "x"), ("b", "zz"), ("b", "yz")])
def test_words_have_the_pronunciations_of_the_graph_as_well_as_the_tokenizers(word, units):
    own = SimpleNamespace(
        meta={"topology": "ctc"}, lexicon=Lexicon({"a": (("z", "x"),), "b": (("z", "z"), ("y", "z"))})
    )
    splitter = WordSplitter(phone_tokenizer(), own)
    end = 1 + len(units)
    found = splitter.words(hypothesis(f"c {word} d", f"z{units}zx"))
    assert found == [("c", (0, 1)), (word, (1, end)), ("d", (end, end + 2))]


def test_units_that_no_pronunciation_explains_are_divided_by_time():
    splitter = WordSplitter(phone_tokenizer(), graph())
    for word in ("unknown", "bad"):
        found = splitter.words(hypothesis(f"a {word}", "xzzy", word_frames=[1, 5]))
        assert found == [("a", (0, 1)), (word, (1, 4))]


@pytest.mark.parametrize("text", ["ab c", "c", "c c ab"])
def test_words_of_characters_begin_at_the_mark_of_a_space(text):
    tokenizer = train_tokenizer("char", ["ab c"])
    tokens = tokenizer.encode(text)
    found = WordSplitter(tokenizer).words(Hypothesis(tokens, list(range(len(tokens))), 0.0))
    assert [word for word, _ in found] == tokenizer.decode(tokens).split()
    for word, (begin, end) in found:
        assert "".join(tokenizer.symbols[unit] for unit in tokens[begin:end]).strip(SPACE) == word


@pytest.mark.parametrize("text", ["กาแฟ", "ก", "ฟาก"])
def test_characters_without_a_space_are_one_word(text):
    tokenizer = train_tokenizer("char", ["กาแฟ", "ฟา"])
    found = WordSplitter(tokenizer).words(Hypothesis(tokenizer.encode(text), list(range(len(text))), 0.0))
    assert found == [(text, (0, len(text)))] and tokenizer.separator is None


def test_units_that_are_words_or_phones_stand_alone():
    words = train_tokenizer("word", ["ab", "c"])
    assert WordSplitter(words).words(Hypothesis(words.encode("c ab"), [0, 3], 0.0)) == [("c", (0, 1)), ("ab", (1, 2))]
    phones = WordSplitter(phone_tokenizer()).words(Hypothesis([1, 2, 4], [0, 1, 2], 0.0))
    assert phones == [("x", (1, 2)), ("z", (2, 3))]
