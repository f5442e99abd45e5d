import unicodedata

import pytest

from asrtool.data.texts import read_sentences
from asrtool.lm.corpus import read_word_list, read_word_sequences
from asrtool.text.lexicon import read_lexicon
from asrtool.text.words import change_case, count_words

NFD = unicodedata.normalize("NFD", "été ÀB")


@pytest.fixture
def file(tmp_path):
    """file(content) -> a text file of these bytes"""

    def write(content, name="t.txt"):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path / name

    return write


@pytest.mark.parametrize("case, expected", [("keep", "été ÀB"), ("upper", "ÉTÉ ÀB"), ("lower", "été àb")])
def test_every_reader_of_text_brings_words_into_the_composed_form(file, case, expected):
    assert [*read_word_sequences([file(NFD)], case)] == [expected.split()]
    assert set(count_words(read_sentences(file(NFD)), case)) == {*expected.split()}
    assert change_case(NFD, case) == expected


def test_lexicons_and_word_lists_are_composed_as_well(file):
    path = file(unicodedata.normalize("NFD", "été é t é\n"))
    assert read_word_list(path) == ["été"]
    assert read_lexicon(path).pronunciations == {"été": (("é", "t", "é"),)}


@pytest.mark.parametrize("text", ["İstanbul", "ŉ", "straße", "ΐ", "ǰ", "ᾳ", "ﬁ"])
@pytest.mark.parametrize("case", ["upper", "lower"])
def test_text_is_composed_after_a_change_of_case_which_may_undo_that(text, case):
    for form in ("NFC", "NFD"):
        changed = change_case(unicodedata.normalize(form, text), case)
        assert unicodedata.is_normalized("NFC", changed)
        assert change_case(changed, case) == changed


def test_lines_end_with_line_feeds_alone(file):
    text = "a\u2028b\x0bc\x0cd\u0085e\x1cf\x1dg\r\nh\u00a0i\u3000j\n"
    assert [*read_word_sequences([file(text)])] == [[*"abcdefg"], [*"hij"]]


def test_a_byte_order_mark_is_not_part_of_a_word(file):
    path = file("\ufeffA ah\n")
    assert [*read_word_sequences([path])] == [["A", "ah"]]
    assert read_word_list(path) == ["A"] and list(read_lexicon(path).pronunciations) == ["A"]


def test_invisible_characters_are_not_part_of_a_word(file):
    path = file("\u200fA\u200b a\u00adh\u2060\n\u200b\n\u0645\u06cc\u200c\u062e a\n")
    assert [*filter(None, read_word_sequences([path]))] == [
        ["A", "ah"],
        ["\u0645\u06cc\u200c\u062e", "a"],
    ]  # but a joiner is
    assert read_word_list(path) == ["A", "\u0645\u06cc\u200c\u062e"]
    assert read_lexicon(path).pronunciations["A"] == (("ah",),)
