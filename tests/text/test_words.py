import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrtool.data.texts import read_sentences
from asrtool.data.utterance_checks import clean_transcript
from asrtool.lm.corpus import read_word_list, read_word_sequences
from asrtool.text.characters import invisible_characters, invisible_places, without_invisible
from asrtool.text.lexicon import read_lexicon
from asrtool.text.normalisation_rules import NormalisationRules
from asrtool.text.normaliser import Normaliser
from asrtool.text.words import change_case, composed, count_words

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


INVISIBLE = "\u00ad\u061c\u200b\u200c\u200d\u2060\ufe0f\ufeff\U000e0001\U000e0100"


@given(st.text("a\u00e9\u0301\u0645\u06cc\u0dca \u2764" + INVISIBLE, max_size=12))
def test_all_texts_and_transcripts_are_freed_of_the_same_characters(text):
    assert " ".join(composed(text).split()) == clean_transcript(text)[0]
    places = invisible_places(text)
    assert without_invisible(text) == "".join(one for place, one in enumerate(text) if place not in places)
    assert without_invisible(without_invisible(text)) == without_invisible(text)
    assert len(invisible_characters(text)) == len(text) - len(without_invisible(text))


@pytest.mark.parametrize(
    ("text", "visible"),
    [
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"),
        ("\u0645\u06cc\u200c\u200c\u062e", "\u0645\u06cc\u200c\u062e"),
        ("\u0645\u06cc\u200c \u062e\u200c", "\u0645\u06cc \u062e"),
        ("\u0645\u06cc\u200c\u060c a", "\u0645\u06cc\u060c a"),  # before a comma
        ("\u0645\u06cc\u200c5", "\u0645\u06cc5"),
        ("\u0915\u094d\u200c", "\u0915\u094d"),
        ("\u0d28\u0d4d\u200d", "\u0d28\u0d4d\u200d"),  # it makes another letter of Malayalam
    ],
)
def test_a_joiner_at_the_end_of_a_word_is_invisible_unless_it_changes_the_letter(text, visible):
    assert without_invisible(text) == visible
    assert composed(text) == unicodedata.normalize("NFC", visible)
    assert clean_transcript(text)[0] == composed(text) == Normaliser(NormalisationRules()).change(text)


def test_invisible_characters_are_not_part_of_a_word(file):
    path = file("\u200fA\u200b a\u00adh\u2060\n\u200b\n\u0645\u06cc\u200c\u062e a\n")
    assert [*filter(None, read_word_sequences([path]))] == [
        ["A", "ah"],
        ["\u0645\u06cc\u200c\u062e", "a"],
    ]  # but a joiner is
    assert read_word_list(path) == ["A", "\u0645\u06cc\u200c\u062e"]
    assert read_lexicon(path).pronunciations["A"] == (("ah",),)
