import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asrtool.errors import DataError, UserError
from asrtool.graphs.build import tokenizer_lexicon
from asrtool.text.lexicon import Lexicon, is_lexicon_word, read_lexicon, require_lexicon_output, write_lexicon
from asrtool.text.tokenizer import load_tokenizer, save_tokenizer
from asrtool.text.tokenizer_training import phone_tokenizer, train_tokenizer, untied_tokenizer

HELLO = ("HH", "AH", "L", "OW"), ("HH", "EH", "L", "OW")
few = settings(max_examples=50, deadline=None)


@pytest.fixture
def read(tmp_path):
    """read(text, **options) -> pronunciations of a lexicon file that holds the text."""

    def run(text, **options):
        (tmp_path / "lexicon.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_lexicon(tmp_path / "lexicon.txt", **options).pronunciations

    return run


def faults(error):
    return [problem.split(": ")[0] for problem in error.value.problems]


@pytest.mark.parametrize(
    "text",
    [
        "HELLO HH AH L OW\nHELLO HH EH L OW\nYES Y EH S\n",
        "HELLO\tHH AH L OW\nYES\tY EH S\n\nHELLO\t HH  EH L OW",
        ";;; CMU\n## comment\n# one more\nHELLO  HH AH L OW\nHELLO(2)  HH EH L OW # rare\nYES  Y EH S\n",
        "\ufeffHELLO HH AH L OW\r\nHELLO HH EH L OW\r\nYES Y EH S\r\n",
        "HELLO 0.3 HH EH L OW\nHELLO 1.0 HH AH L OW\nYES 1 Y EH S\n",
    ],
    ids=["plain", "tabs", "cmudict", "windows", "kaldi's lexiconp"],
)
def test_every_format_gives_the_same_lexicon(read, text):
    assert read(text) == {"HELLO": HELLO, "YES": (("Y", "EH", "S"),)}


def test_a_compressed_file_is_read(tmp_path):
    with gzip.open(tmp_path / "l.txt.gz", "wt", encoding="utf-8") as file:
        file.write("été e t e\n")
    assert read_lexicon(tmp_path / "l.txt.gz").pronunciations == {"été": (("e", "t", "e"),)}


def test_alternatives_of_equal_probability_stay_as_in_the_file(read):
    assert read("A 0.5 x\nA 1.0 y\nA 0.5 w\n")["A"] == (("y",), ("x",), ("w",))


@pytest.mark.parametrize("text", ["ONE 1\nTWO 2 0\n", "ONE 1 1\nTWO 1\n", "ONE 1 a\nTWO 1 b\n"])
def test_phones_that_are_digits_are_not_probabilities(read, text):
    assert {phone for prons in read(text).values() for pron in prons for phone in pron} == set(text.split()) - {
        "ONE",
        "TWO",
    }


def test_stress_is_kept_or_dropped_and_equal_pronunciations_are_merged(read):
    text = "a AH0\na EY1\na AH1\nb B IY1\nten t1 N2 EH1 E:1\n"
    assert read(text)["a"] == (("AH0",), ("EY1",), ("AH1",))
    assert read(text, stress="drop") == {
        "a": (("AH",), ("EY",)),
        "b": (("B", "IY"),),
        "ten": (("t1", "N2", "EH", "E:1"),),
    }


def test_case_is_changed_for_words_alone(read):
    text = "Polish P ow\npolish P aa\nPOLISH P aa\n"
    assert read(text, case="upper") == {"POLISH": (("P", "ow"), ("P", "aa"))}
    assert set(read(text)) == {"Polish", "polish", "POLISH"}


def test_words_are_brought_into_the_composed_form(read):
    assert list(read("e\u0301te\u0301 e t e\n")) == ["\u00e9t\u00e9"]


def test_all_faults_are_listed_with_their_lines(read):
    text = "A a\nB\n\n<eps> a\n#0 a\nC #1 <blank> a\nD zz\nE a 0.5\nF\t\n<s> a\n"
    with pytest.raises(DataError, match="9 faults in .*lexicon.txt") as error:
        read(text, phones={"a", "b"})
    assert faults(error) == ["line 2", "line 4", "line 5", "line 6", "line 6", "line 7", "line 8", "line 9", "line 10"]
    assert "zz is not among the phones" in str(error.value) and "D" in str(error.value)


def test_any_phone_is_allowed_without_a_list_of_phones(read):
    assert read("A a\nB zz\n") == {"A": (("a",),), "B": (("zz",),)}


def test_a_probability_must_be_in_all_lines(read):
    with pytest.raises(DataError) as error:
        read("A 1.0 a\nB b\nC 0.5 c\n")
    assert faults(error) == ["line 1", "line 3"]


def test_a_probability_without_phones_is_an_empty_pronunciation(read):
    with pytest.raises(DataError, match="no pronunciation") as error:
        read("A 1.0 a\nB 0.7\n")
    assert faults(error) == ["line 2"]


def test_repeated_lines_are_named_and_count_once(read, capsys):
    """CMUdict has two of them."""
    assert read("A a\nB b\nA(2) a\nB c\nB b\n") == {"A": (("a",),), "B": (("b",), ("c",))}
    warned = capsys.readouterr().err.splitlines()
    assert len(warned) == 2 and "line 3" in warned[0] and "line 1" in warned[0] and "line 5" in warned[1]


@pytest.mark.parametrize("text", ["", "\n\n", ";;; nothing\n", "# nothing\n"])
def test_a_file_without_pronunciations_is_refused(read, text):
    with pytest.raises(UserError, match="lexicon.txt holds no pronunciations"):
        read(text)


def test_a_missing_file_says_how_to_make_it(tmp_path):
    with pytest.raises(UserError, match="not found.*none.txt.*asrtool lexicon"):
        read_lexicon(tmp_path / "none.txt")


def test_a_file_in_another_encoding_is_named(read):
    with pytest.raises(UserError, match="lexicon.txt:2: not UTF-8"):
        read("A a\nDÉJÀ d e\n".encode("latin-1"))


def test_a_damaged_gzip_is_named(tmp_path):
    (tmp_path / "l.gz").write_bytes(gzip.compress(b"A a\n" * 1000)[:-20])
    with pytest.raises(UserError, match="l.gz: damaged"):
        read_lexicon(tmp_path / "l.gz")


symbols = st.text("abcÉ'_-.()12", min_size=1, max_size=4)
words = symbols.filter(is_lexicon_word)
phones = st.text("abAÉ:_1", min_size=1, max_size=3)
lexicons = st.dictionaries(
    words, st.lists(st.lists(phones, min_size=1, max_size=4).map(tuple), min_size=1, max_size=3, unique=True).map(tuple)
).filter(bool)


@few
@given(lexicons)
def test_a_written_lexicon_is_read_unchanged(tmp_path_factory, pronunciations):
    path = tmp_path_factory.mktemp("lexicon") / "l.txt"
    write_lexicon(Lexicon(pronunciations), path)
    assert read_lexicon(path) == Lexicon(pronunciations)


ODD_UNITS = {
    "a comment": ({"c#": (("c", "#"),), "a": (("#", "#a"),)}, {}),
    "numbers": ({"10.5": (("10.5",),), "1": (("1",),), "one": (("one",),)}, {}),
    "numbers alone": ({"0.5": (("0.5",),), "1": (("1",),)}, {}),
    "a part of a number": ({"x.5": (("_x", ".5"),), "y1e-5": (("_y", "1e-5"),)}, {}),
    "a joiner": ({"می‌خ": (("م", "ی", "‌", "خ"),)}, {}),
    "a decomposed character": ({"é": (("e", "́"), ("é",))}, {}),
    "probabilities": ({"c#": (("c", "#"), (".5", "#"))}, {("c#", (".5", "#")): 0.25}),
    "probabilities that are units": ({"a": (("0.5", "a"),)}, {("a", ("0.5", "a")): 0.5}),
}


@pytest.mark.parametrize("name", ODD_UNITS)
def test_what_is_among_the_phones_is_a_phone(tmp_path, name):
    lexicon = Lexicon(*ODD_UNITS[name])
    write_lexicon(lexicon, tmp_path / "l.txt")
    assert read_lexicon(tmp_path / "l.txt", phones=[*lexicon.symbols, "0.5", "1"]) == lexicon


@few
@given(lexicons, st.lists(st.sampled_from([0.25, 0.5, 1e-5, 0.123456, 1.0]), min_size=9))
def test_a_lexicon_with_probabilities_is_written_with_them(tmp_path_factory, pronunciations, values):
    """The pronunciations of a word are read in the order of their probabilities."""
    path = tmp_path_factory.mktemp("lexicon") / "l.txt"
    probabilities = {}
    for word, several in pronunciations.items():
        chosen = sorted(values[: len(several)], reverse=True)
        probabilities |= {(word, pron): value for pron, value in zip(several, chosen, strict=True) if value < 1}
    write_lexicon(Lexicon(pronunciations, probabilities), path)
    assert read_lexicon(path) == Lexicon(pronunciations, probabilities)


def test_pronunciations_that_become_equal_have_the_sum_of_their_probabilities(tmp_path):
    (tmp_path / "l.txt").write_text("the 0.5 DH AH0\nthe 0.25 DH AH1\nthe 0.25 DH IY0\nthe 0.25 DH IY0\na 1 AH0\n")
    lexicon = read_lexicon(tmp_path / "l.txt", stress="drop")
    assert lexicon.probabilities == {("the", ("DH", "AH")): 0.75, ("the", ("DH", "IY")): 0.25}


@pytest.mark.parametrize("text", ["the 0.7 DH AH0\nthe 0.2 DH AH1\nthe 0.1 DH AH2\na 1.0 AH0\n", "a 0.9999999 AH\n",
                                  "a 1.0 AH\nb 0.5 B\n"])  # fmt: skip
def test_a_lexicon_with_probabilities_is_never_read_with_the_digit_1_as_a_phone(tmp_path, text):
    """Also where some probabilities sum to nearly 1, and for each line of a file alone."""
    (tmp_path / "l.txt").write_text(text)
    lexicon = read_lexicon(tmp_path / "l.txt", stress="drop")
    write_lexicon(lexicon, tmp_path / "written.txt")
    assert read_lexicon(tmp_path / "written.txt") == lexicon and "1" not in lexicon.symbols
    for line in (tmp_path / "written.txt").read_text().splitlines():
        (tmp_path / "line.txt").write_text(f"{line}\n")
        assert "1" not in read_lexicon(tmp_path / "line.txt").symbols


def test_pronunciations_are_in_the_order_of_the_probabilities_that_they_have_together(tmp_path):
    (tmp_path / "l.txt").write_text("the 0.5 DH IY0\nthe 0.4 DH AH0\nthe 0.3 DH AH1\n")
    assert read_lexicon(tmp_path / "l.txt", stress="drop").pronunciations["the"] == (("DH", "AH"), ("DH", "IY"))


def test_a_probability_that_graphs_cannot_hold_is_a_fault(read):
    with pytest.raises(DataError, match="a probability below 1e-30") as error:
        read("A 1.0 a\nB 1e-320 b\nC 1e-29 c\n")
    assert faults(error) == ["line 2"]


def test_a_lexicon_of_some_words_keeps_their_probabilities():
    lexicon = Lexicon({"a": (("A",), ("B",)), "b": (("B",), ("C",))}, {("a", ("B",)): 0.5, ("b", ("C",)): 0.25})
    assert lexicon.only(["b", "c"]) == Lexicon({"b": (("B",), ("C",))}, {("b", ("C",)): 0.25})


def test_joined_lexicons_keep_the_probabilities_of_the_words_they_take():
    first = Lexicon({"A": (("a",), ("b",)), "B": (("b",),)}, {("A", ("b",)): 0.1, ("B", ("b",)): 0.5})
    second = Lexicon({"A": (("b",),), "C": (("c",), ("a",))}, {("C", ("a",)): 0.2})
    joined = first.updated(second)
    assert joined.pronunciations == {"A": (("b",),), "B": (("b",),), "C": (("c",), ("a",))}
    assert joined.probabilities == {("B", ("b",)): 0.5, ("C", ("a",)): 0.2}


def test_a_written_lexicon_is_sorted(tmp_path):
    write_lexicon(Lexicon({"b": (("y",), ("x",)), "a": (("z", "z"),)}), tmp_path / "l.txt")
    assert (tmp_path / "l.txt").read_text() == "a z z\nb y\nb x\n"


@pytest.mark.parametrize("word", ["<eps>", "#0", "#tag", ";;;", "a(2)", "two words", "", "</s>"])
def test_words_that_a_file_cannot_hold_are_not_written(tmp_path, word):
    assert not is_lexicon_word(word)
    with pytest.raises(DataError, match="1 words cannot stand"):
        write_lexicon(Lexicon({"fine": (("a",),), word: (("a",),)}), tmp_path / "l.txt")
    assert not list(tmp_path.iterdir())


TEXTS = ["the quick brown fox jumps over the lazy dog", "it's the dog's day", "größer als été"] * 3
WORDS = " ".join(TEXTS).split()


@few
@given(st.sampled_from(["bpe", "word"]), st.lists(st.sampled_from(WORDS), min_size=1))
def test_the_units_of_all_words_are_the_units_of_the_text(kind, chosen):
    tokenizer = train_tokenizer(kind, TEXTS, vocab_size=50)
    pronunciations = tokenizer_lexicon(tokenizer, WORDS).pronunciations
    units = [symbol for word in chosen for symbol in pronunciations[word][0]]
    assert units == [tokenizer.symbols[unit] for unit in tokenizer.encode(" ".join(chosen))]


def test_the_characters_of_words_with_separators_are_the_characters_of_the_text():
    tokenizer = train_tokenizer("char", TEXTS)
    pronunciations = tokenizer_lexicon(tokenizer, ["dog", "it's"]).pronunciations
    assert pronunciations == {"dog": (("d", "o", "g"),), "it's": (("i", "t", "'", "s"),)}
    between = [*pronunciations["it's"][0], tokenizer.separator, *pronunciations["dog"][0]]
    assert between == [tokenizer.symbols[unit] for unit in tokenizer.encode("it's dog")]


@pytest.mark.parametrize("kind", ["bpe", "char", "word"])
def test_words_without_units_are_left_out_of_the_lexicon(kind):
    tokenizer = train_tokenizer(kind, TEXTS, vocab_size=50)
    assert list(tokenizer_lexicon(tokenizer, ["dog", "東京", "fox"]).pronunciations) == ["dog", "fox"]
    with pytest.raises(UserError, match="none of the 2 words"):
        tokenizer_lexicon(tokenizer, ["DOG", "FOX"])


def test_pronunciations_in_phones_come_from_the_lexicon():
    lexicon = Lexicon({"a": (("AH",), ("EY",)), "b": (("B", "IY"),)})
    tokenizer = phone_tokenizer(lexicon, ["a b"])
    assert tokenizer_lexicon(tokenizer, ["a", "c"]).pronunciations == {"a": (("AH",), ("EY",))}


@pytest.mark.parametrize("kind", ["phone", "biphone"])
def test_a_tokenizer_keeps_the_probabilities_of_its_lexicon(tmp_path, kind):
    lexicon = Lexicon({"a": (("AH",), ("EY",)), "b": (("B", "IY"),)}, {("a", ("EY",)): 0.25})
    phones = phone_tokenizer(lexicon, ["a b"])
    tokenizer = phones if kind == "phone" else untied_tokenizer(kind, phones)
    save_tokenizer(tokenizer, tmp_path / "t.json")
    loaded = load_tokenizer(tmp_path / "t.json")
    assert tokenizer_lexicon(loaded, ["a", "b", "c"]) == lexicon and loaded.to_dict() == tokenizer.to_dict()


@pytest.mark.parametrize("probabilities", [{"a": [1.0, 0.0], "b": [1.0]}, {"a": [1.0], "b": [1.0]}, {"a": [1.0, 0.5]},
                                           {"a": [1.0, "x"], "b": [1.0]}, {"a": [1.0, 2], "b": [1.0]}, 7])  # fmt: skip
def test_a_tokenizer_with_unsound_probabilities_is_refused(tmp_path, probabilities):
    lexicon = Lexicon({"a": (("AH",), ("EY",)), "b": (("B", "IY"),)})
    content = phone_tokenizer(lexicon, ["a b"]).to_dict() | {"probabilities": probabilities}
    (tmp_path / "t.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="t.json"):
        load_tokenizer(tmp_path / "t.json")


@pytest.mark.parametrize("probability", ["0.5", ".5", "5e-1", "1e-05", "0.5E0", "1"])
def test_probabilities_are_read_in_all_notations(read, probability):
    assert read(f"A 1.0 a\nB {probability} b\n") == {"A": (("a",),), "B": (("b",),)}


@pytest.mark.parametrize("probability", ["nan", "inf", "1.5", "0.0", "-0.5", "1_0.5", "\u0660.\u0665", "1e400", "0x.5"])
def test_other_numbers_are_not_taken_for_probabilities(read, probability):
    with pytest.raises(DataError, match="probabilities follow the word, in all lines or in none"):
        read(f"A 0.5 a\nB {probability} b\n")


@pytest.mark.parametrize("line", ["<S> a", "<EPS> a", "A <Blank>", "A <unk>", "A </s>", "A\x07 a", "A a\x01"])
def test_marks_in_any_case_and_control_characters_are_faults(read, line):
    with pytest.raises(DataError, match="1 faults"):
        read(f"B b\n{line}\n")


def test_messages_show_the_first_characters_of_a_long_word(read):
    with pytest.raises(DataError) as error:
        read("B b\n" + "A" * 100_000 + "\n" + "A " + "#" * 100_000 + "\n")
    assert len(str(error.value)) < 500


PHONES = {"AH", "EY", "B", "IY"}


@pytest.mark.parametrize("content", [None, "", "A EY\nB B IY\n", "A 1.0 EY\nB 0.5 B IY\n"])
def test_a_lexicon_may_replace_one_of_its_phones(tmp_path, content):
    if content is not None:
        (tmp_path / "l.txt").write_text(content)
    require_lexicon_output(tmp_path / "l.txt", [tmp_path / "text.txt"], PHONES)


@pytest.mark.parametrize("content", ["THE POOR\n", "A\nB\n", "A EY\nTHE POOR\n", "A 1.0 POOR\n", "A 1.0\n", "\n"])
def test_a_text_or_another_lexicon_is_not_replaced(tmp_path, content):
    (tmp_path / "l.txt").write_text(content)
    with pytest.raises(UserError, match="l.txt, which exists and is not a lexicon of the phones"):
        require_lexicon_output(tmp_path / "l.txt", [], PHONES)


@pytest.mark.parametrize("name", ["l.txt.gz", "train.jsonl", "train.jsonl.gz", "t.json", "lm.arpa", "lm.pt", "L.fst"])
def test_a_lexicon_is_not_written_under_the_name_of_something_else(tmp_path, name):
    with pytest.raises(UserError, match="was OUT forgotten"):
        require_lexicon_output(tmp_path / name, [], PHONES)


def test_a_lexicon_is_not_written_over_its_inputs(tmp_path):
    (tmp_path / "l.txt").write_text("A EY\n")
    with pytest.raises(UserError, match="is an input as well"):
        require_lexicon_output(tmp_path / "l.txt", [tmp_path / "." / "l.txt"], PHONES)
