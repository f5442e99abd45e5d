"""Texts as people write them, in the words of a system."""

import pytest

from asrtool.errors import UserError
from asrtool.text import spoken_text as module
from asrtool.text.lexicon import Lexicon
from asrtool.text.spoken_text import read_spoken_text, spoken_text
from asrtool.text.tokenizer import BLANK_SYMBOL, PhoneTokenizer, SymbolTokenizer

UPPER = SymbolTokenizer("char", [BLANK_SYMBOL, "\u2581", "'", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ"])


def words(text, tokenizer=UPPER):
    return [word.text for word in spoken_text(text.splitlines(), tokenizer).words]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("Hello, world!", "HELLO WORLD"),
        ("\u201cDon\u2019t,\u201d he said \u2014 'twas late\u2026", "DON'T HE SAID 'TWAS LATE"),
        ("well-known either/or wait...what", "WELL KNOWN EITHER OR WAIT WHAT"),
        ("- * a (b) [c] _d_", "A B C D"),
        ("soft\u00adhyphen", "SOFTHYPHEN"),
    ],
)
def test_case_and_punctuation_become_the_systems(text, expected):
    assert words(text) == expected.split()


def test_words_that_the_system_can_write_stay_as_they_are():
    tokenizer = SymbolTokenizer("word", [BLANK_SYMBOL, "Dr.", "Who?", "who"])
    assert words("Dr. Who? who, dr.", tokenizer) == ["Dr.", "Who?", "who"]  # "dr" is not one of its words


MARKED_WORDS = [
    "col\u00b7lecci\u00f3",
    "peut-\u00eatre",
    "\u05e6\u05d4\u05f4\u05dc",
    "\u0645\u06cc\u200c\u0631\u0648\u0645",
    "'twas",
]


@pytest.mark.parametrize("word", MARKED_WORDS)
@pytest.mark.parametrize("written", ["{}", "{}.", "({}),", "\u00ab{}\u00bb!", "{}\u2026"])
def test_punctuation_around_a_word_leaves_the_marks_within_it(word, written):
    by_word = SymbolTokenizer("word", [BLANK_SYMBOL, "a", word])
    by_character = SymbolTokenizer("char", [BLANK_SYMBOL, "\u2581", "a", *dict.fromkeys(word.replace("a", ""))])
    for tokenizer in (by_word, by_character):
        assert words("a " + written.format(word), tokenizer) == ["a", word]


def test_marks_that_the_system_does_not_have_are_removed():
    tokenizer = SymbolTokenizer("word", [BLANK_SYMBOL, "collecci\u00f3", "peut", "\u00eatre", "\u05e8"])
    text = "col\u00b7lecci\u00f3, peut-\u00eatre. \u05e8\u05f3."
    assert words(text, tokenizer) == ["collecci\u00f3", "peut", "\u00eatre", "\u05e8"]


def test_words_that_differ_by_case_count_with_their_punctuation():
    tokenizer = SymbolTokenizer("word", [BLANK_SYMBOL, "PEUT-\u00caTRE", "peut"])
    assert words("peut-\u00eatre, peut-\u00eatre.", tokenizer) == ["PEUT-\u00caTRE"] * 2


def test_ends_of_sentences_and_lines_are_marked():
    text = spoken_text(["One two. Three", "four\u201d five!\u201d six"], UPPER)
    assert [word.text for word in text.words if word.ends_sentence] == ["TWO", "THREE", "FIVE", "SIX"]
    assert [word.line for word in text.words] == [1, 1, 1, 2, 2, 2]


def test_what_cannot_be_written_is_listed_and_counted():
    text = spoken_text(["In 1984, Zo\u00eb left."], UPPER)
    assert [word.text for word in text.words] == ["IN", "LEFT"]
    assert [word.text for word in text.unwritable] == ["1984", "ZO\u00cb"]
    assert "2 words left out" in text.summary() and "1984 (line 1)" in text.summary()
    assert "case: upper" in text.summary() and "punctuation removed 2 times" in text.summary()


@pytest.mark.parametrize("lines", [[], ["", " \n"], ["..."], ["\u4f60\u597d \u4e16\u754c"], ["1984 2001"]])
def test_a_text_without_usable_words_is_one_clear_line(lines):
    with pytest.raises(UserError, match="the text (has no words|can be written)|no word of the text"):
        spoken_text(lines, UPPER)


def test_a_text_that_is_too_long_is_refused(monkeypatch):
    monkeypatch.setattr(module, "MAX_TEXT_WORDS", 3)
    with pytest.raises(UserError, match="4 words, more than 3"):
        spoken_text(["a b c d"], UPPER)


def test_words_that_the_lexicon_lacks_are_pronounced_in_their_place(monkeypatch):
    lexicon = Lexicon({"ONE": (("W", "AH", "N"),), "TWO": (("T", "UW"),)})
    tokenizer = PhoneTokenizer([BLANK_SYMBOL, "AH", "N", "T", "UW", "W"], lexicon)
    predicted = {"TOON": ("T", "UW", "N"), "ZOO": ("Z", "UW")}  # Z is not a phone of the system
    monkeypatch.setattr(module, "predict_pronunciations", lambda words, *_: {w: predicted[w] for w in words})
    text = spoken_text(["one toon two zoo"], tokenizer)
    assert [word.text for word in text.words] == ["ONE", "TOON", "TWO"]
    assert text.pronounced == ("TOON",) and [word.text for word in text.unwritable] == ["ZOO"]
    assert text.tokenizer.pronunciations("TOON") == (("T", "UW", "N"),)


def test_without_g2p_the_other_words_are_left(monkeypatch):
    def fail(*_):
        raise UserError("needs the package phonetisaurus")

    monkeypatch.setattr(module, "predict_pronunciations", fail)
    tokenizer = PhoneTokenizer([BLANK_SYMBOL, "T", "UW"], Lexicon({"TWO": (("T", "UW"),)}))
    assert words("two three", tokenizer) == ["TWO"]


def test_a_file_is_named_when_it_is_missing_or_empty(tmp_path):
    with pytest.raises(UserError, match="text not found"):
        read_spoken_text(tmp_path / "none.txt", UPPER)
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(UserError, match=r"empty\.txt has no words"):
        read_spoken_text(tmp_path / "empty.txt", UPPER)
