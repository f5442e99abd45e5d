"""Log-probs on disk: the network is run once, and searches with other settings need it no more.

    FOLDER/00000.npz ...   some utterances each: ids, refs, and 0, 1 ..., their log-probs (T, V) as float16
           index.json      how many files and utterances, and of what run; written last

float16 has 11 bits, so a log-prob of -20 is off by 0.01 at most, and those of likely units by far less.
"""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asrtool.data.sampling import OrderedSampler
from asrtool.errors import UserError
from asrtool.experiment import Experiment, run_hash
from asrtool.files import atomic_path, write_json
from asrtool.progress import progress
from asrtool.readers import read_json
from asrtool.tensor_files import damaged_file, load_arrays

INDEX = "index.json"
WHAT, HINT = "log-probs of `asrtool tune`", "delete its folder and repeat the command"
SHARD = 100  # utterances in a file: some 20 MB for 500 units


class Utterance(NamedTuple):
    """Log-probs (T, V) float16 with what they are of."""

    name: str
    ref: str
    log_probs: np.ndarray


def write_log_probs(folder: Path, utterances: Iterable[Utterance], run: str) -> None:
    """Store them; `run` names all that they depend on."""
    (folder / INDEX).unlink(missing_ok=True)
    waiting, files, count = iter(utterances), 0, 0
    while shard := list(itertools.islice(waiting, SHARD)):
        _write(folder / f"{files:05d}.npz", shard)
        files, count = files + 1, count + len(shard)
    write_json(folder / INDEX, {"run": run, "files": files, "utterances": count})


def _write(path: Path, shard: list[Utterance]) -> None:
    arrays = {str(number): utterance.log_probs for number, utterance in enumerate(shard)}
    names, refs = [utterance.name for utterance in shard], [utterance.ref for utterance in shard]
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, ids=np.array(names), refs=np.array(refs), **arrays)


def store_log_probs(experiment: Experiment, cuts: Path, folder: Path, batch_seconds: float, workers: int) -> int:
    """Those of all cuts of a manifest; returns how many there are. What the same model wrote already is left alone."""
    run = run_hash(experiment, cuts, {"batch_seconds": batch_seconds})
    if not _is_written(folder, run):
        write_log_probs(folder, _computed(experiment, cuts, batch_seconds, workers), run)
    return _index(folder)["utterances"]


def _computed(experiment: Experiment, cuts: Path, batch_seconds: float, workers: int) -> Iterator[Utterance]:
    loaded = experiment.batches(OrderedSampler(cuts, batch_seconds), workers)
    for batch in progress(loaded, "log-probs", units="batches"):
        log_probs, lens = experiment.log_probs(batch)
        rows = zip(batch.ids, batch.texts, log_probs.cpu().numpy(), lens.tolist(), strict=True)
        yield from (Utterance(name, ref, row[:length].astype(np.float16)) for name, ref, row, length in rows)
        none = np.zeros((0, experiment.tokenizer.size), np.float16)
        yield from (Utterance(cut.id, cut.text, none) for cut in batch.skipped)  # their words count as deletions


def _index(folder: Path) -> dict:
    """What index.json says: `files` and `utterances`, counts, and `run`. UserError for what is none."""
    index = read_json(folder / INDEX, WHAT, HINT)
    counts = [index.get(name) for name in ("files", "utterances")] if isinstance(index, dict) else [None]
    if not all(type(count) is int and count >= 0 for count in counts):
        raise UserError(f"{folder / INDEX} is not the index of {WHAT}; {HINT}")
    return index


def _is_written(folder: Path, run: str) -> bool:
    try:
        return _index(folder).get("run") == run
    except UserError:  # it is not there, or damaged: it is written again
        return False


def read_log_probs(folder: Path) -> Iterator[Utterance]:
    """What `write_log_probs` stored, in its order. UserError that names the file that is damaged."""
    for number in range(_index(folder)["files"]):
        yield from _read(folder / f"{number:05d}.npz")


def _read(path: Path) -> list[Utterance]:
    arrays = load_arrays(path, WHAT, HINT)
    try:
        names, refs = arrays["ids"].tolist(), arrays["refs"].tolist()
        read = [Utterance(*row, arrays[str(n)]) for n, row in enumerate(zip(names, refs, strict=True))]
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise damaged_file(path, WHAT, HINT, error) from error
    for name, ref, log_probs in read:
        if not isinstance(name, str) or not isinstance(ref, str):
            raise damaged_file(path, WHAT, HINT, ValueError("its names are not text"))
        if log_probs.ndim != 2 or log_probs.dtype != np.float16 or np.isnan(log_probs).any() or (log_probs > 0).any():
            raise damaged_file(path, WHAT, HINT, ValueError(f"those of {name} are not log-probs"))
    return read
