import gzip
import math

import numpy as np
import pytest

from asrtool import readers
from asrtool.errors import DataError, UserError
from asrtool.lm import arpa_blocks
from asrtool.lm.arpa import read_arpa, write_arpa
from asrtool.lm.corpus import build_corpus, limit_vocabulary
from asrtool.lm.ngram import NgramModel
from asrtool.lm.ngram_files import load_lm
from asrtool.lm.ngram_pruning import prune_ngrams
from asrtool.lm.ngram_training import train_ngrams
from asrtool.lm.perplexity import measure_perplexity
from tests.lm.test_ngram import MODEL, PRUNED, numbers, toy_text

FOREIGN = """written by hand

\\data\\
ngram 1=5
ngram 2=3
ngram 3=1

\\1-grams:
-99 <s> -0.5
-0.6\tA\t-0.4
-0.5 B
-0.7 </s>
-2 <unk>

\\2-grams:
-0.3 <s> A -0.1
-0.2 A B
-0.4 B </s>

\\3-grams:
-0.1 <s> A B

\\end\\
"""
LINES = [*toy_text(20, seed=7), ["a", "unheard", "of"]]


@pytest.fixture
def arpa(tmp_path):
    """arpa(text) -> a file of that text; arpa(model) -> a file of that model"""

    def write(content, name="lm.arpa"):
        path = tmp_path / name
        write_arpa(content, path) if not isinstance(content, str) else path.write_text(content, encoding="utf-8")
        return path

    return write


def changed(old, new):
    assert old in FOREIGN
    return FOREIGN.replace(old, new)


def log10(model, sentence):
    return model.token_logprobs(numbers(model, [sentence.split()]))[1:] / math.log(10)


@pytest.mark.parametrize("model", [MODEL, PRUNED], ids=["all", "pruned"])
@pytest.mark.parametrize("name", ["lm.arpa", "lm.arpa.gz"])
def test_a_written_model_is_read_unchanged(arpa, model, name):
    again = read_arpa(arpa(model, name))
    assert again.words == model.words and again.trie.counts() == model.trie.counts()
    assert (again.trie.keys == model.trie.keys).all()
    assert again.logprobs == pytest.approx(model.logprobs, abs=2e-6)
    assert again.backoffs == pytest.approx(model.backoffs, abs=2e-6)


def test_same_model_is_the_same_file(arpa):
    assert arpa(MODEL, "a.arpa").read_bytes() == arpa(MODEL, "b.arpa").read_bytes()


def test_foreign_file_without_some_backoffs_is_scored_as_it_says(arpa):
    model = read_arpa(arpa(FOREIGN))
    assert log10(model, "A B") == pytest.approx([-0.3, -0.1, -0.4], abs=1e-6)
    assert log10(model, "B A C") == pytest.approx([-0.5 - 0.5, -0.6, -0.4 - 2, -0.7], abs=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        FOREIGN.replace("\n", "\r\n"),
        changed("-0.1 <s> A B", "-0.1 <s> A B 0"),  # a back-off weight where none can be
        changed("<unk>", "<UNK>"),
        changed("ngram 3=1\n", "ngram 3=1\nngram 4=0\n").replace("\\end\\", "\\4-grams:\n\n\\end\\"),
        changed("-0.3 <s> A -0.1\n-0.2 A B\n-0.4 B </s>\n", "-0.4 B </s>\n-0.2 A B\n-0.3 <s> A -0.1\n"),
        changed("-99 <s>", "-inf <s>"),
    ],
    ids=["CRLF", "backoff of the highest order", "UNK", "empty order", "unsorted", "minus infinity"],
)
def test_other_ways_to_write_the_same_model_are_read(arpa, text):
    model, plain = read_arpa(arpa(text)), read_arpa(arpa(FOREIGN, "plain.arpa"))
    for sentence in ("A B", "B A C"):
        assert log10(model, sentence) == pytest.approx(log10(plain, sentence), abs=1e-6)


