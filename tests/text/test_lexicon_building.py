import gzip
import sys

import pytest

from asrtool.errors import UserError
from asrtool.readers import read_lines
from asrtool.text.lexicon import Lexicon
from asrtool.text.lexicon_building import build_lexicon, read_dictionary, with_probabilities
from asrtool.text.words import count_words, most_frequent_words

MINE = Lexicon({"asr": (("EY", "EH", "S", "AA", "R"),), "a": (("EY",),)})
OTHER = Lexicon({"a": (("AH",), ("EY",)), "b": (("B", "IY"),)})
SOURCES = {"mine": MINE, "other": OTHER}
# Each letter is one phone: a model that learns from it must get a new word right.
REGULAR = [x + v + y + w for x in "bdfgklmnp" for v in "aeiou" for y in "bdfgklmnp" for w in "ae"]
SPELLING = Lexicon({word: (tuple(letter.upper() for letter in word),) for word in REGULAR})


def counts(text):
    return most_frequent_words(count_words([text]))


def test_the_first_source_that_has_a_word_gives_all_its_pronunciations():
    report = build_lexicon(counts("a b asr"), SOURCES)
    expected = {"a": (("EY",),), "b": (("B", "IY"),), "asr": (("EY", "EH", "S", "AA", "R"),)}
    assert report.lexicon.pronunciations == expected
    assert report.words_by_source == {"from mine": 2, "from other": 1} and report.left_out == []
    assert build_lexicon(counts("a"), {"other": OTHER, "mine": MINE}).lexicon.pronunciations["a"] == (("AH",), ("EY",))


def test_probabilities_are_those_of_the_source():
    weighted = Lexicon(OTHER.pronunciations, {("a", ("EY",)): 0.5, ("b", ("B", "IY")): 0.9})
    lexicon = build_lexicon(counts("a b asr"), {"other": weighted, "mine": MINE}).lexicon
    assert lexicon.probabilities == weighted.probabilities
    assert not build_lexicon(counts("a"), {"mine": MINE, "other": weighted}).lexicon.probabilities


def test_probabilities_follow_the_counts_of_pronunciations():
    lexicon = Lexicon({"a": (("AH",), ("EY",), ("AA",)), "b": (("B",), ("C",)), "c": (("C",),)}, {("b", ("C",)): 0.4})
    weighted = with_probabilities(lexicon, {("a", ("EY",)): 7, ("a", ("AH",)): 1, ("c", ("C",)): 3})
    assert weighted.pronunciations == {"a": (("EY",), ("AH",), ("AA",)), "b": (("B",), ("C",)), "c": (("C",),)}
    assert weighted.probabilities == {("a", ("AH",)): 0.25, ("a", ("AA",)): 0.125, ("b", ("C",)): 0.4}


def test_words_that_no_source_has_are_left_out_and_named_with_their_share():
    report = build_lexicon(counts("a a b x y x b a a a"), SOURCES)
    assert set(report.lexicon.pronunciations) == {"a", "b"} and report.left_out == ["x", "y"]
    assert report.left_out_percent == pytest.approx(30)
    assert "2 left out, 30.00 % of the text: x y" in str(report) and "3 phones" in str(report)


def test_characters_can_be_the_phones_of_unknown_words():
    report = build_lexicon(counts("a été"), SOURCES, "characters")
    assert report.lexicon.pronunciations == {"a": (("EY",),), "été": (("é", "t", "é"),)}
    assert report.words_by_source == {"from mine": 1, "by characters": 1}
    assert build_lexicon(counts("ab ba"), {}, "characters").lexicon.symbols == ["a", "b"]


def test_a_letter_is_not_taken_for_a_phone():
    with pytest.raises(UserError, match="^B R: phones of the sources, and letters"):
        build_lexicon(counts("a BRX"), SOURCES, "characters")


def test_symbols_of_graphs_never_get_a_pronunciation():
    report = build_lexicon(counts("ab <s> <unk> #0 a(2) ;;;"), {}, "characters")
    assert list(report.lexicon.pronunciations) == ["ab"] and len(report.left_out) == 5


def test_no_overlap_is_an_error_that_shows_both():
    with pytest.raises(UserError, match="none of the 2 words.*'HELLO'.*mine's like 'asr'.*--case"):
        build_lexicon(counts("HELLO WORLD"), SOURCES, "characters")


@pytest.mark.parametrize("unknown", ["drop", "characters"])
def test_a_lexicon_without_words_is_refused(unknown):
    with pytest.raises(UserError, match="no words"):
        build_lexicon({}, {}, unknown)


def test_sources_with_and_without_stress_are_not_mixed():
    with pytest.raises(UserError, match="both AH0 and AH.*--stress drop"):
        build_lexicon(counts("a"), {"other": OTHER, "stressed": Lexicon({"the": (("DH", "AH0"),)})})


