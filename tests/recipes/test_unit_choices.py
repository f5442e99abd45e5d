"""The output units that `asrtool new` chooses by words, characters, hours and lexicon."""

from pathlib import Path

import pytest

from asrtool.recipes.text_facts import describe_texts
from asrtool.recipes.unit_choices import UserText, choose_units, is_english

DIGITS = ["one two three", "three two one"] * 50
ENGLISH = ["the cat sat on the mat and it was happy", "a dog of the house is in that garden"] * 3
GERMAN = ["die katze saß auf der matte", "über den bergen ist es schön", "am abend ging er nach hause"]
CHINESE = [chr(0x4E00 + i) + chr(0x4E00 + i + 1) + " " + chr(0x4E01 + 2 * i) for i in range(400)]
THAI = ["ทุกคนมีสิทธิในการศึกษาและการทำงาน", "สวัสดีครับผมชื่อสมชายอยู่กรุงเทพ"]


@pytest.mark.parametrize("texts, hours, coverage, expected", [
    (DIGITS, 0.3, 0, "word"),
    (ENGLISH, 5, 0.97, "phone"),
    (ENGLISH, 5, 0.0, "char"),
    (ENGLISH, 50, 0.97, "bpe"),
    (GERMAN, 1, 0, "char"),
    (GERMAN, 200, 0, "bpe"),
    (CHINESE, 200, 0, "char"),
])  # fmt: skip
def test_units(texts: list[str], hours: float, coverage: float, expected: str) -> None:
    chosen = choose_units(describe_texts(texts), hours, UserText(), coverage)
    assert chosen.units.value == expected and chosen.units.why


def test_a_lexicon_makes_phones_the_units() -> None:
    chosen = choose_units(describe_texts(DIGITS), 0.3, UserText(lexicon=Path("/c/lexicon.txt")))
    assert (chosen.units.value, chosen.lexicon) == ("phone", "/c/lexicon.txt")


def test_text_without_spaces_has_no_word_language_model() -> None:
    chosen = choose_units(describe_texts(THAI), 1, UserText())
    assert chosen.lm_order.value == 0 and "graph" not in chosen.decode.value


def test_more_text_adds_a_rescoring_model() -> None:
    chosen = choose_units(describe_texts(GERMAN), 1, UserText(lm_text=Path("/c/text.txt")))
    assert chosen.rescore_order == 4 and "rescored" in chosen.decode.value and chosen.lm_prune


def test_bpe_vocabulary_grows_with_the_hours() -> None:
    sizes = [choose_units(describe_texts(GERMAN), hours, UserText()).vocab_size for hours in (30, 300, 1000, 5000)]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]


def test_english_is_recognised_and_a_given_language_decides() -> None:
    assert is_english(describe_texts(ENGLISH), UserText())
    assert not is_english(describe_texts(GERMAN), UserText())
    assert is_english(describe_texts(GERMAN), UserText(language="en-GB"))
    assert not is_english(describe_texts(ENGLISH), UserText(language="de"))
