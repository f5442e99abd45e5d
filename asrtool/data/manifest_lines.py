"""Manifests that are written from the lines of another one: a part of it, or the same cuts with other transcripts.

The files have no time stamps: the same input gives the same bytes.
"""

import gzip
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from asrtool.data.shards import Entry, entries_with_dicts
from asrtool.errors import UserError
from asrtool.files import atomic_path

SUFFIXES = (".jsonl.gz", ".jsonl")


def entries_of_files(path: Path) -> Iterator[tuple[Entry, dict]]:
    """Yields the entries of a manifest with their JSON objects. UserError for Shar, whose lines belong to tar files."""
    for entry, cut_dict in entries_with_dicts(path):
        if entry.shar_items:
            hint = "export it with `lhotse shar export`, or select from the manifests that it was made of"
            raise UserError(f"{path} is lhotse's Shar, whose lines cannot be copied without their audio; {hint}")
        yield entry, cut_dict


@contextmanager
def open_writer(out: Path) -> Iterator[BinaryIO]:
    """Yields a binary file for lines, compressed if `out` ends in .gz, which is renamed to `out` on success."""
    with atomic_path(out) as temporary, open(temporary, "wb") as file:
        if out.suffix != ".gz":
            yield file
            return
        packed = gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=6, mtime=0)
        with packed, io.BufferedWriter(packed, 1 << 20) as buffered:
            yield buffered


def write_lines(lines: Iterable[bytes], out: Path) -> int:
    """Writes lines, each with its end, to `out`, compressed if it ends in .gz; returns their number."""
    count = 0
    with open_writer(out) as file:
        for line in lines:
            file.write(line.strip() + b"\n")
            count += 1
    return count
