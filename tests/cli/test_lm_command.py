import gzip
import json

import pytest

from asrtool.lm.ngram_files import load_lm
from tests.lm.test_ngram import toy_text


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
    """The perplexity without OOV words by `reader`."""
    line = next(line for line in printed.splitlines() if line.startswith(reader))
    return float(line.split("perplexity ")[1].split()[0])


def test_train_prune_and_measure(asr, text, tmp_path):
    status, out, err = asr("lm", "train", text, "lang/3gram.arpa.gz")
    assert status == 0 and out.startswith("lang/3gram.arpa.gz: 9 1-grams, 45 2-grams") and "counted" in err
    status, out, _ = asr("lm", "prune", "lang/3gram.arpa.gz", "small.arpa", "--size", 40)
    assert status == 0 and sum(load_lm(tmp_path / "small.arpa").trie.counts()) <= 40
    (tmp_path / "dev.txt").write_text("A B C\nB QUUX\n")
    results = [asr("lm", "perplexity", model, "dev.txt") for model in ("lang/3gram.arpa.gz", "small.arpa")]
    summary = "2 sentences, 5 words, 1 OOV words (20.00 %), most often QUUX 1"
    assert all(status == 0 and summary in out for status, out, _ in results)
    assert 1 < figure(results[0][1], "asrtool") != figure(results[1][1], "asrtool")


def test_a_model_is_compiled_and_turned_back(asr, text, tmp_path):
    asr("lm", "train", text, "lm.arpa")
    status, out, _ = asr("lm", "convert", "lm.arpa", "lm.npz")
    assert status == 0 and out.startswith("lm.npz: 9 1-grams, 45 2-grams")
    assert asr("lm", "convert", "lm.npz", "again.arpa")[0] == 0
    assert (tmp_path / "again.arpa").read_bytes() == (tmp_path / "lm.arpa").read_bytes()
    assert asr("lm", "train", text, "trained.npz")[0] == 0
    perplexities = [figure(asr("lm", "perplexity", model, text)[1], "asrtool") for model in ("lm.arpa", "trained.npz")]
    assert perplexities[0] == pytest.approx(perplexities[1], rel=1e-4)


def test_kenlm_measures_the_same_perplexity(asr, text):
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


def test_text_that_the_tokenizer_cannot_encode_is_left_out_and_counted(asr, text, tokenizer_file, tmp_path):
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
def test_usage_errors_are_one_line_with_status_2(asr, text, tmp_path, arguments, complaint):
    status, out, err = asr("lm", *arguments)
    assert status == 2 and out == "" and complaint in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("asrtool: error: ") and not (tmp_path / "lm.arpa").exists()


def test_all_problems_of_a_model_are_listed_with_status_1(asr, text, tmp_path):
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


OUTPUTS = {
    "lm train": (["lm", "train", "text.txt.gz"], [".arpa", ".arpa.gz", ".npz"]),
    "lm train-neural": (["lm", "train-neural", "text.txt.gz"], [".pt"]),
    "lm prune": (["lm", "prune", "good.arpa", "--size", "40"], [".arpa", ".arpa.gz", ".npz"]),
    "lm convert": (["lm", "convert", "good.arpa"], [".arpa", ".arpa.gz", ".npz"]),
    "tokenizer": (["tokenizer", "cuts.jsonl.gz", "--type", "word"], [".json"]),
}


@pytest.fixture
def inputs(asr, text, corpus, tmp_path):
    """good.arpa and cuts.jsonl.gz"""
    assert asr("lm", "train", text, "good.arpa", "--order", 2)[0] == 0
    (tmp_path / "cuts.jsonl.gz").write_bytes(corpus.read_bytes())


@pytest.mark.parametrize("command", OUTPUTS)
@pytest.mark.parametrize("name", ["dev.txt", "dev.jsonl.gz", "dev.txt.gz", "model", ".", "folder.npz", "dev.tar.gz"])
def test_a_forgotten_out_does_not_overwrite_an_input(asr, inputs, tmp_path, command, name):
    (tmp_path / "folder.npz").mkdir()
    if not (tmp_path / name).is_dir():
        (tmp_path / name).write_bytes(b"THE POOR\n")
    status, _, err = asr(*OUTPUTS[command][0], name)
    assert status == 2 and err.count("\n") == 1 and f"OUT is {name}, which" in err
    assert (tmp_path / name).is_dir() or (tmp_path / name).read_bytes() == b"THE POOR\n"


@pytest.mark.parametrize("command, suffix", [(name, end) for name, (_, ends) in OUTPUTS.items() for end in ends])
def test_an_out_of_another_type_is_not_overwritten(asr, inputs, tmp_path, command, suffix):
    out = tmp_path / f"mine{suffix}"
    out.write_bytes(gzip.compress(b"THE POOR\n") if suffix.endswith(".gz") else b"THE POOR\n")
    before = out.read_bytes()
    status, _, err = asr(*OUTPUTS[command][0], out.name)
    assert status == 2 and err.count("\n") == 1 and "which exists and is not a" in err
    assert out.read_bytes() == before


