"""Reading log.jsonl, the log of a training."""

from itertools import islice
from pathlib import Path

from asrtool.readers import read_jsonl


def read_log(path: Path) -> list[dict]:
    """Returns the events of a `log.jsonl`, without a last line that a crash cut short."""
    num_complete_lines = path.read_bytes().count(b"\n")
    return list(islice(read_jsonl(path), num_complete_lines))