def test_g2p_learns_from_the_sources():
    pytest.importorskip("phonetisaurus", reason="the optional package phonetisaurus is not installed")
    kept, known = REGULAR[::40], Lexicon({w: SPELLING.pronunciations[w] for w in REGULAR if w not in REGULAR[::40]})
    report = build_lexicon(counts(" ".join([*kept, "bada", "züb", "b_d"])), {"spelling": known}, "g2p")
    assert report.left_out == ["b_d", "züb"]  # letters that the dictionary lacks
    right = [word for word in kept if report.lexicon.pronunciations[word] == SPELLING.pronunciations[word]]
    assert len(right) >= 0.9 * len(kept)
    assert report.words_by_source == {"from spelling": 1, "by g2p": len(kept)}
    assert set(report.lexicon.symbols) <= set(known.symbols)


def test_g2p_from_too_small_a_lexicon_fails_in_one_line():
    pytest.importorskip("phonetisaurus", reason="the optional package phonetisaurus is not installed")
    tiny = Lexicon({"ab": (("A", "B"),), "abc": (("X",),)})
    try:
        report = build_lexicon(counts("ab bc"), {"tiny": tiny}, "g2p")
    except UserError as error:
        assert "too few words to learn from" in str(error) and "\n" not in str(error)
    else:
        assert set(report.lexicon.symbols) <= set(tiny.symbols)


def test_g2p_without_phonetisaurus_names_the_package(monkeypatch):
    monkeypatch.setattr("asrtool.text.g2p.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install phonetisaurus"):
        build_lexicon(counts("a zz"), SOURCES, "g2p")
    assert not build_lexicon(counts("a b"), SOURCES, "g2p").left_out  # nothing to guess, nothing to install


def test_g2p_without_a_dictionary_is_refused():
    with pytest.raises(UserError, match="give a --source"):
        build_lexicon(counts("a"), {}, "g2p")


def test_cmudict_is_read_without_importing_its_package():
    pytest.importorskip("pocketsphinx", reason="the optional package pocketsphinx is not installed")
    loaded = sys.modules.pop("pocketsphinx")
    try:
        words = read_dictionary("cmudict", case="upper")
        assert "pocketsphinx" not in sys.modules
    finally:
        sys.modules["pocketsphinx"] = loaded
    assert len(words.pronunciations) > 100_000 and len(words.symbols) == 39
    assert words.pronunciations["HELLO"][0] == ("HH", "AH", "L", "OW")


def test_cmudict_without_pocketsphinx_names_the_package(monkeypatch):
    monkeypatch.setattr("asrtool.text.lexicon_building.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install pocketsphinx"):
        read_dictionary("cmudict")


def test_words_are_counted_and_chosen_the_most_frequent_first():
    word_counts = count_words(["B a", "a\tb c\n", "e\u0301 \u00e9 a"], case="lower")
    assert most_frequent_words(word_counts) == {"a": 3, "b": 2, "\u00e9": 2, "c": 1}
    assert list(most_frequent_words(word_counts, top=2)) == ["a", "b"]
    assert list(most_frequent_words(word_counts, min_count=2)) == ["a", "b", "\u00e9"]


@pytest.mark.parametrize("name", ["t.txt", "t.txt.gz"])
def test_lines_of_plain_and_compressed_text(tmp_path, name):
    content = b"eins zwei\ndrei\n"
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert [line.split() for line in read_lines(tmp_path / name)] == [["eins", "zwei"], ["drei"]]
    with pytest.raises(UserError, match="not found"):
        list(read_lines(tmp_path / "none"))


@pytest.mark.parametrize("binary", ["exit 1", "kill -SEGV $$", "exit 0"])
def test_a_failure_of_phonetisaurus_is_one_line(tmp_path, monkeypatch, binary):
    """It may be missing for this machine, crash, or align nothing."""
    pytest.importorskip("phonetisaurus", reason="the optional package phonetisaurus is not installed")
    for name in ("phonetisaurus-align", "estimate-ngram", "phonetisaurus-arpa2wfst", "phonetisaurus-g2pfst"):
        (tmp_path / name).write_text(f"#!/bin/sh\n: >pairs\n{binary}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr("phonetisaurus.guess_environment", lambda: {"PATH": f"{tmp_path}:/usr/bin:/bin"})
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(UserError, match="--unknown drop") as caught:
        build_lexicon(counts("bada gabo"), {"spelling": SPELLING}, "g2p")
    assert "\n" not in str(caught.value)


def test_a_machine_without_binaries_of_phonetisaurus_is_one_line(monkeypatch):
    pytest.importorskip("phonetisaurus", reason="the optional package phonetisaurus is not installed")

    def no_machine():
        raise ValueError("Unsupported platform: riscv64")

    monkeypatch.setattr("phonetisaurus.guess_environment", no_machine)
    with pytest.raises(UserError, match="does not work on this machine .*riscv64.*--unknown drop"):
        build_lexicon(counts("bada gabo"), {"spelling": SPELLING}, "g2p")