def test_a_model_of_the_same_form_is_replaced(asr, inputs, text, tmp_path):
    for name in ("good.npz", "good.arpa.gz"):
        for _ in range(2):
            assert asr("lm", "convert", "good.arpa", name)[0] == 0
    for order in (2, 3):
        assert asr("lm", "train", text, "good.npz", "--order", order)[0] == 0
    for kind in ("word", "char"):
        assert asr("tokenizer", "cuts.jsonl.gz", "t.json", "--type", kind)[0] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["lm", "convert", "good.arpa", "good.arpa"],
        ["lm", "prune", "good.arpa", "./good.arpa", "--size", "40"],
        ["lm", "train", "text.txt.gz", "good.arpa", "--vocab", "good.arpa"],
        ["lm", "train", "text.txt.gz", "text.txt.gz"],
        ["lexicon", "words.txt", "words.txt", "--unknown", "characters"],
    ],
)
def test_an_input_is_never_the_output(asr, inputs, tmp_path, arguments):
    (tmp_path / "words.txt").write_text("ab a b\n")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    status, _, err = asr(*arguments)
    assert status == 2 and "OUT is " in err and err.count("\n") == 1
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "1e400", "-1"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "text.txt.gz", "lm.arpa", "--prune"],
        ["prune", "good.arpa", "lm.arpa", "--threshold"],
        ["train-neural", "text.txt.gz", "lm.pt", "--epochs"],
        ["train-neural", "text.txt.gz", "lm.pt", "--lr"],
        ["train-neural", "text.txt.gz", "lm.pt", "--dropout"],
        ["train-neural", "text.txt.gz", "lm.pt", "--seed"],
        ["train-neural", "text.txt.gz", "lm.pt", "--dim"],
        ["perplexity", "good.arpa", "text.txt.gz", "--weight"],
        ["perplexity", "good.arpa", "text.txt.gz", "--context"],
    ],
    ids=" ".join,
)
def test_numbers_that_are_not_finite_or_too_small_are_refused(asr, inputs, tmp_path, arguments, number):
    status, _, err = asr("lm", *arguments, number)
    assert status == 2 and err.count("\n") == 1 and arguments[-1] in err
    assert not (tmp_path / "lm.arpa").exists() and not (tmp_path / "lm.pt").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--layers", 10**9],
        ["--dim", 10**9],
        ["--heads", 10**9],
        ["--context", 10**12],
        ["--vocab-size", 10**12],
        ["--batch", 10**12],
        ["--seed", 2**63],
        ["--epochs", "1e300"],
    ],
)
def test_too_large_sizes_are_refused(asr, text, options):
    status, _, err = asr("lm", "train-neural", text, "lm.pt", *options)
    assert status == 2 and err.count("\n") == 1 and options[0] in err


@pytest.mark.parametrize("cutoffs", ["0,99999999999999999999", "0,-1", "0,\u0663", "0,1_0", "0,nan", "0," + "9" * 5000])
def test_cutoffs_are_counts(asr, text, cutoffs):
    status, _, err = asr("lm", "train", text, "lm.arpa", "--cutoffs", cutoffs)
    assert status == 2 and "is not a list of counts" in err


@pytest.mark.parametrize("case", ["keep", "upper", "lower"])
def test_a_text_with_sentence_marks_is_refused_by_all_commands(asr, inputs, tmp_path, case):
    (tmp_path / "s.txt").write_text("A B\n<s> A b </s>\n")
    for arguments in (
        ["train", "s.txt", "lm.arpa"],
        ["train-neural", "s.txt", "lm.pt"],
        ["perplexity", "good.arpa", "s.txt"],
    ):
        status, _, err = asr("lm", *arguments, "--case", case)
        assert status == 2 and "sentence 2 of s.txt has <s> among its words; remove" in err


def test_an_infinite_perplexity_is_printed(asr, text, tmp_path):
    sizes = ["--dim", 8, "--layers", 1, "--heads", 2, "--vocab-size", 8, "--epochs", 1, "--device", "cpu"]
    assert asr("lm", "train-neural", text, "lm.pt", *sizes)[0] == 0
    (tmp_path / "dev.txt").write_text("A B C D\nA B QUUX\n")
    status, out, _ = asr("lm", "perplexity", "lm.pt", "dev.txt")
    assert status == 0 and "without OOV words, infinite with them" in out
    assert asr("lm", "perplexity", "lm.pt", "dev.txt", "--weight", "nan")[0] == 2
