"""Text files and the words in them."""

import gzip
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from asrtool.errors import UserError, require_file

CASES = {"keep": str, "upper": str.upper, "lower": str.lower}


def change_case(text: str, case: str) -> str:
    """`text` in `case`: "keep", "upper" or "lower"."""
    return CASES[case](text)


def read_lines(path: str | Path, what: str = "text", hint: str = "give a text file, plain or .gz") -> Iterator[str]:
    """The lines of a text file (UTF-8), plain or .gz. UserError when it is missing (`what`, `hint`) or not that."""
    path = require_file(path, what, hint)
    number = 0
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):  # noqa: B007 - the error below names the line
                yield line
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 after line {number}; convert it, e.g. with iconv") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: damaged gzip file after line {number} ({error})") from error


def is_manifest(path: Path) -> bool:
    """Whether `path` is a manifest by its name, or a folder of some, and no text file."""
    return path.is_dir() or path.name.endswith((".jsonl", ".jsonl.gz"))


def read_sentences(path: Path) -> Iterator[str]:
    """The transcripts of a manifest, or the lines of a text file. UserError as of `read_lines`."""
    if not is_manifest(path):
        return read_lines(path, "text", "give a text file, a sentence a line (.gz too), or a manifest *.jsonl.gz")
    from asrtool.data.manifest import transcripts

    return transcripts([path])


def count_words(texts: Iterable[str], case: str = "keep") -> Counter[str]:
    """How often each word occurs in `texts`, in Unicode's composed form (NFC), as manifests have it."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(unicodedata.normalize("NFC", change_case(text, case)).split())
    return counts


def most_frequent(counts: Counter[str], top: int | None = None, min_count: int = 1) -> dict[str, int]:
    """The words with at least `min_count` occurrences, at most `top` of them, the most frequent first."""
    found = sorted((word for word in counts if counts[word] >= min_count), key=lambda word: (-counts[word], word))
    return {word: counts[word] for word in found[:top]}
