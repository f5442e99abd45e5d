"""Exclusion lists name cuts that are left out."""

import pytest

from asrtool.data.exclusion import read_exclusions
from asrtool.errors import UserError


def test_ids_reasons_comments_and_blank_lines(tmp_path):
    (tmp_path / "one.txt").write_text("# made by hand\n\na-1\tclipped; too loud\na-2\r\n  a-3 \n", encoding="utf-8")
    (tmp_path / "two.txt").write_text("a-1\tsilent\nb\n", encoding="utf-8")
    found = read_exclusions([tmp_path / "one.txt", tmp_path / "two.txt"])
    assert found == {"a-1": "clipped; too loud", "a-2": "", "a-3": "", "b": ""}
    assert read_exclusions([]) == {}


def test_a_missing_list_is_named_with_what_to_do(tmp_path):
    with pytest.raises(UserError, match="none.txt.*asrtool doctor data --exclude"):
        read_exclusions([tmp_path / "none.txt"])
