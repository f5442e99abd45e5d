import pytest

from asrtool.errors import UserError
from asrtool.scoring.markdown import put, table


def test_short_rows_are_filled_and_bars_do_not_end_a_cell():
    assert table(["a", "b"], [["1", "x|y"], ["2"]]) == "| a | b |\n| --- | --- |\n| 1 | x\\|y |\n| 2 | - |"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "<\n\nnew\n\n>\n"),
        ("before\n", "before\n\n<\n\nnew\n\n>\n"),
        ("before\n<\nold\n>", "before\n<\n\nnew\n\n>\n"),
        ("before <old> after", "before <\n\nnew\n\n> after"),
    ],
)
def test_a_section_is_put_where_its_lines_are_or_at_the_end(text, expected):
    assert put(text, "<", ">", "new") == expected
    assert put(expected, "<", ">", "new") == expected


@pytest.mark.parametrize("text", ["<", ">", "> <"])
def test_half_a_section_is_refused(text):
    with pytest.raises(UserError, match="need both '<' and '>'"):
        put(text, "<", ">", "new")
