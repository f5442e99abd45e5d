"""Readers accept files of other systems, and name the place of what they refuse."""

import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asrtool import readers
from asrtool.errors import UserError
from asrtool.files import (
    write_jsonl,
)
from asrtool.readers import read_json, read_jsonl, read_lines


@settings(max_examples=25, deadline=None)
@given(st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.none())))
def test_rows_are_read_as_they_were_written(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "rows.jsonl"
    assert write_jsonl(path, iter(rows)) == len(rows)
    assert list(read_jsonl(path)) == rows


@pytest.mark.parametrize("bad", ['{"id": 3', "", "plain words"])
def test_a_line_that_is_not_json_is_named(tmp_path, bad):
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"id": 1}}\n{{"id": 2}}\n{bad}\n{{"id": 4}}\n')
    with pytest.raises(UserError, match=f"{path}:3: not JSON"):
        list(read_jsonl(path))


@pytest.mark.parametrize(
    "text",
    [
        '{"a": NaN}',
        '{"a": 1, "b": {"c": 1, "c": 1}}',
        "[1e999]",
        "[-Infinity]",
        "{",
        "[" * 100_000,
        '{"a": 1' + "0" * 5000 + "}",
        "[1" + "0" * 400 + "]",
    ],
)
def test_invalid_json_and_nonfinite_numbers_are_one_error_line_with_the_file(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError) as refused:
        read_json(tmp_path / "x.json", "a tokenizer", "make one again")
    message = str(refused.value)
    assert "x.json" in message and "make one again" in message and len(message) < 500 and "\n" not in message


@pytest.mark.parametrize("damage", ["cut", "flipped", "no gzip", "latin-1", "long line"])
def test_lines_that_cannot_be_read_are_named(tmp_path, monkeypatch, damage):
    path = tmp_path / "text.txt.gz"
    packed = gzip.compress(b"".join(b"line %d\n" % n for n in range(10_000)))
    if damage == "cut":
        path.write_bytes(packed[: len(packed) // 2])
    elif damage == "flipped":
        path.write_bytes(packed[:500] + bytes([packed[500] ^ 255]) + packed[501:])
    elif damage == "no gzip":
        path.write_bytes(b"line 1\n")
    elif damage == "latin-1":
        path.write_bytes(gzip.compress("one\nzw\xf6lf\n".encode("latin-1")))
    else:
        monkeypatch.setattr(readers, "MAX_LINE_BYTES", 100)
        path.write_bytes(gzip.compress(b"one\n" + bytes(1000)))
    with pytest.raises(UserError, match="text.txt.gz"):
        list(read_lines(path))


def test_lines_end_only_at_newlines(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes("\ufeffone\r\ntwo\u2028three\x0bfour\x85five\n\nsix".encode())
    assert list(read_lines(path)) == ["one\n", "two\u2028three\x0bfour\x85five\n", "\n", "six"]


def test_line_ends_of_windows_are_read(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\xef\xbb\xbftwo\r\r\nthree\r")
    assert list(read_lines(path)) == ["one\n", "two\n", "three\n"]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"one\ntwo\rthree\r", r"text.txt:2: a carriage return within a line.*tr"),
        ("one\ntwo\n".encode("utf-16-le"), r"text.txt:1: a NUL character.*iconv"),
        (b"one\ntwo\0\n", r"text.txt:2: a NUL character"),
    ],
)
def test_utf16_and_old_mac_line_ends_are_refused(tmp_path, content, found):
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=found):
        list(read_lines(path))


def test_json_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(tmp_path / "a.json", "numbers", "write some") == [1]
