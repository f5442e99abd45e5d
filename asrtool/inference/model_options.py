"""The arguments of the Python interface, checked when they are given: each wrong one is one line of a UserError."""

import math
import os
from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

from asrtool.decoding.options import Options, methods_of_option
from asrtool.errors import UserError, did_you_mean
from asrtool.inference.detectors import VAD_NAMES
from asrtool.precision import PRECISIONS

METHODS = ("greedy", "prefix", "graph")
FILE_OPTIONS = ("graph", "graph_lm", "rescore", "lm", "priors", "decoding_weights", "hotwords")
COUNT_OPTIONS = ("max_active", "min_active", "nbest")
NUMBER_OPTIONS = (
    "beam", "lattice_beam", "acoustic_scale", "blank_penalty", "insertion_penalty", "lm_weight", *COUNT_OPTIONS,
)  # fmt: skip
FLAG_OPTIONS = ("lm_units", "no_rescore")


def given_options(values: Options) -> dict[str, Any]:
    """Returns the options that are not None, with paths for files.

    Raises UserError for unknown names, and for values of another type.
    """
    valid = (*FILE_OPTIONS, *NUMBER_OPTIONS, *FLAG_OPTIONS)
    for name in values:
        if name not in valid:
            raise UserError(f"load has no option {name} ({did_you_mean(name, valid)})")
    given = {name: value for name, value in values.items() if value is not None}
    for name, value in given.items():
        _require_type(name, value)
    return given | {name: Path(given[name]) for name in FILE_OPTIONS if isinstance(given.get(name), str | os.PathLike)}


def _require_type(name: str, value: Any) -> None:
    if name == "nbest":
        require_count(name, value)
    elif name in NUMBER_OPTIONS:
        _require_number(name, value, whole=name in COUNT_OPTIONS)
    elif name in FLAG_OPTIONS:
        if not isinstance(value, bool):
            raise UserError(f"{name} is {value!r}; give True or False")
    elif name == "hotwords" and isinstance(value, list | tuple):
        require_texts(name, value)
    else:
        require_path(name, value)


def check_method(method: str, given: Options) -> None:
    """Raises UserError for an unknown method, and for options that have no effect on it."""
    if method not in METHODS:
        raise UserError(f"{method!r} is not a search method; give one of {', '.join(METHODS)}")
    for name in given:
        if method not in methods_of_option(name):
            valid = " or ".join(methods_of_option(name))
            raise UserError(f"the option {name} has no effect on the method {method}; it is for {valid}")


def check_precision(precision: Any) -> None:
    """Raises UserError for a precision that does not exist."""
    if precision not in PRECISIONS:
        raise UserError(f"precision is {precision}; {did_you_mean(str(precision), PRECISIONS)}")


def check_segmentation(vad: Any, batch_seconds: Any, max_seconds: Any) -> None:
    """Raises UserError for a detector that does not exist, and for lengths that are not above 0."""
    if vad not in VAD_NAMES:
        raise UserError(f"{vad!r} is not a speech detector; {did_you_mean(str(vad), VAD_NAMES)}")
    for name, value in (("batch_seconds", batch_seconds), ("max_seconds", max_seconds)):
        if value is None and name == "max_seconds":
            continue
        _require_number(name, value)
        if value <= 0:
            raise UserError(f"{name} is {value}; give a number of seconds above 0")


def require_count(name: str, value: Any, smallest: int = 1) -> None:
    """Raises UserError unless `value` is a whole number from `smallest` on."""
    _require_number(name, value, whole=True)
    if value < smallest:
        raise UserError(f"{name} is {value}; give a whole number from {smallest} on")


def require_not_negative(name: str, value: Any) -> None:
    """Raises UserError unless `value` is a finite number from 0 on."""
    _require_number(name, value)
    if value < 0:
        raise UserError(f"{name} is {value}; give a number from 0 on")


def require_texts(name: str, values: Any) -> None:
    """Raises UserError unless `values` is a list of texts. A single text is refused: each letter would be one."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        shown = repr(values) if isinstance(values, str) else _shown(values)
        raise UserError(f"{name} is {shown}; give a list of texts")
    for value in values:
        if not isinstance(value, str):
            raise UserError(f"{name} has an element that is {_shown(value)}; give a list of texts")


def require_rate(rate: Any) -> None:
    """Raises UserError unless `rate` is None or a sampling rate: a whole number of Hz."""
    if rate is not None and (not _is_number(rate, whole=True) or rate < 1):
        raise UserError(f"rate is {rate!r}; give the sampling rate in Hz as a whole number, such as 16000")


def require_path(name: str, value: Any) -> None:
    """Raises UserError unless `value` is the path of a file or folder."""
    if not isinstance(value, str | os.PathLike):
        raise UserError(f"{name} is {_shown(value)}; give the path of a file or folder")


def require_text(text: Any) -> None:
    """Raises UserError unless `text` is a string or a path."""
    if not isinstance(text, str | Path):
        raise UserError(f"the text is {_shown(text)}; give one string with all words, or the Path of a text file")


def require_recording(source: Any) -> None:
    """Raises UserError unless `source` can be a recording: a path, a binary file object, or an array."""
    is_array = hasattr(source, "__array__") and not isinstance(source, np.generic)
    if isinstance(source, str | os.PathLike) or hasattr(source, "read") or is_array:
        return
    hint = "give a path, an open binary file or a NumPy array of samples, such as numpy.asarray(samples)"
    raise UserError(f"a recording is {_shown(source)}; {hint}")


def _require_number(name: str, value: Any, whole: bool = False) -> None:
    if not _is_number(value, whole):
        raise UserError(f"{name} is {value!r}; give a {'whole number' if whole else 'number'}")


def _is_number(value: Any, whole: bool) -> bool:
    kind = Integral if whole else Real
    return isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)


def _shown(value: Any) -> str:
    """Returns a number or None as it is, and the type of all else, which may be long."""
    return repr(value) if value is None or isinstance(value, Real) else f"of the type {type(value).__name__}"
