"""Checks of a compiled n-gram model on reading, so that no search in it fails, loops for ever or leaves its arrays.

All checks compare whole arrays, in blocks: a model of 100 M n-grams is checked in seconds, in little memory.
"""

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from asrtool.errors import UserError
from asrtool.lm.ngram import BOS, EOS, LN10, UNK
from asrtool.text.words import shortened

ARRAY_TYPES = {
    "words": "u1",
    "offsets": "i8",
    "keys": "i8",
    "suffixes": "i4",
    "states": "i4",
    "logprobs": "f4",
    "backoffs": "f4",
}
WHITE_SPACE = list(b" \t\r\v\f")  # separates words in an ARPA file; the line end separates them in the array
BLOCK_ELEMENTS = 1 << 20  # compared at once
MAX_ORDER = 16  # tools write models of order 3 to 7
# Limits of log-probs and back-off weights: log10 p(<unk>) is -100 in a model without <unk>, -99 means zero probability,
# and the weights that tools write are between -99 and about 2. Sums of such numbers stay finite.
MIN_LOG_VALUE = -100.01 * LN10  # with room for rounding
MAX_BACKOFF = 99.01 * LN10


def has_model_arrays(path: Path) -> bool:
    """Returns whether the file `path` has the arrays of a compiled n-gram model, by their names."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {f"{name}.npy" for name in ARRAY_TYPES} <= set(archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return False


def check_model_arrays(arrays: Mapping[str, np.ndarray], words: Sequence[str]) -> None:
    """Raises ValueError with the reason when `arrays` (see ngram_files.py) are not a sound model of `words`.

    Call `check_array_types` first.
    """
    _check_words(arrays["words"], words)
    offsets = arrays["offsets"].tolist()
    _check_offsets(offsets, len(words), len(arrays["keys"]))
    for name in ("suffixes", "logprobs", "backoffs", "states"):
        if len(arrays[name]) != len(arrays["keys"]):
            raise ValueError(f"{name} has {len(arrays[name])} values for {len(arrays['keys'])} n-grams")
    _check_keys(arrays["keys"], offsets, len(words))
    _check_links(arrays["suffixes"], arrays["states"], offsets)
    _check_range("log-prob", arrays["logprobs"], MIN_LOG_VALUE, 0)
    _check_range("back-off weight", arrays["backoffs"], MIN_LOG_VALUE, MAX_BACKOFF)


def require_writable_words(words: Sequence[str]) -> None:
    """Raises UserError unless files can hold the words of a model: not empty, and without white space."""
    faulty = next((word for word in words if (text := word.encode()).split() != [text]), None)
    if faulty is not None:
        problem = "is empty" if not faulty else "has white space"
        raise UserError(f"the word '{shortened(faulty)}' of the language model {problem}; leave it out")


def check_array_types(arrays: Mapping[str, np.ndarray]) -> None:
    """Raises ValueError unless `arrays` has all of ARRAY_TYPES, one-dimensional and of these types."""
    for name, kind in ARRAY_TYPES.items():
        array = arrays.get(name)  # bytes where a member of the archive is not an array
        if array is None:
            raise ValueError(f"it has no {name}")
        if not isinstance(array, np.ndarray) or array.dtype != np.dtype(kind) or array.ndim != 1:
            raise ValueError(f"{name} is not a row of numbers of type {kind}")


def _check_words(text: np.ndarray, words: Sequence[str]) -> None:
    if np.isin(text, WHITE_SPACE).any():
        raise ValueError("a word has white space")
    distinct = set(words)
    if len(distinct) < len(words):
        raise ValueError("a word occurs twice")
    if missing := [word for word in (BOS, EOS) if word not in distinct]:
        raise ValueError(f"it has no {missing[0]}")
    if not distinct & {UNK, UNK.upper()}:
        raise ValueError(f"it has no {UNK}")
    if not all(words):
        raise ValueError("it has an empty word")


def _check_offsets(offsets: list[int], size: int, total: int) -> None:
    if offsets[:3] != [0, 1, 1 + size] or offsets[-1] != total or sorted(offsets) != offsets:
        raise ValueError("its offsets do not fit its words and n-grams")
    if len(offsets) - 2 > MAX_ORDER:
        raise ValueError(f"its order is {len(offsets) - 2}, more than {MAX_ORDER}")


def _check_keys(keys: np.ndarray, offsets: list[int], size: int) -> None:
    """Keys ascend, so that a binary search works, and the prefix of an n-gram is an n-gram of the order below."""
    if keys[0] != -1 or not np.array_equal(keys[1 : 1 + size], np.arange(size)):
        raise ValueError("its words are not all unigrams")
    before, after = keys[:-1], keys[1:]
    if not all((before[part] < after[part]).all() for part in _blocks(0, len(before))):
        raise ValueError("its n-grams are not sorted, or one occurs twice")
    for first, start, stop in zip(offsets[1:], offsets[2:], offsets[3:], strict=False):
        if start < stop and not (first * size <= keys[start] and keys[stop - 1] < start * size):
            raise ValueError("the first words of an n-gram are not an n-gram")


def _check_links(suffixes: np.ndarray, states: np.ndarray, offsets: list[int]) -> None:
    """A suffix is shorter, so that backing off ends at the empty history; a state is the n-gram itself or shorter."""
    for order, (start, stop) in enumerate(zip(offsets, offsets[1:], strict=False)):
        for part in _blocks(start, stop):
            if (suffixes[part] < 0).any() or (suffixes[part] >= max(1, offsets[order])).any():
                raise ValueError("the suffix of an n-gram is not shorter")
            if (states[part] < 0).any() or (states[part] > np.arange(part.start, part.stop)).any():
                raise ValueError("the state of an n-gram is neither the n-gram nor shorter")


def _check_range(name: str, values: np.ndarray, lowest: float, highest: float) -> None:
    for part in _blocks(0, len(values)):
        if not ((values[part] >= lowest) & (values[part] <= highest)).all():  # false for NaN
            raise ValueError(f"a {name} is not between {lowest:.4g} and {highest:.4g}")


def _blocks(start: int, stop: int) -> Iterator[slice]:
    return (slice(first, min(first + BLOCK_ELEMENTS, stop)) for first in range(start, stop, BLOCK_ELEMENTS))
