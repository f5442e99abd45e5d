"""Log-probs on disk: the network is run once, and searches with other settings need it no more.

    FOLDER/00000.npz ...   some utterances each: ids, refs, and 0, 1 ..., their log-probs (T, V) as float16
           index.json      how many files and utterances, and of what run; written last

float16 has 11 bits, so a log-prob of -20 is off by 0.01 at most, and those of likely units by far less.
"""

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asrtool.data.loading import OrderedSampler
from asrtool.decoding.decode import Experiment, run_name
from asrtool.files import atomic_path, write_json
from asrtool.progress import progress

SHARD = 100  # utterances in a file: some 20 MB for 500 units


class Utterance(NamedTuple):
    """Log-probs (T, V) float16 with what they are of."""

    name: str
    ref: str
    log_probs: np.ndarray


def write_log_probs(folder: Path, utterances: Iterable[Utterance], run: str) -> None:
    """Store them; `run` names all that they depend on."""
    (folder / "index.json").unlink(missing_ok=True)
    waiting, files, count = iter(utterances), 0, 0
    while shard := list(itertools.islice(waiting, SHARD)):
        _write(folder / f"{files:05d}.npz", shard)
        files, count = files + 1, count + len(shard)
    write_json(folder / "index.json", {"run": run, "files": files, "utterances": count})


def _write(path: Path, shard: list[Utterance]) -> None:
    arrays = {str(number): utterance.log_probs for number, utterance in enumerate(shard)}
    names, refs = [utterance.name for utterance in shard], [utterance.ref for utterance in shard]
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, ids=np.array(names), refs=np.array(refs), **arrays)


def store_log_probs(experiment: Experiment, cuts: Path, folder: Path, batch_seconds: float, workers: int) -> int:
    """Those of all cuts of a manifest; returns how many there are. What the same model wrote already is left alone."""
    run = run_name(experiment, cuts, {"batch_seconds": batch_seconds})
    if not _is_written(folder, run):
        write_log_probs(folder, _computed(experiment, cuts, batch_seconds, workers), run)
    return _index(folder)["utterances"]


def _computed(experiment: Experiment, cuts: Path, batch_seconds: float, workers: int) -> Iterator[Utterance]:
    loaded = experiment.batches(OrderedSampler(cuts, batch_seconds), workers)
    for batch in progress(loaded, "log-probs", units="batches"):
        log_probs, lens = experiment.log_probs(batch)
        rows = zip(batch.ids, batch.texts, log_probs.cpu().numpy(), lens.tolist(), strict=True)
        yield from (Utterance(name, ref, row[:length].astype(np.float16)) for name, ref, row, length in rows)


def _index(folder: Path) -> dict:
    return json.loads((folder / "index.json").read_text(encoding="utf-8"))


def _is_written(folder: Path, run: str) -> bool:
    return (folder / "index.json").is_file() and _index(folder)["run"] == run


def read_log_probs(folder: Path) -> Iterator[Utterance]:
    """What `write_log_probs` stored, in its order."""
    for number in range(_index(folder)["files"]):
        with np.load(folder / f"{number:05d}.npz") as shard:
            for place, (name, ref) in enumerate(zip(shard["ids"].tolist(), shard["refs"].tolist(), strict=True)):
                yield Utterance(name, ref, shard[str(place)])