@pytest.mark.parametrize("line", ["-2 <unk>\n", "-0.7 </s>\n", "-99 <s> -0.5\n"])
def test_missing_special_words_are_added_with_a_warning(arpa, capsys, line):
    text = changed(line, "").replace("ngram 1=5", "ngram 1=4")
    text = text.replace("-0.4 B </s>\n", "").replace("-0.3 <s> A -0.1\n", "").replace("ngram 2=3", "ngram 2=1")
    text = text.replace("-0.1 <s> A B\n", "").replace("ngram 3=1", "ngram 3=0").replace("\\3-grams:\n", "")
    model = read_arpa(arpa(text))
    assert "WARNING" in (err := capsys.readouterr().err) and line.split()[1] in err
    assert log10(model, "A B")[1] == pytest.approx(-0.2, abs=1e-6)
    assert log10(model, "A C")[1] < -2


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("THE POOR ARE NOT EASILY MADE ILL\n", "is not an ARPA file"),
        ("", "is not an ARPA file"),
        ("\\data\\\nngram 1=0\n\n\\1-grams:\n\n\\end\\\n", "no unigrams"),
        ("\\data\\\nngram 1=2\n\n\\1-grams:\n\n\\end\\\n", "no unigrams"),
        ("\\data\\\nngram 2=1\n\n\\2-grams:\n-1 A B\n\n\\end\\\n", "no unigrams"),
        ("\\data\\\n\\end\\\n", "no unigrams"),
    ],
)
def test_files_without_a_model_are_refused_in_one_line(arpa, text, complaint):
    with pytest.raises(UserError, match=complaint) as caught:
        read_arpa(arpa(text))
    assert "\n" not in str(caught.value) and "lm.arpa" in str(caught.value)


@pytest.mark.parametrize(
    "text, complaint",
    [
        (changed("ngram 2=3", "ngram 2=4"), "3 2-grams, but its header promises 4"),
        (changed("ngram 1=5", "ngram 1=4"), "5 1-grams, but its header promises 4"),
        (changed("-0.2 A B", "-0.2 A D"), "lm.arpa:17: '-0.2 A D': a word of it is not among the 1-grams"),
        (changed("-0.3 <s> A -0.1", "-0.3 A A -0.1"), "'-0.1 <s> A B': its first words are not among the 2-grams"),
        (changed("-0.4 B </s>", "-0.4 A B"), "lm.arpa:18: this 2-gram occurs twice"),
        (changed("-0.5 B\n", "-0.5 A\n"), "its word occurs twice"),
        (changed("-0.2 A B", "0.2 A B"), "its values are not a log-probability"),
        (changed("-0.2 A B", "x A B"), "its values are not a log-probability"),
        (changed("-0.6\tA\t-0.4", "-0.6\tA\tnan"), "its values are not a log-probability and a back-off weight"),
        (changed("-0.2 A B", "-0.2 A"), "lm.arpa:17: '-0.2 A': not a number, 2 words"),
        (changed("-0.2 A B", "-0.2 A B -0.1 -0.1"), "not a number, 2 words"),
        (changed("\\end\\", ""), "not complete"),
        (FOREIGN[: FOREIGN.index("\\3-grams")], "no section \\3-grams:"),
    ],
)
def test_problems_of_a_model_are_named_with_their_line(arpa, text, complaint):
    with pytest.raises(DataError) as caught:
        read_arpa(arpa(text))
    assert any(complaint in problem for problem in caught.value.problems), caught.value.problems
    assert "lm.arpa" in caught.value.summary


def test_all_problems_are_listed_at_once(arpa):
    text = changed("ngram 2=3", "ngram 2=9").replace("-0.5 B", "-0.5").replace("-0.1 <s> A B", "-0.1 <s> Q B")
    with pytest.raises(DataError) as caught:
        read_arpa(arpa(text.replace("-99 <s>", "+99 <s>")))
    assert len(caught.value.problems) >= 6  # those, 4 1-grams of 5, and the two 2-grams with B


