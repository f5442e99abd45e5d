import json
import pickle
from itertools import product

import pytest

from asrtool.errors import UserError
from asrtool.text.context_units import BOUNDARY, ContextTokenizer, Leaf, Question
from asrtool.text.lexicon import Lexicon
from asrtool.text.tokenizer import BLANK_SYMBOL, PhoneTokenizer, load_tokenizer, save_tokenizer
from asrtool.text.tokenizer_training import untied_tokenizer

LEXICON = Lexicon(
    {
        "AB": (("A", "B"),),
        "BA": (("B", "A"), ("B", "A", "C")),
        "C": (("C",), ("B",)),
    }
)
SYMBOLS = [BLANK_SYMBOL, "SIL", "A", "B", "C"]
SIL, A, B, C = 1, 2, 3, 4


def phones(silence="SIL"):
    return PhoneTokenizer(SYMBOLS, LEXICON, silence)


def tied_triphones() -> ContextTokenizer:
    """A is split by a B or an edge before it, and then by a C after it; the other phones are one unit each."""
    trees = {
        SIL: [Leaf(1)],
        A: [
            Question("left", frozenset([BOUNDARY, B]), 1, 2),
            Question("right", frozenset([C]), 3, 4),
            Leaf(2),
            Leaf(3),
            Leaf(4),
        ],
        B: [Leaf(5)],
        C: [Leaf(6)],
    }
    return ContextTokenizer("triphone", [BLANK_SYMBOL, "SIL", "A_1", "A_2", "A_3", "B", "C"], phones(), trees)


def names(tokenizer, units):
    return [tokenizer.symbols[unit] for unit in units]


def test_context_goes_across_words_and_to_the_edges_of_the_utterance():
    tokenizer = untied_tokenizer("triphone", phones(silence=None))
    assert names(tokenizer, tokenizer.encode("AB BA")) == ["<s>-A+B", "A-B+B", "B-B+A", "B-A+<s>"]
    biphones = untied_tokenizer("biphone", phones(silence=None))
    assert names(biphones, biphones.encode("AB BA")) == ["<s>-A", "A-B", "B-B", "B-A"]


def test_untied_units_are_different_in_all_contexts():
    tokenizer = untied_tokenizer("triphone", phones())
    contexts = [BOUNDARY, SIL, A, B, C]
    units = [tokenizer.unit(left, phone, right) for left, phone, right in product(contexts, [A, B, C], contexts)]
    assert len(set(units)) == len(units) == tokenizer.size - 2  # without the blank and silence
    assert [tokenizer.phone_of[unit] for unit in units] == [
        phone for _, phone, _ in product(contexts, [A, B, C], contexts)
    ]


def test_silence_is_one_unit_and_a_context():
    tokenizer = untied_tokenizer("biphone", phones())
    assert names(tokenizer, tokenizer.context_units([SIL, A, SIL, B])) == ["SIL", "SIL-A", "SIL", "SIL-B"]
    assert tokenizer.separator == "SIL"


def test_a_tree_answers_its_questions():
    tokenizer = tied_triphones()
    assert names(tokenizer, tokenizer.context_units([A, C, A, B, A, B, A, C])) == [
        "A_2",
        "C",
        "A_1",
        "B",
        "A_3",
        "B",
        "A_2",
        "C",
    ]


def test_left_contexts_that_no_tree_distinguishes_are_one_class():
    assert tied_triphones().left_class == [BOUNDARY, SIL, SIL, BOUNDARY, SIL]
    assert untied_tokenizer("biphone", phones()).left_class == [BOUNDARY, SIL, A, B, C]


def test_text_of_units_is_that_of_their_phones():
    tokenizer = tied_triphones()
    for text in ("AB BA C", "C C", "BA"):
        assert tokenizer.decode(tokenizer.encode(text)) == phones().decode(phones().encode(text))
        assert tokenizer.reference(text) == phones().reference(text)
    assert tokenizer.unknown("AB XY") == ["XY"]
    assert tokenizer.pronunciations("C") == (("C",), ("B",))


