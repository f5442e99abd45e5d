"""Log-probs on disk: the network runs once, and searches with other options read its output.

    FOLDER/00000.npz ...   some utterances each: ids, refs, and 0, 1 ..., their log-probs (T, V) as float16
           index.json      the numbers of files and utterances, and the hash of the run; written last

float16 has 11 bits, so the error of a log-prob of -20 is at most 0.01, and far less for likely units.
"""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from asrtool.data.sampling import OrderedSampler
from asrtool.errors import UserError
from asrtool.experiment import Experiment, run_hash
from asrtool.files import atomic_path, write_json
from asrtool.progress import progress
from asrtool.readers import read_json
from asrtool.tensor_files import damaged_file, load_arrays

INDEX = "index.json"
FILE_KIND = "log-probs of `asrtool tune`"
DAMAGED_HINT = "delete its folder and repeat the command"
UTTERANCES_PER_FILE = 100  # about 20 MB for 500 units


class UtteranceLogProbs(NamedTuple):
    """The log-probs (T, V) float16 of an utterance, with its id and transcript."""

    name: str
    ref: str
    log_probs: np.ndarray


def write_log_probs(folder: Path, utterances: Iterable[UtteranceLogProbs], run: str) -> None:
    """Writes the utterances into `folder`; `run` is the hash of everything that they depend on."""
    (folder / INDEX).unlink(missing_ok=True)
    remaining = iter(utterances)
    num_files = num_utterances = 0
    while block := list(itertools.islice(remaining, UTTERANCES_PER_FILE)):
        _write_file(folder / f"{num_files:05d}.npz", block)
        num_files += 1
        num_utterances += len(block)
    write_json(folder / INDEX, {"run": run, "files": num_files, "utterances": num_utterances})


def _write_file(path: Path, utterances: list[UtteranceLogProbs]) -> None:
    arrays: dict[str, Any] = {str(number): utterance.log_probs for number, utterance in enumerate(utterances)}
    arrays["ids"] = np.array([utterance.name for utterance in utterances])
    arrays["refs"] = np.array([utterance.ref for utterance in utterances])
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def store_log_probs(experiment: Experiment, cuts: Path, folder: Path, batch_seconds: float, workers: int) -> int:
    """Writes the log-probs of all cuts of a manifest, and returns the number of utterances.

    If the same model has already written them, nothing is computed.
    """
    run = run_hash(experiment, cuts, {"batch_seconds": batch_seconds})
    if not _is_written(folder, run):
        write_log_probs(folder, _compute_log_probs(experiment, cuts, batch_seconds, workers), run)
    return _read_index(folder)["utterances"]


def _compute_log_probs(
    experiment: Experiment, cuts: Path, batch_seconds: float, workers: int
) -> Iterator[UtteranceLogProbs]:
    batches = experiment.batches(OrderedSampler(cuts, batch_seconds), workers)
    for batch in progress(batches, "log-probs", units="batches"):
        log_probs, lens = experiment.log_probs(batch)
        rows = zip(batch.ids, batch.texts, log_probs.cpu().numpy(), lens.tolist(), strict=True)
        yield from (UtteranceLogProbs(name, ref, row[:length].astype(np.float16)) for name, ref, row, length in rows)
        no_frames = np.zeros((0, experiment.num_outputs), np.float16)  # the words of these cuts count as deletions
        yield from (UtteranceLogProbs(cut.id, cut.text, no_frames) for cut in batch.skipped)


def _read_index(folder: Path) -> dict:
    """Returns index.json: `run`, and the counts `files` and `utterances`. Raises UserError for another content."""
    index = read_json(folder / INDEX, FILE_KIND, DAMAGED_HINT)
    counts = [index.get(name) for name in ("files", "utterances")] if isinstance(index, dict) else [None]
    if not all(type(count) is int and count >= 0 for count in counts):
        raise UserError(f"{folder / INDEX} is not the index of {FILE_KIND}; {DAMAGED_HINT}")
    return index


def _is_written(folder: Path, run: str) -> bool:
    try:
        return _read_index(folder).get("run") == run
    except UserError:  # it is missing or damaged, and will be written again
        return False


def read_log_probs(folder: Path) -> Iterator[UtteranceLogProbs]:
    """Yields what `write_log_probs` wrote, in its order. Raises UserError that names a damaged file."""
    for number in range(_read_index(folder)["files"]):
        yield from _read_file(folder / f"{number:05d}.npz")


def _read_file(path: Path) -> list[UtteranceLogProbs]:
    arrays = load_arrays(path, FILE_KIND, DAMAGED_HINT)
    try:
        names, refs = arrays["ids"].tolist(), arrays["refs"].tolist()
        pairs = enumerate(zip(names, refs, strict=True))
        utterances = [UtteranceLogProbs(name, ref, arrays[str(number)]) for number, (name, ref) in pairs]
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise damaged_file(path, FILE_KIND, DAMAGED_HINT, error) from error
    for name, ref, log_probs in utterances:
        if not isinstance(name, str) or not isinstance(ref, str):
            raise damaged_file(path, FILE_KIND, DAMAGED_HINT, ValueError("its names are not text"))
        if not _are_log_probs(log_probs):
            raise damaged_file(path, FILE_KIND, DAMAGED_HINT, ValueError(f"the values of {name} are not log-probs"))
    return utterances


def _are_log_probs(values: np.ndarray) -> bool:
    if values.ndim != 2 or values.dtype != np.float16:
        return False
    return not (np.isnan(values).any() or (values > 0).any())
