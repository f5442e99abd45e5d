import gzip

import pytest

from asrtool.errors import UserError
from asrtool.graphs.grammar import ARPA2FST, arpa_words, compare_vocabularies, grammar_fst
from tests.graphs.paths import Bigram, outputs, sequences

LM = Bigram(
    {"A": -0.5, "B": -0.7, "<unk>": -0.9, "</s>": -0.4},
    {"<s>": -0.2, "A": -0.3, "<unk>": -0.1},
    {("<s>", "A"): -0.3, ("A", "B"): -0.1, ("B", "</s>"): -0.35, ("A", "<unk>"): -0.15},
)


@pytest.fixture
def arpa(tmp_path):
    return LM.write(tmp_path / "lm.arpa")


def costs(fst, words, longest=3):
    """The cost of every sequence of `words` up to `longest`; #0 is the last word, and goes wherever it is of use."""
    import kaldifst

    back_off = "".join(f"0 0 {label} {label}\n" for label in range(1, len(words) - 1)) + f"0 0 0 {len(words) - 1}\n0\n"
    free = kaldifst.compile(back_off)
    kaldifst.arcsort(free, "olabel")
    known = {label: words[label] for label in range(1, len(words) - 1)}
    costs = {}
    for labels in sequences(known, longest):
        costs[tuple(known[label] for label in labels)] = outputs(kaldifst.compose(free, fst), labels).get(labels)
    return costs


@pytest.mark.parametrize("words", [["A", "B"], ["A", "B", "C"], ["<unk>", "A", "B"], ["B"]])
def test_sentences_have_the_costs_of_the_lm(arpa, words):
    table = ["<eps>", *words, "#0"]
    for sentence, cost in costs(grammar_fst(arpa, table), table).items():
        if "C" in sentence:
            assert cost is None
        else:
            assert cost == pytest.approx(LM.cost(sentence), abs=1e-4), sentence


def test_a_compressed_file_is_read_as_well(arpa):
    packed = arpa.with_suffix(".arpa.gz")
    packed.write_bytes(gzip.compress(arpa.read_bytes()))
    table = ["<eps>", "A", "B", "#0"]
    assert arpa_words(packed) == arpa_words(arpa) == ["A", "B", "<unk>"]
    assert costs(grammar_fst(packed, table), table) == costs(grammar_fst(arpa, table), table)


def test_missing_back_off_weights_are_zero(arpa):
    arpa.write_text(arpa.read_text().replace("\t-0.3\n", "\n"))
    table = ["<eps>", "A", "B", "#0"]
    bare = Bigram(LM.unigrams, {"<s>": -0.2}, LM.bigrams)
    assert costs(grammar_fst(arpa, table), table)["A", "A"] == pytest.approx(bare.cost(["A", "A"]), abs=1e-4)


def spoil(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\\1-grams:", "\\grams:", "no unigrams"),
        ("\\data\\", "data", "no \\\\data\\\\ section"),
        ("<s>", "BEGIN", "no unigram <s>"),
        ("</s>", "END", "no unigram </s>"),
    ],
)
def test_missing_sections_and_symbols_are_named(arpa, old, new, message):
    arpa.write_text(spoil(arpa.read_text(), old, new))
    with pytest.raises(UserError, match=message) as raised:
        arpa_words(arpa)
    assert "\n" not in str(raised.value) and str(arpa) in str(raised.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("-0.7\tB", "zero\tB", "zero"),
        ("\\end\\", "", "unexpected directive"),
        ("ngram 2=4", "ngram 2=1", "order 2"),
        ("-0.1\tA B", "-0.1\tA B A B A", "Invalid n-gram"),
        ("-0.1\tA B", "-0.1\tA B A", "Invalid n-gram"),
        ("-0.1\tA B", "-0.1\tA B nan", "Invalid n-gram"),
    ],
)
def test_a_wrong_line_is_named_and_ends_no_process(arpa, old, new, message):
    arpa.write_text(spoil(arpa.read_text(), old, new))
    with pytest.raises(UserError, match=message) as raised:
        grammar_fst(arpa, ["<eps>", "A", "B", "#0"])
    assert "\n" not in str(raised.value) and str(arpa) in str(raised.value)


@pytest.mark.parametrize("ending", ["open(fst, 'r+').truncate(80)", "import os; os.remove(fst)"])
def test_a_full_temporary_folder_is_named(arpa, monkeypatch, ending):
    monkeypatch.setattr("asrtool.graphs.grammar.ARPA2FST", ARPA2FST + ending)  # kaldilm's status is 0 all the same
    with pytest.raises(UserError, match="set TMPDIR if no space was left in") as raised:
        grammar_fst(arpa, ["<eps>", "A", "B", "#0"])
    assert "\n" not in str(raised.value) and str(arpa) in str(raised.value)


