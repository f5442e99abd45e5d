"""Exclusion lists name cuts that are left out."""

import pytest

from asrtool.data.exclusion import can_be_listed, read_exclusions
from asrtool.errors import UserError


def test_ids_reasons_comments_and_blank_lines(tmp_path):
    (tmp_path / "one.txt").write_text("# made by hand\n\na-1\tclipped; too loud\na-2\r\n  a-3 \n", encoding="utf-8")
    (tmp_path / "two.txt").write_text("a-1\tsilent\nb\n", encoding="utf-8")
    found = read_exclusions([tmp_path / "one.txt", tmp_path / "two.txt"])
    assert found == {"a-1": "clipped; too loud", "a-2": "", "a-3": "", "b": ""}
    assert read_exclusions([]) == {}


def test_an_id_may_begin_with_the_sign_of_comments(tmp_path):
    lines = ["# a comment", "#another", "# one\twith a tab", "#0\tsilent", "#1\t", "a b\tclipped"]
    (tmp_path / "list.txt").write_text("\n".join(lines), encoding="utf-8")
    assert read_exclusions([tmp_path / "list.txt"]) == {"#0": "silent", "#1": "", "a b": "clipped"}


@pytest.mark.parametrize("name", ["a", "#0", "a b", "\u00e4"])
def test_usual_ids_can_be_listed(name):
    assert can_be_listed(name)


@pytest.mark.parametrize("name", ["a\tb", " a", "a ", "# a", "a\nb", "a\rb", "\ud800", "\u2028a"])
def test_an_id_that_a_line_cannot_hold(name):
    assert not can_be_listed(name)


def test_a_missing_list_is_named_with_what_to_do(tmp_path):
    with pytest.raises(UserError, match="none.txt.*asrtool doctor data --exclude"):
        read_exclusions([tmp_path / "none.txt"])
