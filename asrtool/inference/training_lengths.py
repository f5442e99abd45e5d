"""How long the utterances were that a system was trained on: recordings are cut into segments of that length."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from asrtool.data.shards import entries_with_dicts
from asrtool.experiment import Experiment
from asrtool.readers import read_jsonl
from asrtool.scoring.schemas import StartRow, check_schema

MAX_ENTRIES = 2000  # of the training manifest that are read: 0.1 s, and among them there is one near the longest
MAX_PARENTS = 3  # folders above the experiment in which its manifest is looked for: recipes train in the one above exp/


def longest_utterance(experiment: Experiment) -> float:
    """Returns the duration of the longest utterance of the training in seconds, as far as it is known.

    A pack says it, and the log of a training. For experiments of earlier versions, whose logs do not, it is the longest
    of the first utterances in the training manifest, if that is still there, and else the limit data.max_seconds, which
    may be far above it.
    """
    limit = experiment.config.data.max_seconds
    recorded = experiment.longest_seconds or _logged_longest(experiment.folder / "log.jsonl")
    if recorded:
        return min(limit, recorded)
    durations = [
        entry.duration
        for manifest in _training_manifests(experiment)
        for entry, _ in islice(entries_with_dicts(manifest), MAX_ENTRIES)
    ]
    return min(limit, max(durations, default=limit))


def _logged_longest(log: Path) -> float | None:
    """Returns what the first row of a training's log says; None without a log, or if it does not say."""
    row = next(read_jsonl(log), None) if log.is_file() else None
    if not isinstance(row, dict) or row.get("event") != "start":
        return None
    hint = "`asrtool train` writes it; delete it to transcribe without it"
    return check_schema(StartRow, row, f"{log}:1", hint).get("longest_seconds")


def _training_manifests(experiment: Experiment) -> Iterator[Path]:
    """Yields the training manifests; their paths count from the folder in which the training was started."""
    folders = [Path(), *experiment.folder.resolve().parents[:MAX_PARENTS]]
    for manifest in experiment.config.data.train_manifests:
        candidates = (folder / manifest for folder in folders)
        yield from islice((path for path in candidates if path.is_file()), 1)
