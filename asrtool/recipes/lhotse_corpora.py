"""Corpora that lhotse's own recipes prepare: `--from lhotse:NAME`, and folders of the manifests that these write.

The recipes of lhotse write NAME_recordings_PART.jsonl.gz and NAME_supervisions_PART.jsonl.gz for each part of a corpus.
"""

import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from asrtool.data.corpora import Utterance
from asrtool.data.corpus_detection import utterances_of_cuts
from asrtool.data.lhotse_sets import read_lhotse
from asrtool.errors import UserError, did_you_mean
from asrtool.recipes.command_lines import command_line
from asrtool.recipes.sets import Corpus

logger = logging.getLogger(__name__)

PREFIX = "lhotse:"
RECORDINGS = re.compile(r"(?P<before>.*)recordings(?P<after>.*\.jsonl(\.gz)?)")
SETS = {"dev": r"dev|valid", "test": r"test|eval", "train": r"."}  # names of parts; train is everything else
MANIFESTS = "data/lhotse"  # in the work folder of the recipe


@dataclass(frozen=True)
class ManifestPair:
    """Recordings and supervisions of a part of a corpus; a part of asrtool/recipes/sets.py."""

    recordings: Path
    supervisions: Path
    folder: str | None = None  # of the manifests when the recipe runs, if it is another
    description: str = "manifests of lhotse"

    @property
    def command(self) -> tuple[str, ...]:
        """The words after `asrtool` that read the part in the recipe."""
        folder = self.folder or str(self.recordings.parent)
        recordings, supervisions = (f"{folder}/{path.name}" for path in (self.recordings, self.supervisions))
        return ("prepare", "lhotse", "OUT", "--recordings", recordings, "--supervisions", supervisions)

    def read(self) -> Iterator[Utterance | str]:
        """Yields the utterances of the part."""
        yield from utterances_of_cuts(read_lhotse(None, self.recordings, self.supervisions))


def find_pairs(folder: Path) -> list[ManifestPair]:
    """Returns the pairs of manifests in a folder, sorted by name."""
    pairs = []
    for recordings in sorted(folder.glob("*recordings*.jsonl*")):
        match = RECORDINGS.fullmatch(recordings.name)
        supervisions = folder / f"{match['before']}supervisions{match['after']}" if match else None
        if supervisions and supervisions.is_file():
            pairs.append(ManifestPair(recordings, supervisions))
    return pairs


def sets_of_pairs(pairs: list[ManifestPair]) -> dict[str, list[ManifestPair]]:
    """Returns the parts of each set by their names: {"all": ...} where none is for training only."""
    sets: dict[str, list[ManifestPair]] = {"train": [], "dev": [], "test": []}
    for pair in pairs:
        part = re.sub(r".*recordings", "", pair.recordings.name)
        sets[next(name for name, pattern in SETS.items() if re.search(pattern, part))].append(pair)
    sets = {name: parts for name, parts in sets.items() if parts}
    return sets if "train" in sets and len(sets) > 1 else {"all": pairs}


def lhotse_corpus(name: str, folder: Path | None, scratch: Path) -> Corpus:
    """Returns the corpus that lhotse's recipe `name` prepares from `folder`, which may be new: then it is downloaded.

    The manifests are written to `scratch`. Raises UserError if lhotse has no such recipe, or cannot prepare it.
    """
    _require_recipe(name)
    if folder is None:
        hint = "the folder of the corpus, or where to download it"
        raise UserError(f"--from {PREFIX}{name} needs --download DIR: {hint}")
    folder = folder.absolute()
    if not folder.is_dir() or not any(folder.iterdir()):
        _run(["download", name, str(folder)])
    corpus, pairs = _prepare(name, folder, scratch)
    script = f"""\
# lhotse downloads the corpus if it is not there, and writes manifests of its recordings and transcripts.
if [ ! -d "$corpus" ]; then lhotse download {name} {command_line([str(folder)])}; fi
rm -rf {MANIFESTS}.tmp
lhotse prepare {name} "$corpus" {MANIFESTS}.tmp
rm -rf {MANIFESTS}
mv {MANIFESTS}.tmp {MANIFESTS}"""
    moved = [replace(pair, folder=MANIFESTS) for pair in pairs]
    return Corpus(corpus, sets_of_pairs(moved), script, f"lhotse's corpus {name}")


def _commands(group: str) -> dict[str, Any]:
    """The commands of `lhotse prepare` or `lhotse download` by name."""
    import lhotse.bin.modes  # noqa: F401 (registers the commands)
    from lhotse.bin.modes.cli_base import cli

    return cli.commands[group].commands


def _require_recipe(name: str) -> None:
    """Raises UserError unless lhotse has a recipe that takes one folder and writes manifests to another."""
    recipes = _commands("prepare")
    if name not in recipes:
        raise UserError(f"lhotse has no recipe '{name}' among its {len(recipes)}; {did_you_mean(name, recipes)}")
    parameters = recipes[name].params
    arguments = [parameter.name for parameter in parameters if parameter.param_type_name == "argument"]
    required = [p.opts[0] for p in parameters if p.param_type_name == "option" and p.required]
    if len(arguments) != 2 or required:
        needs = ", ".join([*arguments, *required])
        hint = f"run `lhotse prepare {name}` yourself, and give --from the folder of the manifests"
        raise UserError(f"lhotse's recipe {name} needs more than a folder ({needs}); {hint}")


def _prepare(name: str, folder: Path, scratch: Path) -> tuple[Path, list[ManifestPair]]:
    """Returns the folder of the corpus, `folder` or its only subfolder, and the manifests that lhotse writes of it."""
    subfolders = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    candidates = [*subfolders, folder] if len(subfolders) == 1 else [folder]
    problems = []
    for candidate in candidates:
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            _run(["prepare", name, str(candidate), str(scratch)])
        except UserError as problem:
            problems.append(str(problem))
            continue
        if pairs := find_pairs(scratch):
            return candidate, pairs
        problems.append(f"lhotse wrote no recordings and supervisions of {candidate}")
    raise UserError(problems[0])


def _run(arguments: list[str]) -> None:
    """Runs `lhotse ARGUMENT...`, whose progress is shown. Raises UserError with its last line if it fails."""
    logger.info(f"lhotse {' '.join(arguments)}")
    command = [sys.executable, "-c", "from lhotse.bin.lhotse import cli; cli()", *arguments]
    result = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"`lhotse {' '.join(arguments)}` failed: {last[:500]}")
