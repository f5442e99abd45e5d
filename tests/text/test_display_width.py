"""The columns of texts in many scripts, and where they may be cut."""

import pytest

from asrtool.text.display_width import display_width, last_columns, letters

WIDTHS = {
    "hello": 5,
    "e\u0301a": 2,  # a combining accent
    "日本語": 6,
    "한국어": 6,
    "ﾊﾛｰ": 3,  # halfwidth katakana
    "ที่นี่": 2,  # Thai: vowels and tones over the letters
    "हिन्दी": 5,  # Hindi: the virama has no width, the other vowels one column
    "a\u200bb\u200d": 2,  # zero width space and joiner
    "a\u20dd": 1,  # an enclosing circle
    "": 0,
}
TEXTS = [*WIDTHS, "สวัสดีครับ", "नमस्ते दुनिया", "\u0301a"]


@pytest.mark.parametrize(("text", "width"), WIDTHS.items())
def test_width(text, width):
    assert display_width(text) == width


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_cut_before_no_mark(text):
    parts = list(letters(text))
    assert "".join(parts) == text and all(parts)
    for part in parts[1:]:
        assert display_width(part[0]) > 0 and part[0] not in "\u093f\u0940"


@pytest.mark.parametrize("text", TEXTS)
def test_the_last_columns_begin_with_a_whole_letter_and_are_as_many_as_fit(text):
    parts = list(letters(text))
    for width in range(display_width(text) + 2):
        end = last_columns(text, width)
        assert text.endswith(end) and display_width(end) <= width
        assert end in ["".join(parts[n:]) for n in range(len(parts) + 1)]
        longer = "".join(parts[-len(list(letters(end))) - 1 :])
        assert longer == end or display_width(longer) > width
