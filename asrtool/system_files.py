"""The files besides the acoustic model that a trained system carries for recognition: graph, language models, weights.

    EXP/priors.json         of objective ce
    EXP/calibration.json    of `asrtool calibrate`

A pack (asrtool/pack_manifest.py) can carry all of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PRIORS = "priors.json"
CALIBRATION = "calibration.json"


@dataclass(frozen=True)
class SystemFiles:
    """The paths of what a system carries, None where it carries none; `graph` is a folder of `asrtool graph`.

    default_method: the search that the system was packed for, None if it was not packed. options: the default options
    of each search method, by the names of asrtool/decoding/options.py.
    """

    graph: Path | None = None
    graph_lm: Path | None = None  # the n-gram model that the graph was built from
    rescore: Path | None = None  # the n-gram model for lattice rescoring
    lm: Path | None = None  # the language model for shallow fusion in prefix search
    priors: Path | None = None
    decoding_weights: Path | None = None
    calibration: Path | None = None
    default_method: str | None = None
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def experiment_files(folder: Path) -> SystemFiles:
    """Returns the files that an experiment folder carries."""
    return SystemFiles(priors=_existing(folder / PRIORS), calibration=_existing(folder / CALIBRATION))


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None
