"""Readers of JSON, JSONL and lines of text: they bound what an input can take, and name the place of an error."""

import gzip
import json
import math
import re
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

from asrtool.errors import UserError, require_file

MAX_LINE_BYTES = 8 << 20  # of a text file: a manifest's line of an hour with alignments has 3 MB
MAX_INT_DIGITS = 300  # 309 digits are more than float64 holds
MAX_JSON_BYTES = 256 << 20  # of a file, which is read whole: a tokenizer with a lexicon of 1 M words has 60 MB
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # half of a pair that stands for one character in JSON
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
GZIP_ERRORS = (gzip.BadGzipFile, EOFError, zlib.error)
MAX_EXPANSION = 50  # of an unpacked file to its compressed one; texts, language models and arrays have 3 to 10
EXPANSION_FREE_BYTES = 100 << 20  # unpacked bytes up to which the ratio does not matter


def read_json(path: str | Path, what: str, hint: str) -> Any:
    """Returns the content of a JSON file. UserError that names the file if it is missing, too large or not JSON.

    NaN, Infinity and keys that occur twice, which Python's reader would accept, and numbers beyond float64 are refused.
    `what` says what the file is and `hint` what to do, e.g. "a tokenizer", "make one with `asrtool tokenizer`".
    """
    path = require_file(path, what, hint)
    if path.stat().st_size > MAX_JSON_BYTES:
        raise UserError(f"{path} has {path.stat().st_size:,} bytes, too many for {what}; {hint}")
    return parse_json(path.read_bytes(), str(path), hint, is_file=True)


def parse_json(text: str | bytes, where: str, hint: str, is_file: bool = False) -> Any:
    """Returns the value of a JSON text. UserError that begins with `where` (and the line, of a file), with `hint`."""
    try:
        return STRICT_JSON.decode(text if isinstance(text, str) else text.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        line = f":{error.lineno}" if is_file else ""
        raise UserError(f"{where}{line}: not JSON ({error.msg}); {hint}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 text ({error.reason} at byte {error.start}); {hint}") from error
    except RecursionError as error:
        raise UserError(f"{where}: nested too deeply; {hint}") from error
    except ValueError as error:
        raise UserError(f"{where}: {error}; {hint}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a finite number")


def _bounded_int(text: str) -> int:
    if len(text) > MAX_INT_DIGITS:
        raise ValueError(f"{text[:30]}... is too long a number")
    return int(text)


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:30]} is not a finite number")
    return value


def _object_with_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = dict(pairs)
    if len(values) < len(pairs):
        repeated = next(key for place, (key, _) in enumerate(pairs) if key in dict(pairs[:place]))
        raise ValueError(f"the key {repeated[:50]!r} is there twice")
    return values


class _StrictDecoder(json.JSONDecoder):
    """Refuses numbers that are not finite, repeated keys and strings that UTF-8 cannot hold, by ValueError."""

    def __init__(self) -> None:
        super().__init__(
            parse_constant=_refuse_constant,
            parse_float=_finite_float,
            parse_int=_bounded_int,
            object_pairs_hook=_object_with_unique_keys,
        )

    def decode(self, text: str) -> Any:  # type: ignore[override]  # the private second argument is not used
        """Returns the value of a JSON text."""
        value = super().decode(text)
        if "\\u" in text and SURROGATE.search(text):
            try:
                json.dumps(value, ensure_ascii=False).encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"a string has \\u{ord(error.object[error.start]):x}, half of a character") from error
        return value


STRICT_JSON = _StrictDecoder()  # constructed once, which saves 3 us a line


def read_jsonl(path: str | Path, hint: str = "write one object a line") -> Iterator[Any]:
    """Yields the values of a JSONL file (.gz too), one by one. UserError that names the line that is not JSON."""
    for number, line in enumerate(read_lines(path, "JSONL file", hint), 1):
        yield parse_json(line, f"{path}:{number}", hint)


def read_training_log(path: Path) -> list[dict]:
    """Returns the events of a `log.jsonl`, without a last line that a crash cut short."""
    num_complete_lines = path.read_bytes().count(b"\n")
    return list(islice(read_jsonl(path), num_complete_lines))


def read_lines(path: str | Path, what: str = "text", hint: str = "give a text file, plain or .gz") -> Iterator[str]:
    """Yields the lines of a text file (UTF-8, a byte order mark is dropped), plain or .gz, each with its line end.

    Lines end with "\\n" or "\\r\\n", and nothing else. UserError if the file is missing (`what`, `hint`), is not UTF-8,
    is a damaged gzip file, or has a line of more than MAX_LINE_BYTES; it names the line.
    """
    for number, line in enumerate(read_byte_lines(path, what, hint), 1):
        try:
            text = line.removeprefix(BYTE_ORDER_MARK).decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}:{number}: not UTF-8 ({error.reason}); convert it, e.g. with iconv") from error
        if "\r" in text:
            text = text.rstrip("\r\n") + "\n"
        if "\r" in text or "\0" in text:
            raise UserError(f"{path}:{number}: {_line_problem(text)}")
        yield text


def _line_problem(text: str) -> str:
    """Says what is wrong with a line of text, and what to do."""
    if "\0" in text:
        return "a NUL character, as in UTF-16; convert it, e.g. with iconv -f UTF-16LE -t UTF-8"
    return "a carriage return within a line, as old Macs end them; convert it, e.g. with tr '\\r' '\\n'"


def read_byte_lines(
    path: str | Path, what: str = "text", hint: str = "give a text file, plain or .gz"
) -> Iterator[bytes]:
    """Yields the lines of a file, plain or .gz, as bytes, with their line ends. UserError as of `read_lines`."""
    path = require_file(path, what, hint)
    number = 0
    try:
        with open_bytes(path) as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise UserError(f"{path}:{number}: a line of more than {MAX_LINE_BYTES >> 20} MB; is it {what}?")
                yield line
    except GZIP_ERRORS as error:
        raise UserError(f"{path}: damaged gzip file after line {number} ({error}); copy it again") from error


def open_bytes(path: str | Path) -> BinaryIO:
    """Opens a file to read bytes, decompressed if its name ends in .gz."""
    return cast(BinaryIO, gzip.open(path, "rb")) if Path(path).suffix == ".gz" else open(path, "rb")


def max_unpacked_bytes(path: str | Path) -> int:
    """Returns the most bytes that the compressed file `path` may unpack to; more would exhaust memory."""
    return max(EXPANSION_FREE_BYTES, MAX_EXPANSION * Path(path).stat().st_size)


def read_blocks(path: str | Path, what: str, block_bytes: int = 1 << 20) -> Iterator[bytes]:
    """Yields the content of a file, plain or .gz, in blocks of at most `block_bytes` bytes.

    UserError for a damaged gzip file, and for one that unpacks to more than `max_unpacked_bytes`; `what` says what the
    file should be, e.g. "a language model".
    """
    bytes_left = max_unpacked_bytes(path)
    try:
        with open_bytes(path) as file:
            while block := file.read(block_bytes):
                bytes_left -= len(block)
                if bytes_left < 0:
                    raise UserError(f"{path} unpacks to more than {MAX_EXPANSION} times its size; is it {what}?")
                yield block
    except GZIP_ERRORS as error:
        raise UserError(f"{path}: damaged gzip file ({error}); copy it or create it again") from error