def test_broken_files_are_refused(tmp_path, arpa):
    (tmp_path / "torn.arpa.gz").write_bytes(gzip.compress(FOREIGN.encode())[:60])
    (tmp_path / "not.arpa.gz").write_text(FOREIGN)
    (tmp_path / "latin.arpa").write_bytes(FOREIGN.replace("A", "\xc4").encode("latin-1"))
    for name, complaint in {
        "torn.arpa.gz": "gzip",
        "not.arpa.gz": "gzip",
        "latin.arpa": "UTF-8",
        "none.arpa": "not found",
    }.items():
        with pytest.raises(UserError, match=complaint):
            load_lm(tmp_path / name)


def test_binaries_go_to_kenlm(tmp_path):
    pytest.importorskip("kenlm")
    (tmp_path / "lm.bin").write_bytes(b"mmap lm http://kheafield.com/code format version 5\n\0" + bytes(20))
    with pytest.raises(UserError, match="KenLM cannot read"):
        load_lm(tmp_path / "lm.bin")


def test_failed_writing_leaves_the_old_file(arpa, tmp_path):
    path = arpa(FOREIGN)
    broken = type(MODEL)(MODEL.words, MODEL.trie, MODEL.logprobs[:-5], MODEL.backoffs)
    with pytest.raises(IndexError):
        write_arpa(broken, path)
    assert path.read_text() == FOREIGN and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("model", [MODEL, PRUNED, prune_ngrams(MODEL, size=30)], ids=["all", "pruned", "small"])
def test_kenlm_reads_our_files_and_agrees_word_by_word(arpa, model):
    pytest.importorskip("kenlm")
    from asrtool.lm.kenlm_model import KenlmModel

    theirs, state, ours = KenlmModel(arpa(model)), None, model.start
    words = [word for line in LINES for word in ["<s>", *line, "</s>"]]
    assert model.token_logprobs(numbers(model, LINES)) == pytest.approx(theirs.token_logprobs(words), abs=2e-5)
    for word in words:
        if word == "<s>":
            ours, state = model.start, theirs.start
        else:
            (mine, ours), (other, state) = model.score(ours, word), theirs.score(state, word)
            assert mine == pytest.approx(other, abs=2e-5)
    assert len({theirs.score(theirs.start, "a")[1], theirs.score(theirs.start, "a")[1]}) == 1  # states hash


def test_ngram_without_its_own_suffix_is_scored_as_by_kenlm(arpa):
    pytest.importorskip("kenlm")
    trie = MODEL.trie
    endings = np.setdiff1d(trie.suffixes[trie.nodes(4)], np.flatnonzero(trie.has_children))
    chosen = ~np.isin(np.arange(len(trie)), endings[:3])
    kept = NgramModel(MODEL.words, trie.subset(chosen), MODEL.logprobs[chosen], MODEL.backoffs[chosen])
    assert len(kept.trie) == len(trie) - 3
    ours, theirs = measure_perplexity(arpa(kept), build_corpus(LINES)).perplexities
    assert ours.without_unknown == pytest.approx(theirs.without_unknown, rel=1e-5)


def test_model_that_kenlm_cannot_read_is_measured_by_asrtool_alone(arpa, capsys):
    pytest.importorskip("kenlm")
    report = measure_perplexity(arpa(FOREIGN), build_corpus([["A", "B"]]))
    assert [one.reader for one in report.perplexities] == ["asrtool"] and "KenLM cannot read" in capsys.readouterr().err


def test_kaldilm_compiles_our_files(arpa):
    kaldilm = pytest.importorskip("kaldilm")
    symbols = arpa("".join(f"{word} {number}\n" for number, word in enumerate(["<eps>", *MODEL.words, "#0"])), "words")
    text = kaldilm.arpa2fst(str(arpa(MODEL)), disambig_symbol="#0", read_symbol_table=str(symbols))
    assert len(text.splitlines()) > sum(MODEL.trie.counts()) / 2


