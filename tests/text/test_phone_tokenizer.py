import json
import pickle

import pytest

from asrtool.errors import DataError, UserError
from asrtool.text.lexicon import Lexicon
from asrtool.text.tokenizer import BLANK, load_tokenizer, save_tokenizer
from asrtool.text.tokenizer_training import phone_tokenizer

LEXICON = Lexicon(
    {
        "HELLO": (("HH", "AH", "L", "OW"), ("HH", "EH", "L", "OW")),
        "A": (("AH",), ("EY",)),
        "LOW": (("L", "OW"),),
    }
)
TEXTS = ["HELLO A LOW", "LOW A"]


@pytest.fixture
def tokenizer():
    return phone_tokenizer(LEXICON, TEXTS)


def test_units_are_the_blank_and_the_phones(tokenizer):
    assert tokenizer.symbols == ["<blank>", "AH", "EH", "EY", "HH", "L", "OW"]
    assert (tokenizer.size, tokenizer.separator) == (7, None)


def test_a_text_is_encoded_by_its_usual_pronunciations(tokenizer):
    units = tokenizer.encode(" LOW\tHELLO  A ")
    assert tokenizer.decode(units) == "L OW HH AH L OW AH"
    assert all(BLANK < unit < tokenizer.size for unit in units)
    assert tokenizer.encode("") == [] and tokenizer.decode([]) == ""


def test_pronunciations_come_word_by_word_the_usual_one_first(tokenizer):
    pronunciations = tokenizer.pronunciation_units("A LOW HELLO")
    assert [[tokenizer.decode(pron) for pron in prons] for prons in pronunciations] == [
        ["AH", "EY"],
        ["L OW"],
        ["HH AH L OW", "HH EH L OW"],
    ]
    assert [unit for prons in pronunciations for unit in prons[0]] == tokenizer.encode("A LOW HELLO")


def test_words_without_pronunciation_are_unknown_and_not_encoded(tokenizer):
    assert tokenizer.unknown("HELLO hello WORLD A") == ["hello", "WORLD"]
    assert tokenizer.unknown("<blank> HH") == ["<blank>", "HH"]
    for method in (tokenizer.encode, tokenizer.pronunciation_units):
        with pytest.raises(KeyError):
            method("HELLO WORLD")


def test_the_reference_is_in_phones_and_a_word_without_phones_is_always_an_error(tokenizer):
    assert tokenizer.output_type == "phones"
    assert tokenizer.reference("A LOW") == tokenizer.decode(tokenizer.encode("A LOW"))
    assert tokenizer.reference("A WORLD LOW") == "AH <unk> L OW" and "<unk>" not in tokenizer.symbols


@pytest.mark.parametrize("silence", ["SIL", "L"], ids=["new", "a phone of the lexicon"])
def test_silence_is_a_unit_that_neither_targets_nor_texts_have(silence):
    tokenizer = phone_tokenizer(LEXICON, TEXTS, silence)
    assert tokenizer.separator == silence and tokenizer.symbols.count(silence) == 1
    unit = tokenizer.symbols.index(silence)
    assert unit != BLANK
    assert tokenizer.decode([unit, *tokenizer.encode("A"), unit]) == "AH"
    assert tokenizer.decode(tokenizer.encode("LOW HELLO")) == tokenizer.reference("LOW HELLO")
    if silence == "SIL":
        assert unit not in tokenizer.encode("HELLO A LOW")
        assert set(tokenizer.symbols) - {silence} == set(phone_tokenizer(LEXICON, TEXTS).symbols)


@pytest.mark.parametrize("silence", ["<blank>", "#0", "two words", "<eps>"])
def test_silence_needs_a_name_of_its_own(silence):
    with pytest.raises(UserError, match="cannot be the name of the silence unit"):
        phone_tokenizer(LEXICON, TEXTS, silence)


@pytest.mark.parametrize("silence", [None, "SIL"])
def test_a_copy_is_the_same(tmp_path, silence):
    tokenizer = phone_tokenizer(LEXICON, TEXTS, silence)
    save_tokenizer(tokenizer, tmp_path / "t.json")
    for copy in (load_tokenizer(tmp_path / "t.json"), pickle.loads(pickle.dumps(tokenizer))):
        assert copy.to_dict() == tokenizer.to_dict()
        assert copy.pronunciation_units("HELLO A") == tokenizer.pronunciation_units("HELLO A")
        assert (copy.symbols, copy.separator) == (tokenizer.symbols, silence)


def test_words_of_the_transcripts_without_pronunciation_are_all_listed_the_most_frequent_first():
    with pytest.raises(DataError, match="2 of 4 words .*--unknown g2p") as error:
        phone_tokenizer(LEXICON, ["HELLO WORLD AGAIN", "A WORLD"])
    assert error.value.problems == ["WORLD: 2 times", "AGAIN: 1 times"]


def test_a_lexicon_for_other_words_is_refused_in_one_line():
    with pytest.raises(UserError, match="none of the transcripts' 2 words.*case"):
        phone_tokenizer(LEXICON, ["hello low"])


@pytest.mark.parametrize("texts", [[], [" "]])
def test_a_text_without_words_is_refused(texts):
    with pytest.raises(UserError, match="no transcripts"):
        phone_tokenizer(LEXICON, texts)


@pytest.mark.parametrize(
    "changes",
    [
        {"symbols": ["<blank>", "AH"]},
        {"symbols": 3},
        {"lexicon": {"A": []}},
        {"lexicon": {"A": [""]}},
        {"lexicon": {"A": ["<blank>"]}},
        {"lexicon": ["A"]},
        {"lexicon": None},
        {"silence": "SIL"},
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path, tokenizer, changes):
    path = tmp_path / "t.json"
    path.write_text(json.dumps(tokenizer.to_dict() | changes))
    with pytest.raises(UserError, match=f"{path} is not a tokenizer"):
        load_tokenizer(path)


@pytest.mark.parametrize(
    "changes, complaint",
    [
        ({"lexicon": {"A": "AH"}}, "no list of pronunciations"),
        ({"lexicon": {"": ["AH"]}}, "is not a word of a lexicon"),
        ({"lexicon": {"A B": ["AH"]}}, "is not a word of a lexicon"),
        ({"lexicon": {"A": [3]}}, "t.json is not a tokenizer"),
        ({"lexicon": {"A": [["AH"]]}}, "t.json is not a tokenizer"),
        ({"lexicon": {"A": ["AH ZZ"]}}, "phones that are not units"),
        ({"silence": "<blank>"}, "its silence is not a unit"),
        ({"silence": ""}, "its silence is not a unit"),
        ({"silence": 0}, "its silence is not a unit"),
        ({"silence": ["AH"]}, "its silence is not a unit"),
    ],
)
def test_files_whose_lexicon_or_silence_is_not_among_the_units_are_refused(tmp_path, tokenizer, changes, complaint):
    path = tmp_path / "t.json"
    path.write_text(json.dumps(tokenizer.to_dict() | changes))
    with pytest.raises(UserError, match=f"{path} is not a tokenizer") as caught:
        load_tokenizer(path)
    assert complaint in str(caught.value)


def test_the_unknown_word_needs_a_pronunciation_in_the_lexicon():
    with pytest.raises(DataError, match="give <unk> a line such as `<unk> SPN` in the lexicon"):
        phone_tokenizer(LEXICON, ["HELLO <unk>"])
    spoken = Lexicon(LEXICON.pronunciations | {"<unk>": (("SPN",),)})
    assert "SPN" in phone_tokenizer(spoken, ["HELLO <unk>"]).symbols
