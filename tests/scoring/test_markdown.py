"""Tables and replaceable sections in Markdown."""

import pytest

from asrtool.errors import UserError
from asrtool.scoring.markdown import markdown_table, natural_sort_key, replace_section


def test_short_rows_are_filled_and_bars_are_escaped():
    assert markdown_table(["a", "b"], [["1", "x|y"], ["2"]]) == "| a | b |\n| --- | --- |\n| 1 | x\\|y |\n| 2 | - |"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "<\n\nnew\n\n>\n"),
        ("before\n", "before\n\n<\n\nnew\n\n>\n"),
        ("before\n<\nold\n>", "before\n<\n\nnew\n\n>\n"),
        ("before <old> after", "before <\n\nnew\n\n> after"),
    ],
)
def test_a_section_is_replaced_or_added_at_the_end(text, expected):
    assert replace_section(text, "<", ">", "new") == expected
    assert replace_section(expected, "<", ">", "new") == expected


@pytest.mark.parametrize("text", ["<", ">", "> <"])
def test_half_a_section_is_refused(text):
    with pytest.raises(UserError, match="need both '<' and '>'"):
        replace_section(text, "<", ">", "new")


def test_names_are_sorted_by_their_numbers_whatever_digits_they_have():
    names = ["b10", "b9", "²", "a²", "b٣"]
    assert sorted(names, key=natural_sort_key) == ["a²", "b٣", "b9", "b10", "²"]
