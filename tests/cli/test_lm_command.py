import gzip
import json

import pytest

from asrtool.text.ngram_files import load_lm
from tests.text.test_ngram import toy_text


@pytest.fixture
def asr(asr, monkeypatch, tmp_path):
    """As everywhere, in tmp_path."""
    monkeypatch.chdir(tmp_path)
    return asr


@pytest.fixture
def text(tmp_path):
    """Toy sentences, gzipped, upper case."""
    lines = "".join(" ".join(line).upper() + "\n" for line in toy_text(200))
    (tmp_path / "text.txt.gz").write_bytes(gzip.compress(lines.encode()))
    return "text.txt.gz"


def figure(printed, reader):
    """The perplexity without OOV words that `reader` found."""
    line = next(line for line in printed.splitlines() if line.startswith(reader))
    return float(line.split("perplexity ")[1].split()[0])


def test_train_prune_and_measure(asr, text, tmp_path):
    status, out, err = asr("lm", "train", text, "lang/3gram.arpa.gz")
    assert status == 0 and out.startswith("lang/3gram.arpa.gz: 9 1-grams, 45 2-grams") and "counted" in err
    status, out, _ = asr("lm", "prune", "lang/3gram.arpa.gz", "small.arpa", "--size", 40)
    assert status == 0 and sum(load_lm(tmp_path / "small.arpa").trie.counts()) <= 40
    (tmp_path / "dev.txt").write_text("A B C\nB QUUX\n")
    found = [asr("lm", "perplexity", model, "dev.txt") for model in ("lang/3gram.arpa.gz", "small.arpa")]
    summary = "2 sentences, 5 words, 1 OOV words (20.00 %), most often QUUX 1"
    assert all(status == 0 and summary in out for status, out, _ in found)
    assert 1 < figure(found[0][1], "asrtool") != figure(found[1][1], "asrtool")


def test_a_model_is_compiled_and_turned_back(asr, text, tmp_path):
    asr("lm", "train", text, "lm.arpa")
    status, out, _ = asr("lm", "convert", "lm.arpa", "lm.npz")
    assert status == 0 and out.startswith("lm.npz: 9 1-grams, 45 2-grams")
    assert asr("lm", "convert", "lm.npz", "again.arpa")[0] == 0
    assert (tmp_path / "again.arpa").read_bytes() == (tmp_path / "lm.arpa").read_bytes()
    assert asr("lm", "train", text, "trained.npz")[0] == 0
    found = [figure(asr("lm", "perplexity", model, text)[1], "asrtool") for model in ("lm.arpa", "trained.npz")]
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_kenlm_stands_beside_and_agrees(asr, text):
    pytest.importorskip("kenlm")
    asr("lm", "train", text, "lm.arpa", "--order", 4, "--prune", 1e-4)
    _, out, _ = asr("lm", "perplexity", "lm.arpa", text)
    assert figure(out, "asrtool") == pytest.approx(figure(out, "kenlm"), rel=1e-4)


def test_vocabulary_cutoffs_and_case(asr, text, tmp_path):
    (tmp_path / "lexicon.txt").write_text("a AH\nb B IY\nnever N EH V ER\n")
    options = ("--vocab", "lexicon.txt", "--case", "lower", "--cutoffs", "0,0,3")
    assert asr("lm", "train", text, "lm.arpa", *options)[0] == 0
    assert load_lm(tmp_path / "lm.arpa").words == ["<unk>", "<s>", "</s>", "a", "b", "never"]
    assert asr("lm", "train", text, "lm.arpa", "--top", "2", "--order", "2")[1].startswith("lm.arpa: 5 1-grams")


def test_transcripts_of_a_manifest_as_words_or_units(asr, corpus, tokenizer_file, tmp_path):
    assert asr("lm", "train", corpus, "words.arpa", "--order", 2)[0] == 0
    assert load_lm(tmp_path / "words.arpa").words[3:] == ["four", "one", "three", "two"]
    assert asr("tokenizer", corpus, "chars.json", "--type", "char")[0] == 0
    assert asr("lm", "train", corpus, "units.arpa", "--order", 2, "--tokenizer", "chars.json")[0] == 0
    symbols = json.loads((tmp_path / "chars.json").read_text())["symbols"]
    assert load_lm(tmp_path / "units.arpa").words[3:] == symbols[1:]
    status, out, _ = asr("lm", "perplexity", "units.arpa", corpus, "--tokenizer", "chars.json")
    assert status == 0 and " 0 OOV words" in out


def test_text_that_the_tokenizer_cannot_spell_is_left_out_and_counted(asr, text, tokenizer_file, tmp_path):
    (tmp_path / "some.txt").write_text("one two\nONE\nthree\n")
    status, _, err = asr("lm", "train", "some.txt", "units.arpa", "--order", 2, "--tokenizer", tokenizer_file)
    assert status == 0 and "1 sentences were left out" in err


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["train", "none.txt", "lm.arpa"], "text not found: none.txt"),
        (["train", "text.txt.gz", "lm.arpa", "--vocab", "none.txt"], "word list not found: none.txt"),
        (["train", "text.txt.gz", "lm.arpa", "--vocab", "text.txt.gz", "--case", "lower"], "--case upper"),
        (["train", "text.txt.gz", "lm.arpa", "--vocab", "x", "--top", "3"], "leave out --top"),
        (["train", "text.txt.gz", "lm.arpa", "--cutoffs", "0,x"], "--cutoffs"),
        (["train", "text.txt.gz", "lm.arpa", "--cutoffs", "0,2,1"], "cutoffs 0,2,1"),
        (["train", "text.txt.gz", "lm.arpa", "--order", "6"], "--order"),
        (["train", "text.txt.gz", "lm.arpa", "--tokenizer", "none.json"], "tokenizer not found"),
        (["prune", "text.txt.gz", "lm.arpa"], "--threshold or --size"),
        (["prune", "text.txt.gz", "lm.arpa", "--size", "9"], "not an ARPA file"),
        (["prune", "none.arpa", "lm.arpa", "--size", "9"], "none.arpa"),
        (["perplexity", "none.arpa", "text.txt.gz"], "asrtool lm train"),
    ],
)
def test_what_the_user_did_wrong_is_one_line_and_status_2(asr, text, tmp_path, arguments, complaint):
    status, out, err = asr("lm", *arguments)
    assert status == 2 and out == "" and complaint in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("asrtool: error: ") and not (tmp_path / "lm.arpa").exists()


def test_wrong_model_is_listed_whole_with_status_1(asr, text, tmp_path):
    asr("lm", "train", text, "lm.arpa", "--order", 2)
    lines = (tmp_path / "lm.arpa").read_text()
    (tmp_path / "bad.arpa").write_text(lines.replace("\tA B", "\tA NEVER").replace("\tB D", "\tB D D D"))
    status, _, err = asr("lm", "perplexity", "bad.arpa", text)
    assert status == 1 and "A NEVER': a word of it" in err and "B D D D': not a number, 2 words" in err
    assert err.splitlines()[-1].startswith("asrtool: error: bad.arpa: 2 problems")


def test_text_in_another_case_is_refused_with_what_to_do(asr, text, tmp_path):
    asr("lm", "train", text, "lm.arpa", "--case", "lower")
    status, _, err = asr("lm", "perplexity", "lm.arpa", text)
    assert status == 2 and "--case lower" in err
    assert asr("lm", "perplexity", "lm.arpa", text, "--case", "lower")[0] == 0
