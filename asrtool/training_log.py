"""The log of a training, log.jsonl, as it is read."""

from itertools import islice
from pathlib import Path

from asrtool.readers import read_jsonl


def read_log(path: Path) -> list[dict]:
    """The events of a `log.jsonl` but for a last one that a crash cut short."""
    return list(islice(read_jsonl(path), path.read_bytes().count(b"\n")))