def test_perplexity_counts_unknown_words_and_leaves_them_out(arpa):
    corpus = build_corpus([["a", "b", "x"], ["x", "y", "c", "d"]])
    report = measure_perplexity(arpa(MODEL), corpus)
    assert (report.sentences, report.words) == (2, 7) and report.unknown == {"x": 2, "y": 1}
    values = MODEL.token_logprobs(np.array(MODEL.word_ids(corpus.words))[corpus.tokens])
    known = [value for value, number in zip(values, corpus.tokens, strict=True) if corpus.words[number] in "abcd</s>"]
    assert report.perplexities[0].with_unknown == pytest.approx(math.exp(-values.sum() / 9), rel=1e-5)
    assert report.perplexities[0].without_unknown == pytest.approx(math.exp(-sum(known) / 6), rel=1e-5)
    assert "3 OOV words (42.86 %), most often x 2, y 1" in str(report)


def test_text_in_another_case_or_of_other_words_is_refused_with_a_hint(arpa):
    with pytest.raises(UserError, match="--case lower"):
        measure_perplexity(arpa(MODEL), build_corpus([["A", "B"], ["C"]]))
    with pytest.raises(UserError, match="3 of 3 words are not in the model: such as"):
        measure_perplexity(arpa(MODEL), build_corpus([["ga", "bu", "zo"]]))


def test_unit_models_train_on_few_symbols(arpa):
    model = train_ngrams(limit_vocabulary(build_corpus([list("abab"), list("abba")] * 4)), 5, [0, 0, 0])
    assert read_arpa(arpa(model)).trie.counts() == model.trie.counts()


@pytest.mark.parametrize(
    "number", ["-1_0", "nan", "-nan", "inf", "1e400", "0.1", "-\u0661", "-0x1p-3", "1,5", "--1", "1e"]
)
def test_malformed_numbers_are_problems_with_their_line(arpa, number):
    with pytest.raises(DataError) as caught:
        read_arpa(arpa(changed("-0.2 A B", f"{number} A B")))
    assert [problem for problem in caught.value.problems if "lm.arpa:17: " in problem]


@pytest.mark.parametrize("number", ["nan", "1_0", "inf", "1e400", "1e30", "100"])
def test_impossible_back_off_weights_are_problems_with_their_line(arpa, number):
    with pytest.raises(DataError, match="lm.arpa:10: .*a back-off weight"):
        read_arpa(arpa(changed("-0.6\tA\t-0.4", f"-0.6\tA\t{number}")))


@pytest.mark.parametrize("number", ["-0", "0", "-.5", "-5E-1", "-1e-300", "-1e400", "-inf", "-00.5"])
def test_numbers_that_are_log_probabilities_are_read(arpa, number):
    model = read_arpa(arpa(changed("-0.2 A B", f"{number} A B")))
    assert np.isfinite(model.logprobs).all() and log10(model, "X A B")[2] == pytest.approx(max(float(number), -100))


@pytest.mark.parametrize(
    "text, complaint",
    [
        (changed("ngram 2=3", f"ngram 2={10**18}"), "3 2-grams, but its header promises 100000000000000000"),
        (changed("ngram 2=3", "ngram 2=" + "9" * 5000), "3 2-grams, but its header promises 999"),
        (changed("-0.5 B\n", "-0.5 B" + "B" * 5000 + "\n"), "'-0.4 B </s>': a word of it is not among"),
        (changed("-0.5 B\n", "-0.5 " + " ".join("B" * 500) + "\n"), "...': not a number, 1 words"),
        (changed("-0.5 B\n", "-0.5 e\u0301\n").replace("-2 <unk>", "-2 \u00e9"), "its word occurs twice"),
    ],
)
def test_headers_and_lines_with_too_many_entries_are_problems(arpa, text, complaint):
    with pytest.raises(DataError) as caught:
        read_arpa(arpa(text))
    assert any(complaint in problem and len(problem) < 500 for problem in caught.value.problems), caught.value.problems


@pytest.mark.parametrize(
    "counts", ["ngram 1=5\nngram 3=1\n", "ngram 1=5\nngram 1=5\n", "ngram 1=5\nngram 99999999999=1\n"]
)
def test_headers_that_leave_out_an_order_are_refused(arpa, counts):
    with pytest.raises(UserError, match="does not count n-grams of 1, 2 ... "):
        read_arpa(arpa(changed("ngram 1=5\nngram 2=3\nngram 3=1\n", counts)))


