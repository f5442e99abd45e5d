"""The files besides the acoustic model that a trained system carries for recognition: graph, language models, weights.

    EXP/priors.json         of objective ce
    EXP/calibration.json    of `asrtool calibrate`

A pack (asrtool/pack_manifest.py) can carry all of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asrtool.errors import UserError
from asrtool.files import file_hash

PRIORS = "priors.json"
UNIT_COUNTS = "unit_ngram.json"  # of objective mmi: for adaptation, not for recognition
CALIBRATION = "calibration.json"


@dataclass(frozen=True)
class SystemFiles:
    """The paths of what a system carries, None where it carries none; `graph` is a folder of `asrtool graph`.

    default_method: the search that the system was packed for, None if it was not packed. options: the default options
    of each search method, by the names of asrtool/decoding/options.py. unverified: the sha256 of large files of a pack,
    which are compared only before they are read (`require_intact`).
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
    unverified: Mapping[Path, str] = field(default_factory=dict)

    def require_intact(self, path: Path) -> None:
        """Raises UserError if `path` is a large file of the pack, and not the one that was packed."""
        if path in self.unverified:
            require_sha256(path, self.unverified[path])

    def verified(self, name: str) -> Path | None:
        """Returns the path of what is carried under the name of a field, once `require_intact` has passed."""
        path: Path | None = getattr(self, name)
        if path:
            self.require_intact(path)
        return path


def require_sha256(path: Path, sha256: str) -> None:
    """Raises UserError unless a file of a pack has this sha256."""
    if file_hash(path) != sha256:
        problem = f"{path} is damaged, or not the file that was packed (its sha256 is another)"
        raise UserError(f"{problem}; copy the whole pack again, or write it again with `asrtool pack`")


def experiment_files(folder: Path) -> SystemFiles:
    """Returns the files that an experiment folder carries."""
    return SystemFiles(priors=_existing(folder / PRIORS), calibration=_existing(folder / CALIBRATION))


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None
