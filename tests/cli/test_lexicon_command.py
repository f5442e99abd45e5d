"""From transcripts to a lexicon, from the lexicon to a tokenizer of phones, and to a training that can use it."""

from pathlib import Path

import pytest

from asrtool.data.inspection import CutRequirements, inspect_cuts
from asrtool.data.texts import read_sentences
from asrtool.files import write_jsonl
from asrtool.text.lexicon import read_lexicon
from asrtool.text.tokenizer import load_tokenizer

DIGITS = "one W AH1 N\none HH W AH1 N\ntwo T UW1\nthree TH R IY1\n"


@pytest.fixture
def asr(asr, monkeypatch, tmp_path):
    """As everywhere, in a folder with two lexicons."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits.txt").write_text(DIGITS)
    (tmp_path / "four.txt").write_text("four F AO R\ntwo x\n")
    return asr


def test_the_lexicon_of_manifests_text_and_lists_from_several_sources(asr, corpus, tmp_path):
    (tmp_path / "list").write_text("four\nfive\none\n")
    options = ["--source", "digits.txt", "--source", "four.txt", "--stress", "drop"]
    status, out, _ = asr("lexicon", corpus, "list", "new/lexicon.txt", *options)
    assert status == 0
    assert "new/lexicon.txt: 4 words (3 from digits.txt, 1 from four.txt), 5 pronunciations, 11 phones" in out
    assert "1 left out" in out and "five" in out
    pronunciations = read_lexicon("new/lexicon.txt").pronunciations
    assert pronunciations["one"] == (("W", "AH", "N"), ("HH", "W", "AH", "N")) and pronunciations["two"] == (
        ("T", "UW"),
    )


@pytest.mark.parametrize("options, left", [(["--top", 1], {"one"}), (["--min-count", 2], {"one", "two"})])
def test_rare_words_can_be_left_out(asr, tmp_path, options, left):
    (tmp_path / "text").write_text("one two one three\ntwo one\n")
    assert asr("lexicon", "text", "out", "--source", "digits.txt", *options)[0] == 0
    assert set(read_lexicon("out").pronunciations) == left


def test_words_of_manifests_are_never_left_out(asr, corpus, tmp_path):
    (tmp_path / "text").write_text("four four four\none\n")
    options = ["--source", "digits.txt", "--source", "four.txt", "--stress", "drop", "--top", 1]
    assert asr("lexicon", corpus, "text", "out", *options)[0] == 0
    assert set(read_lexicon("out").pronunciations) == {"one", "two", "three", "four"}


def test_the_words_left_out_are_counted_in_manifests_and_texts(asr, corpus, tmp_path):
    def count(manifest: Path, word: str) -> int:
        return sum(text.split().count(word) for text in read_sentences(manifest))

    (tmp_path / "text").write_text("five " * 9 + "four " * 5000 + "one\n")
    (tmp_path / "one.txt").write_text("one W AH N\n")
    status, out, _ = asr("lexicon", corpus, "text", "out", "--source", "one.txt", "--top", 1)
    counts = {word: count(corpus, word) for word in ("one", "two", "three", "four")}
    counts["four"] += 5000
    counts["one"] += 1
    percent = 100 * (1 - counts["one"] / sum(counts.values()))
    rest = " ".join(sorted(("two", "three"), key=lambda word: (-counts[word], word)))
    assert status == 0 and f"3 left out, {percent:.2f} % of the text: four {rest}" in out


def test_a_dictionary_in_another_case_is_refused_or_converted(asr, tmp_path):
    (tmp_path / "text").write_text("ONE Two\n")
    status, _, err = asr("lexicon", "text", "out", "--source", "digits.txt")
    assert status == 2 and "none of the 2 words" in err and "--case" in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert asr("lexicon", "text", "out", "--source", "digits.txt", "--case", "upper")[0] == 0
    assert set(read_lexicon("out").pronunciations) == {"ONE", "TWO"}


def test_all_faults_of_a_source_are_listed_with_status_1(asr, tmp_path):
    (tmp_path / "phones").write_text("W AH1\nN\n")
    status, _, err = asr("lexicon", "digits.txt", "out", "--source", "digits.txt", "--phones", "phones")
    assert status == 1 and "line 2: one: HH" in err and err.splitlines()[-1].startswith("asrtool: error: 6 faults in")


def test_a_tokenizer_of_phones_serves_training(asr, corpus, tiny_config, tmp_path):
    asr("lexicon", corpus, "lexicon.txt", "--source", "digits.txt", "--source", "four.txt", "--stress", "drop")
    phones = ["--type", "phone", "--lexicon", "lexicon.txt"]
    status, out, _ = asr("tokenizer", corpus, "t.json", *phones, "--silence", "SIL")
    assert (status, out) == (0, "t.json: 13 units (phone)\n")
    tokenizer = load_tokenizer("t.json")
    assert tokenizer.separator == "SIL" and len(tokenizer.pronunciation_units("one two")[0]) == 2
    requirements = CutRequirements(
        data=tiny_config().data,
        sampling_rate=16000,
        tokenizer=tokenizer,
        min_frames=len,
        out_length=lambda frames: frames,
    )
    inspection = inspect_cuts(corpus, requirements)
    assert inspection.cuts == 24 and not inspection.dropped


def test_hypotheses_in_phones_are_scored_as_phones(asr):
    row = {"id": "u1", "ref": "W AH N T UW", "hyp": "W AH T UW", "token_type": "phones"}
    write_jsonl("test/greedy/hyps.jsonl", [row])
    status, out, _ = asr("score", "test/greedy", "--name", "test")
    assert status == 0 and out.startswith("test PER 20.00 % ") and " 5 phones) " in out
    assert "WER" not in out and "CER" not in out


def test_words_without_pronunciation_are_listed_with_status_1(asr, corpus):
    status, _, err = asr("tokenizer", corpus, "t.json", "--type", "phone", "--lexicon", "digits.txt")
    assert status == 1 and "  four: " in err and "asrtool lexicon" in err.splitlines()[-1]


@pytest.mark.parametrize(
    "options",
    [["--type", "phone"], ["--type", "bpe", "--lexicon", "digits.txt"], ["--type", "char", "--silence", "SIL"]],
    ids=" ".join,
)
def test_options_that_exclude_each_other_are_refused(asr, corpus, options):
    status, _, err = asr("tokenizer", corpus, "t.json", *options)
    assert status == 2 and "--type phone, biphone and triphone need --lexicon" in err and err.count("\n") == 1


def test_symbols_of_graphs_in_the_file_of_phones_are_no_phones(asr, tmp_path):
    """As in phones.txt of Kaldi."""
    (tmp_path / "phones").write_text("<eps> 0\nA 1\n#0 2\n#1 3\n")
    (tmp_path / "l.txt").write_text("x A <eps>\ny A #1\nz A\n")
    status, _, err = asr("lexicon", "l.txt", "out", "--source", "l.txt", "--phones", "phones")
    assert status == 1 and "x: <eps> is a reserved symbol" in err and "y: #1 is a reserved symbol" in err