def test_a_crash_of_kaldilm_is_one_line(arpa, monkeypatch):
    monkeypatch.setattr("asrtool.graphs.grammar.ARPA2FST", "import os; os.kill(os.getpid(), 11)")
    with pytest.raises(UserError, match="ended by signal 11"):
        grammar_fst(arpa, ["<eps>", "A", "B", "#0"])


OTHER_FORMS = {
    "carriage returns": lambda text: text.replace("\n", "\r\n"),
    "byte order mark": lambda text: "\ufeff" + text,
    "minus infinity": lambda text: spoil(text, "-99.0\t<s>", "-inf\t<s>"),
    "minus infinity of other tools": lambda text: spoil(text, "-99.0\t<s>", "-Infinity <s>"),
    "white space at line ends": lambda text: text.replace("\n", " \t\n"),
    "text before and after": lambda text: f"a comment\n\n{text}\nmore text\n",
    "indented counts with many zeros": lambda text: spoil(text, "ngram 2=4", "ngram 2=4\n \tngram 3=" + "0" * 5000),
    "orders without n-grams": lambda text: spoil(text, "ngram 2=4", "ngram 2=4\nngram 3=0\nngram  4 = 0"),
    "sections without n-grams": lambda text: spoil(
        spoil(text, "ngram 2=4", "ngram 2=4\nngram 3=0"), "\\end\\", "\\3-grams:\n\n\\end\\"
    ),
    "back-off weights of the highest order": lambda text: spoil(text, "-0.1\tA B", "-0.1\tA B\t-0.5"),
    "back-off weights of the highest order with n-grams": lambda text: spoil(
        spoil(text, "ngram 2=4", "ngram 2=4\nngram 3=0"), "-0.1\tA B", "-0.1 A B 0"
    ).replace("\tB </s>", "\tB </s>\t-1.5e-1"),
    "all": lambda text: "\ufeff" + spoil(text, "-99.0\t<s>", "-inf\t<s>").replace("\n", "\r\n"),
}


@pytest.mark.parametrize("form", OTHER_FORMS)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_files_of_all_tools_give_the_same_grammar(arpa, tmp_path, form, suffix):
    content = OTHER_FORMS[form](arpa.read_text()).encode()
    other = tmp_path / f"other.arpa{suffix}"
    other.write_bytes(gzip.compress(content) if suffix else content)
    table = ["<eps>", "A", "B", "#0"]
    assert costs(grammar_fst(other, table), table) == costs(grammar_fst(arpa, table), table)
    assert arpa_words(other) == arpa_words(arpa)


@pytest.mark.parametrize("backoffs", [{}, {"A": -0.3}, {"<s>": -1.0, "B": -0.2}])
def test_a_model_of_unigrams_may_count_no_bigrams(tmp_path, backoffs):
    words = Bigram({"A": -0.5, "B": -0.7, "</s>": -0.4}, backoffs, {})
    text = words.write(tmp_path / "lm.arpa").read_text()
    header = tmp_path / "header.arpa"
    header.write_text(spoil(text, "\\2-grams:\n", ""))
    table = ["<eps>", "A", "B", "#0"]
    for sentence, cost in costs(grammar_fst(header, table), table).items():
        assert cost == pytest.approx(words.cost(sentence), abs=1e-4), sentence


@pytest.mark.parametrize("missing", ["-0.3\t<s> A", "-0.35\tB </s>", "-0.7\tB"])
def test_an_n_gram_that_kaldilm_does_not_read_is_an_error(arpa, monkeypatch, missing):
    lose = "text = open(arpa).read().replace({!r}, '-1\t<unk>{}')\nopen(arpa, 'w').write(text)\narpa2fst("
    words = " A" if " " in missing else ""
    line = next(line for line in arpa.read_text().splitlines() if line.startswith(missing))
    monkeypatch.setattr("asrtool.graphs.grammar.ARPA2FST", ARPA2FST.replace("arpa2fst(", lose.format(line, words)))
    with pytest.raises(UserError, match="n-grams of the words of the lexicon, but kaldilm read") as raised:
        grammar_fst(arpa, ["<eps>", "A", "B", "#0"])
    assert "\n" not in str(raised.value) and str(arpa) in str(raised.value)


@pytest.mark.parametrize("value", ["nan", "inf", "-1e400"])
def test_numbers_that_are_not_finite_are_refused(arpa, value):
    for old in ("-0.7\tB", "-0.5\tA\t-0.3"):
        text = arpa.read_text()
        arpa.write_text(spoil(text, old, old.rsplit("\t", 1)[0] + f"\t{value}" if "-0.3" in old else f"{value}\tB"))
        with pytest.raises(UserError, match="not a valid ARPA file: line"):
            grammar_fst(arpa, ["<eps>", "A", "B", "#0"])
        arpa.write_text(text)