def test_pronunciations_are_between_the_usual_ones_of_the_neighbours():
    tokenizer = untied_tokenizer("biphone", phones(silence=None))
    found = [[names(tokenizer, units) for units in word] for word in tokenizer.pronunciation_units("AB BA C")]
    assert found == [[["<s>-A", "A-B"]], [["B-B", "B-A"], ["B-B", "B-A", "A-C"]], [["A-C"], ["A-B"]]]


def test_alignments_of_phones_and_of_units_have_the_same_units():
    tokenizer = tied_triphones()
    sequence = [SIL, A, C, A, B, A, SIL]
    units = tokenizer.context_units(sequence)
    assert tokenizer.aligned_units([SYMBOLS[phone] for phone in sequence]) == units
    assert tokenizer.aligned_units(names(tokenizer, units)) == units
    assert tokenizer.aligned_units(["A_1", "D"]) == [2, None]


@pytest.mark.parametrize("create", [tied_triphones, lambda: untied_tokenizer("biphone", phones())])
def test_tokenizers_are_the_same_after_writing_and_reading(tmp_path, create):
    tokenizer = create()
    save_tokenizer(tokenizer, tmp_path / "tokenizer.json")
    for other in (load_tokenizer(tmp_path / "tokenizer.json"), pickle.loads(pickle.dumps(tokenizer))):
        assert other.to_dict() == tokenizer.to_dict()
        assert other.encode("AB BA C AB") == tokenizer.encode("AB BA C AB")


def change(**values):
    return lambda content: content.update(values)


def change_node(place, **values):
    return lambda content: content["trees"]["A"][place].update(values)


WRONG = {
    "a loop": change_node(1, yes=0),
    "a node that leads to itself": change_node(1, no=1),
    "a place behind the last": change_node(0, yes=5),
    "a place that is not a number": change_node(0, yes=True),
    "an unknown phone": change_node(0, phones=["XYZ"]),
    "phones that are a text": change_node(0, phones="A"),
    "an unknown side": change_node(0, ask="middle"),
    "an unknown unit": change_node(3, unit="A_9"),
    "the blank as a unit": change_node(3, unit=BLANK_SYMBOL),
    "a unit of another phone": change_node(3, unit="B"),
    "a unit in no tree": change(symbols=[BLANK_SYMBOL, "SIL", "A_1", "A_2", "A_3", "B", "C", "D"]),
    "a unit with the name of another phone": lambda content: rename(content, "A_1", "B", "B", "B_1"),
    "silence of another name": lambda content: rename(content, "SIL", "SIL_1"),
    "a phone without a tree": lambda content: content["trees"].pop("C"),
    "an empty tree": lambda content: content["trees"].update(C=[]),
    "a tree that is a number": lambda content: content["trees"].update(C=1),
    "no phones": change(phones=None),
    "a question on the right of a biphone": change(type="biphone"),
    "two equal units": change(symbols=[BLANK_SYMBOL, "SIL", "A_1", "A_1", "A_3", "B", "C"]),
}


def rename(content, *pairs):
    new = dict(zip(pairs[::2], pairs[1::2], strict=True))
    content["symbols"] = [new.get(symbol, symbol) for symbol in content["symbols"]]
    for node in (node for tree in content["trees"].values() for node in tree if "unit" in node):
        node["unit"] = new.get(node["unit"], node["unit"])


@pytest.mark.parametrize("fault", WRONG)
def test_files_that_are_wrong_are_refused_in_one_line(tmp_path, fault):
    content = json.loads(json.dumps(tied_triphones().to_dict()))
    WRONG[fault](content)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"is not a tokenizer of asrtool \(.+\); create it with") as error:
        load_tokenizer(path)
    assert "\n" not in str(error.value)


def test_too_many_untied_units_are_refused():
    symbols = [f"P{number}" for number in range(101)]
    many = PhoneTokenizer([BLANK_SYMBOL, *symbols], Lexicon({"W": (tuple(symbols),)}))
    with pytest.raises(UserError, match="too many contexts"):
        untied_tokenizer("triphone", many)
    assert untied_tokenizer("biphone", many).size == 1 + 101 * 102