@pytest.mark.parametrize("line", [" ngram 2=3", "\tngram 2=3", "ngram 2 = 3", "ngram  2=3 "])
def test_spaces_in_a_line_of_the_header_mean_nothing(arpa, line):
    assert read_arpa(arpa(changed("ngram 2=3", line))).trie.counts() == [5, 3, 1]


def test_words_are_read_in_the_composed_form(arpa):
    model = read_arpa(arpa(FOREIGN.replace(" B", " e\u0301")))
    assert "\u00e9" in model.words and log10(model, "A \u00e9")[1] == pytest.approx(-0.1, abs=1e-6)


@pytest.mark.parametrize("word, read", [
    ("\u200c\u0647\u0627", "\u200c\u0647\u0627"),  # units of Persian: a joiner begins or ends them
    ("\u2581\u0646\u0645\u06cc\u200c", "\u2581\u0646\u0645\u06cc\u200c"),
    ("\u200c", "\u200c"),
    ("\u0915\u094d\u200d", "\u0915\u094d\u200d"),
    ("\u0301a", "\u0301a"),
    ("b\u200bc\u00ad", "bc"),
    ("\u0647\u200b\u0627", "\u0647\u0627"),
])  # fmt: skip
def test_units_keep_the_joiners_at_their_ends(arpa, word, read):
    """They are other units than those without, which the model may have as well."""
    assert read in read_arpa(arpa(FOREIGN.replace(" B", f" {word}"))).words


def test_a_byte_order_mark_before_the_header_is_dropped(arpa):
    plain = FOREIGN.removeprefix("written by hand\n\n")
    assert read_arpa(arpa("\ufeff" + plain)).trie.counts() == read_arpa(arpa(FOREIGN)).trie.counts()


@pytest.mark.parametrize("size", [16, 64, 1 << 20])
def test_a_model_is_the_same_however_its_lines_fall_into_blocks(arpa, monkeypatch, size):
    monkeypatch.setattr(arpa_blocks, "BLOCK_BYTES", size)
    model = read_arpa(arpa(MODEL))
    assert model.words == MODEL.words and (model.trie.keys == MODEL.trie.keys).all()


def test_a_line_without_end_is_refused_by_its_number(tmp_path):
    (tmp_path / "bomb.arpa.gz").write_bytes(gzip.compress(b"\\data\\\nngram 1=1\n\\1-grams:\n" + b"A" * (3 << 20)))
    with pytest.raises(UserError, match="bomb.arpa.gz:4: a line of more than 65536 bytes"):
        read_arpa(tmp_path / "bomb.arpa.gz")


@pytest.mark.parametrize("place", [200, 1000, -9, -3])
def test_damage_inside_a_compressed_model_is_named(tmp_path, arpa, place):
    packed = bytearray(arpa(MODEL, "whole.arpa.gz").read_bytes())
    packed[place] ^= 255
    (tmp_path / "lm.arpa.gz").write_bytes(packed)
    with pytest.raises((UserError, DataError), match="lm.arpa.gz"):
        read_arpa(tmp_path / "lm.arpa.gz")


def test_the_list_of_problems_has_a_limit(arpa):
    text = changed("-0.5 B\n", "x\n" * 50_000)
    with pytest.raises(DataError, match="the first 10000 problems") as caught:
        read_arpa(arpa(text))
    assert len(caught.value.problems) == 10_000


def test_a_compressed_file_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "EXPANSION_FREE_BYTES", 1 << 17)
    monkeypatch.setattr(arpa_blocks, "BLOCK_BYTES", 1 << 14)
    head = b"\\data\\\nngram 1=3\nngram 2=99999999\n\n\\1-grams:\n-1 <s>\n-1 </s>\n-1 a\n\n\\2-grams:\n"
    (tmp_path / "bomb.arpa.gz").write_bytes(gzip.compress(head + b"\n" * (1 << 18)))
    with pytest.raises(UserError, match="bomb.arpa.gz unpacks to more than 50 times its size"):
        read_arpa(tmp_path / "bomb.arpa.gz")
