"""The rows of a table's file: fields between delimiters, or JSON objects, one a line.

Comma- and semicolon-separated tables may quote a field as spreadsheets do, within its line. In tab- and bar-separated
ones a quotation mark is a character of the text.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from asrtool.data.sources import InvalidEntry
from asrtool.errors import UserError
from asrtool.readers import parse_json, read_lines

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|"}
QUOTING = ",;"  # delimiters of tables whose fields may be quoted
JSON_SUFFIXES = (".jsonl", ".json", ".jsonlines", ".ndjson")
HINT = "give a .csv, .tsv or .jsonl file"

Values = Sequence[str | InvalidEntry] | InvalidEntry  # the fields of a row; what is wrong with a field or with the row


@dataclass(frozen=True)
class TableRows:
    """The names of the columns, and "FILE:LINE" and fields of each row. JSON has no delimiter."""

    names: list[str]
    delimiter: str | None
    values: Iterable[tuple[str, Values]]


def open_rows(
    file: Path, header: Sequence[str] | None = None, delimiter: str | None = None, is_json: bool = False
) -> TableRows:
    """Returns the rows of a table; JSON by the file's suffix or `is_json`. `header` names the columns of a table that
    has no header.

    Raises UserError for a file that is missing, compressed, or not text, and for a first line that is not a header.
    """
    if file.suffix == ".gz":  # a table is held as a whole, which a small compressed file can make too large
        raise UserError(f"{file} is compressed; unpack it with gunzip")
    if is_json or file.suffix in JSON_SUFFIXES:
        return _json_rows(file)
    lines = numbered_lines(file)
    first_number, first_line = next(lines, (1, ""))
    sign = delimiter or _recognise_delimiter(file, first_line, header)
    names = list(header or _header_fields(first_line, sign, f"{file}:{first_number}"))
    if header:
        lines = chain([(first_number, first_line)], lines)
    return TableRows(names, sign, _split_rows(file, lines, names, sign))


def numbered_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yields number and text of the lines that are not blank."""
    for number, line in enumerate(read_lines(file, "table", HINT), 1):
        if line.strip():
            yield number, line.rstrip("\n")


def _split_rows(
    file: Path, lines: Iterable[tuple[int, str]], names: list[str], delimiter: str
) -> Iterator[tuple[str, Values]]:
    for number, line in lines:
        where = f"{file}:{number}"
        try:
            values = split_line(line, delimiter)
        except InvalidEntry as problem:
            yield where, problem
            continue
        if len(values) == len(names):
            yield where, values
        else:
            hint = "quote a delimiter within a field"
            yield where, InvalidEntry(f"{len(values)} fields, the header has {len(names)}; {hint}")


def _recognise_delimiter(file: Path, first_line: str, header: Sequence[str] | None) -> str:
    """Returns the most frequent delimiter of the first line, or the one that fits `header`; the suffix breaks ties."""
    usual = "\t" if file.suffix == ".tsv" else ","
    choices = [usual, *(sign for sign in DELIMITERS.values() if sign != usual)]
    if header is None:
        return max(choices, key=first_line.count)
    fitting = [sign for sign in choices if first_line.count(sign) == len(header) - 1]
    if len(fitting) != 1 and len(header) > 1:
        raise UserError(f"{file}: the delimiter is not clear from its first line; give --delimiter")
    return fitting[0] if fitting else usual


def split_line(line: str, delimiter: str) -> list[str]:
    """Returns the fields of a line. Raises InvalidEntry for quotation marks that are not closed in the same line."""
    if delimiter not in QUOTING:
        return line.split(delimiter)
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True), [])
    except csv.Error as error:
        hint = "close them in the line, or double those of the text"
        raise InvalidEntry(f"quotation marks do not fit ({error}); {hint}") from error


def _header_fields(line: str, delimiter: str, where: str) -> list[str]:
    try:
        return [name.strip() for name in split_line(line, delimiter)]
    except InvalidEntry as problem:
        raise UserError(f"{where}: {problem}") from problem


def _json_rows(file: Path) -> TableRows:
    """Returns the rows of a file with a JSON object on each line; the columns are the keys of all objects.

    A line that is not an object is the problem of its row. Raises UserError if no line is one.
    """
    objects: list[tuple[str, dict | InvalidEntry]] = []
    names: dict[str, None] = {}  # in the order in which they first occur
    for number, line in numbered_lines(file):
        where = f"{file}:{number}"
        if number == 1 and line.lstrip().startswith("[") and file.suffix == ".json":
            raise UserError(f"{file} is one JSON array; write an object on each line: `jq -c '.[]' {file} > x.jsonl`")
        row = _json_object(line, where)
        if isinstance(row, dict):
            names |= dict.fromkeys(row)
        objects.append((where, row))
    if objects and all(isinstance(row, InvalidEntry) for _, row in objects):
        raise UserError(f"{objects[0][0]}: {objects[0][1]}")
    order = list(names)
    return TableRows(order, None, ((where, _json_fields(row, order)) for where, row in objects))


def _json_object(line: str, where: str) -> dict | InvalidEntry:
    """Returns the object in a line, or what is wrong with the line."""
    try:
        row = parse_json(line, where, "write one object a line")
    except UserError as error:
        return InvalidEntry(str(error).removeprefix(f"{where}: "))
    return row if isinstance(row, dict) else InvalidEntry("not a JSON object; write one object a line")


def _json_fields(row: dict | InvalidEntry, names: list[str]) -> Values:
    return row if isinstance(row, InvalidEntry) else [_as_text(name, row.get(name)) for name in names]


def _as_text(name: str, value: object) -> str | InvalidEntry:
    """Returns a JSON value as the text that a table would have; InvalidEntry for lists and objects."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return json.dumps(value)
    return InvalidEntry(f"its {name} is a {type(value).__name__}, not text or a number")
