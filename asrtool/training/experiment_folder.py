"""The experiment folder of a training: checks before it is written to, and the scan of the manifests."""

import logging
from pathlib import Path
from typing import NamedTuple

from asrtool.checkpoint import meta_model, step_checkpoints
from asrtool.config import Config
from asrtool.config_file import differences, is_saved_config, load_config, save_config
from asrtool.data.inspection import CutRequirements, inspect_cuts
from asrtool.errors import UserError, summarise_problems
from asrtool.files import TEMPORARY, write_text
from asrtool.locks import LOCK
from asrtool.logs import printable
from asrtool.text.tokenizer import Tokenizer, load_tokenizer, save_tokenizer
from asrtool.training.trackers import require_trackers

logger = logging.getLogger(__name__)

# Settings that may differ when a training is resumed: none of them changes the steps already taken.
CHANGEABLE_SETTINGS = {
    "data.workers",
    "parallel.timeout",
    "training.average",
    "training.keep_best",
    "training.keep_last",
    "training.log_every",
    "training.log_layers",
    "training.max_steps",
    "training.patience",
    "training.save_every",
    "training.save_minutes",
    "training.trackers",
    "training.validate_every",
}


class DroppedCuts(NamedTuple):
    """The ids of the cuts of each set that are not used; the longest of the cuts that are trained on, in seconds."""

    train: frozenset[str] = frozenset()
    dev: frozenset[str] = frozenset()
    longest_seconds: float = 0.0


def require_experiment_folder(experiment: Path) -> None:
    """Raises UserError unless training may write into the folder: it is new, empty, or an experiment already.

    A folder with other experiments, such as a warmup's, and the logs of other ranks counts as empty.
    """
    config_file = experiment / "config.yaml"
    if not experiment.exists():
        return
    if not experiment.is_dir():
        raise UserError(f"{experiment} is a file; an experiment is a folder: give another --exp")
    if config_file.is_file():
        if not step_checkpoints(experiment / "checkpoints") and not is_saved_config(config_file):
            raise UserError(f"{config_file} was not written by `asrtool train`; give another --exp")
        return
    for entry in experiment.iterdir():
        is_ours = entry.name in (LOCK, "logs") or entry.name.startswith(TEMPORARY)
        if not (is_ours or (entry / "config.yaml").is_file()):
            other = f"{experiment} is not an experiment, and has other files ({printable(entry.name)})"
            raise UserError(f"{other}; give another --exp")


def prepare_experiment(config: Config, experiment: Path, resume: bool) -> Tokenizer:
    """Creates or checks the folder, and returns the tokenizer of the training.

    Configuration and tokenizer are copied into a new folder. In an old one the configuration must be the same, but for
    CHANGEABLE_SETTINGS. Raises UserError.
    """
    require_trackers(config.training.trackers)
    config_file = experiment / "config.yaml"
    if step_checkpoints(experiment / "checkpoints"):
        if not resume:
            raise UserError(f"{experiment} already holds a training; give --resume to continue it, or another --exp")
        changes = differences(load_config(config_file), config)
        refused = [change for change in changes if change.split(":")[0] not in CHANGEABLE_SETTINGS]
        if refused:
            raise UserError(f"{experiment} was started with other settings ({'; '.join(refused)}); give another --exp")
        tokenizer = load_tokenizer(experiment / "tokenizer.json")
    else:
        tokenizer = load_tokenizer(config.data.tokenizer)
        meta_model(config.model, config.features.num_bins, tokenizer.size)  # refuses a model that is too large
        save_tokenizer(tokenizer, experiment / "tokenizer.json")
    save_config(config, config_file)
    return tokenizer


def scan_manifests(train: Path, dev: Path, requirements: CutRequirements, experiment: Path) -> DroppedCuts:
    """Scans both manifests before training; returns the cuts to leave out, which are also listed in `dropped.txt`.

    Raises DataError with all cuts that must be corrected.
    """
    dropped: dict[str, dict[str, str]] = {}
    longest: dict[str, float] = {}
    for name, path in (("train", train), ("dev", dev)):
        inspection = inspect_cuts(path, requirements)
        logger.info(f"{name}: {inspection}")
        dropped[name] = inspection.dropped
        longest[name] = inspection.longest_seconds
    lines = [f"{name} {printable(cut)}: {reason}" for name, cuts in dropped.items() for cut, reason in cuts.items()]
    for line in summarise_problems(lines):
        logger.info(f"  dropped from {line}")
    write_text(experiment / "dropped.txt", "".join(f"{line}\n" for line in lines))
    return DroppedCuts(frozenset(dropped["train"]), frozenset(dropped["dev"]), longest["train"])
