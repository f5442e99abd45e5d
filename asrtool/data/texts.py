"""Sentences of text files, one a line, and the transcripts of manifests."""

from collections.abc import Iterator
from pathlib import Path

from asrtool.data.manifest import transcripts
from asrtool.errors import UserError
from asrtool.readers import read_lines
from asrtool.text.words import composed


def is_manifest(path: Path) -> bool:
    """Returns True if `path` is named as a manifest or is a folder of manifests, and False for a text file."""
    return path.is_dir() or path.name.endswith((".jsonl", ".jsonl.gz"))


def read_sentences(path: Path) -> Iterator[str]:
    """Yields the transcripts of a manifest, or the lines of a text file, in NFC. UserError as of `read_lines`."""
    if not is_manifest(path):
        hint = "give a text file, a sentence a line (.gz too), or a manifest *.jsonl.gz"
        return map(composed, read_lines(path, "text", hint))
    return (composed(_text(text, path)) for text in transcripts([path]))


def _text(text: object, path: Path) -> str:
    if not isinstance(text, str):
        raise UserError(f"{path}: a supervision's text is {text!r:.50}, not a string; correct the manifest")
    return text