def test_a_huge_back_off_weight_is_refused(arpa):
    arpa.write_text(spoil(arpa.read_text(), "A\t-0.3", "A\t1e30"))
    with pytest.raises(UserError, match="its G.fst from kaldilm has an arc of state"):
        grammar_fst(arpa, ["<eps>", "A", "B", "#0"])


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b[:-8] + bytes(8), lambda b: b[:20] + b"x" * 9]
)
def test_a_damaged_gzip_file_is_named(arpa, damage):
    packed = arpa.with_suffix(".arpa.gz")
    packed.write_bytes(damage(gzip.compress(arpa.read_bytes())))
    with pytest.raises(UserError, match="lm.arpa.gz: damaged gzip file"):
        grammar_fst(packed, ["<eps>", "A", "B", "#0"])


def test_ngrams_that_occur_twice_are_refused(arpa):
    text = arpa.read_text()
    arpa.write_text(spoil(text, "-0.7\tB\n", "-0.7\tB\n-0.9\tB\n"))
    with pytest.raises(UserError, match="lm.arpa has the unigram 'B' twice"):
        arpa_words(arpa)
    arpa.write_text(spoil(text, "-0.1\tA B\n", "-0.1\tA B\n-0.2\tA B\n").replace("ngram 2=4", "ngram 2=5"))
    with pytest.raises(UserError, match="lm.arpa has an n-gram twice"):
        grammar_fst(arpa, ["<eps>", "A", "B", "#0"])


def test_a_small_file_that_decompresses_to_very_much_is_refused(arpa, monkeypatch):
    monkeypatch.setattr("asrtool.readers.EXPANSION_FREE_BYTES", 1 << 20)
    packed = arpa.with_suffix(".arpa.gz")
    packed.write_bytes(gzip.compress(arpa.read_bytes() + b"\n" * (4 << 20)))
    with pytest.raises(UserError, match="lm.arpa.gz unpacks to more than 50 times its size"):
        grammar_fst(packed, ["<eps>", "A", "B", "#0"])


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00binary", b"hello\nworld\n"])
def test_files_that_are_not_arpa_are_refused(tmp_path, content):
    for name in ("lm.arpa", "lm.arpa.gz"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name):
            arpa_words(tmp_path / name)


def test_lm_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="not found"):
        arpa_words(tmp_path / "no.arpa")


def test_what_each_vocabulary_lacks_is_counted_and_the_first_named():
    lm = ["<unk>", *(f"W{number}" for number in range(20)), "yes"]
    lines = compare_vocabularies(["W1", "W2", "EXTRA", "YES"], lm)
    assert len(lines) == 2
    assert "19 of 21 words of the LM" in lines[0] and "W0, W10, W11" in lines[0] and "..." in lines[0]
    assert "2 of 4 words of the lexicon" in lines[1] and "EXTRA, YES" in lines[1]
    assert all("1 of them are there in another case" in line for line in lines)
    assert compare_vocabularies(["A", "<unk>"], ["A"]) == compare_vocabularies(["A"], ["A", "<unk>"]) == []


def test_nothing_in_common_is_one_line_with_words_of_both():
    with pytest.raises(UserError, match="hello") as raised:
        compare_vocabularies(["HELLO"], ["hello", "<unk>"])
    assert "HELLO" in str(raised.value) and "case" in str(raised.value)


def test_words_in_the_decomposed_form_are_refused_since_lexicons_are_composed(arpa):
    arpa.write_text(arpa.read_text().replace("\tA", "\tA\u0308"))
    with pytest.raises(UserError, match="asrtool lm convert"):
        arpa_words(arpa)


@pytest.mark.parametrize("word", ["a\u00a0b", "b\u00a0", "\u2003", "c\u3000d\u00a0"])
def test_words_with_other_white_space_are_left_out(tmp_path, caplog, word):
    """They are one word for asrtool/lm/arpa.py, and no word of a text."""
    arpa = tmp_path / "lm.arpa"
    rows = f"-1\t<s>\n-1\t</s>\n-1\tb\n-1\t{word}\n-1\tz\n"
    arpa.write_text(f"\\data\\\nngram 1=5\n\n\\1-grams:\n{rows}\n\\end\\\n", encoding="utf-8")
    assert arpa_words(arpa) == ["b", "z"] and "1 words with a space" in caplog.text
    assert grammar_fst(arpa, ["<eps>", "b", "z", "#0"]).num_states
