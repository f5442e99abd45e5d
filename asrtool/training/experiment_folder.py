"""The experiment folder of a training: checks before it is written to, and the scan of the manifests."""

import logging
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from asrtool.checkpoint import meta_model, step_checkpoints
from asrtool.config import Config
from asrtool.config_data import DataConfig
from asrtool.config_file import differences, is_saved_config, load_config, save_config
from asrtool.data.exclusion import read_exclusions
from asrtool.data.inspection import CutRequirements, Inspection, inspect_cuts
from asrtool.data.mixing import CorpusSize, corpus_names, corpus_shares, measure_corpus
from asrtool.data.speaker_transforms import HINT
from asrtool.errors import UserError, require_file, summarise_problems
from asrtool.files import TEMPORARY, file_hash, write_text
from asrtool.locks import LOCK
from asrtool.logs import printable
from asrtool.pack_manifest import is_pack
from asrtool.system_files import PRIORS, UNIT_COUNTS
from asrtool.text.outputs import outputs_of
from asrtool.text.tokenizer import Tokenizer, load_tokenizer, same_units, save_tokenizer
from asrtool.training.trackers import require_trackers

logger = logging.getLogger(__name__)

TRANSFORMS_HASH = "speaker_transforms.sha256"  # file in the experiment: the hash of the speaker transforms
MAX_NAMED_IDS = 5  # of an exclusion list, in a warning

# Settings that may differ when a training is resumed: none of them changes the steps already taken.
CHANGEABLE_SETTINGS = {
    "data.workers",
    "parallel.timeout",
    "training.average",
    "training.compile",
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
    """The ids of the cuts of each set that are not used, and the result of the scan of the training set."""

    train: frozenset[str] = frozenset()
    dev: Mapping[str, frozenset[str]] = MappingProxyType({})  # by the names of the dev sets
    longest_seconds: float = 0.0  # of the cuts that are trained on
    sizes: tuple[CorpusSize, ...] | None = None  # of each training corpus, where several are mixed


def require_experiment_folder(experiment: Path) -> None:
    """Raises UserError unless training may write into the folder: it is new, empty, or an experiment already.

    A folder with other experiments, such as a warmup's, and the logs of other ranks counts as empty.
    """
    config_file = experiment / "config.yaml"
    if not experiment.exists():
        return
    if not experiment.is_dir():
        raise UserError(f"{experiment} is a file; an experiment is a folder: give another --exp")
    if is_pack(experiment):
        raise UserError(f"{experiment} is a pack, which a training would overwrite; give another --exp")
    entries = list(experiment.iterdir())  # before config.yaml is looked for: another training may begin in the meantime
    if config_file.is_file():
        if not holds_training(experiment) and not is_saved_config(config_file):
            raise UserError(f"{config_file} was not written by `asrtool train`; give another --exp")
        return
    for entry in entries:
        is_ours = entry.name in (LOCK, "logs") or entry.name.startswith(TEMPORARY)
        if not (is_ours or (entry / "config.yaml").is_file()):
            other = f"{experiment} is not an experiment, and has other files ({printable(entry.name)})"
            raise UserError(f"{other}; give another --exp")


def holds_training(experiment: Path) -> bool:
    """Returns True if a folder has checkpoints or final weights of a training."""
    return bool(_checkpoint_names(experiment))


def _checkpoint_names(experiment: Path) -> list[str]:
    names = [path.name for path in (experiment / "checkpoints").glob("*.pt")]
    return sorted(name for name in names if not name.startswith(TEMPORARY))


def check_experiment(config: Config, experiment: Path, resume: bool) -> Tokenizer:
    """Returns the tokenizer of the training, and writes nothing.

    In a folder with step checkpoints the configuration must be the same, but for CHANGEABLE_SETTINGS, and so must the
    units and speaker transforms. Raises UserError, also for a training whose step checkpoints are gone, without
    `resume` for any training, and for a model that is too large.
    """
    require_trackers(config.training.trackers)
    if not holds_training(experiment):
        tokenizer = load_tokenizer(config.data.tokenizer)
        outputs = outputs_of(config, tokenizer)
        meta_model(config.model, config.features.num_bins, outputs)  # refuses a model that is too large
        if config.data.speaker_transforms:
            require_file(config.data.speaker_transforms, "file of speaker transforms", HINT)
        return tokenizer
    if not step_checkpoints(experiment / "checkpoints"):
        training = f"a training ({', '.join(_checkpoint_names(experiment))}), whose step checkpoints are gone"
        raise UserError(f"{experiment} already holds {training}; give another --exp")
    if not resume:
        raise UserError(f"{experiment} already holds a training; give --resume to continue it, or another --exp")
    changes = differences(load_config(experiment / "config.yaml"), config)
    refused = [change for change in changes if change.split(":")[0] not in CHANGEABLE_SETTINGS]
    if refused:
        raise UserError(f"{experiment} was started with other settings ({'; '.join(refused)}); give another --exp")
    tokenizer = load_tokenizer(experiment / "tokenizer.json")
    _require_same_inputs(config.data, tokenizer, experiment)
    return tokenizer


def prepare_experiment(config: Config, experiment: Path, resume: bool) -> Tokenizer:
    """Creates or checks the folder, and returns the tokenizer of the training. Raises UserError as `check_experiment`.

    Configuration and tokenizer are copied into a new folder, the configuration first: its config.yaml makes the folder
    an experiment, for a training that looks at it now and for one that comes after this process was killed. In a folder
    without checkpoints, counts over the data of an earlier start are deleted, since data and settings may be others
    now. A folder with checkpoints does not change before all that they need was checked.
    """
    tokenizer = check_experiment(config, experiment, resume)
    if holds_training(experiment):
        return tokenizer
    save_config(config, experiment / "config.yaml")
    save_tokenizer(tokenizer, experiment / "tokenizer.json")
    for name in (PRIORS, UNIT_COUNTS, TRANSFORMS_HASH):
        (experiment / name).unlink(missing_ok=True)
    if config.data.speaker_transforms:
        write_text(experiment / TRANSFORMS_HASH, f"{file_hash(config.data.speaker_transforms)}\n")
    return tokenizer


def _require_same_inputs(data: DataConfig, tokenizer: Tokenizer, experiment: Path) -> None:
    """Raises UserError if the tokenizer or the speaker transforms of the configuration have changed since the start.

    A file that does not exist any more does not count.
    """
    hint = "give another --exp (in recipes, a --tag)"
    if data.tokenizer.is_file() and not same_units(tokenizer, load_tokenizer(data.tokenizer)):
        raise UserError(f"{experiment} was started with other units than {data.tokenizer} has; {hint}")
    transforms, started = data.speaker_transforms, experiment / TRANSFORMS_HASH
    if not transforms or not transforms.is_file() or not started.is_file():
        return
    if started.read_text(encoding="utf-8", errors="replace").strip() != file_hash(transforms):
        raise UserError(f"{experiment} was started with other speaker transforms than {transforms} has; {hint}")


def scan_manifests(data: DataConfig, requirements: CutRequirements, experiment: Path) -> DroppedCuts:
    """Scans all manifests before training; returns the cuts to leave out, which are also listed in `dropped.txt`.

    Raises DataError with all cuts of a manifest that must be corrected.
    """
    excluded = read_exclusions(data.exclusion_lists)
    corpora = dict(zip(_corpus_names(data), data.train_manifests, strict=True))
    train = {name: _scan(name, path, requirements, excluded) for name, path in corpora.items()}
    dev = {name: _scan(name, path, requirements, excluded) for name, path in data.dev_sets.items()}
    _warn_of_unknown(excluded, [*train.values(), *dev.values()])
    lines = [line for name, inspection in [*train.items(), *dev.items()] for line in _drop_lines(name, inspection)]
    for line in summarise_problems(lines):
        logger.info(f"  dropped from {line}")
    write_text(experiment / "dropped.txt", "".join(f"{line}\n" for line in lines))
    dropped = frozenset(excluded).union(*(inspection.dropped for inspection in train.values()))
    return DroppedCuts(
        train=dropped,
        dev={name: frozenset(excluded) | frozenset(inspection.dropped) for name, inspection in dev.items()},
        longest_seconds=max(inspection.longest_seconds for inspection in train.values()),
        sizes=_measure_mixture(data, list(train.values()), dropped) if isinstance(data.train, tuple) else None,
    )


def _corpus_names(data: DataConfig) -> list[str]:
    return corpus_names(data.train_manifests) if isinstance(data.train, tuple) else ["train"]


def _scan(name: str, path: Path, requirements: CutRequirements, excluded: Mapping[str, str]) -> Inspection:
    inspection = inspect_cuts(path, requirements, excluded)
    logger.info(f"{name}: {inspection}")
    return inspection


def _drop_lines(name: str, inspection: Inspection) -> list[str]:
    return [f"{name} {printable(cut)}: {reason}" for cut, reason in inspection.dropped.items()]


def _warn_of_unknown(excluded: Mapping[str, str], inspections: list[Inspection]) -> None:
    """Warns of ids in exclusion lists that no manifest has, unless one was too long to be scanned completely."""
    unknown = set(excluded).difference(*(inspection.dropped for inspection in inspections))
    if unknown and not any(inspection.partial for inspection in inspections):
        named = ", ".join(sorted(unknown)[:MAX_NAMED_IDS]) + (" ..." if len(unknown) > MAX_NAMED_IDS else "")
        logger.warning(f"data.exclude: {len(unknown)} of {len(excluded)} ids are in no manifest: {printable(named)}")


def _measure_mixture(data: DataConfig, scans: list[Inspection], dropped: frozenset[str]) -> tuple[CorpusSize, ...]:
    """Returns the size of each corpus, and logs its share."""
    sizes = tuple(_measure(path, data, scan, dropped) for path, scan in zip(data.train_manifests, scans, strict=True))
    hours = sum(size.seconds for size in sizes) / 3600
    rows = zip(corpus_names(data.train_manifests), sizes, corpus_shares(data, sizes), strict=True)
    for name, size, share in rows:
        passes = share * hours / (size.seconds / 3600)
        logger.info(f"{name}: {share:.1%} of the audio, read {passes:.2f} times in an epoch of {hours:.2f} h")
    return sizes


def _measure(path: Path, data: DataConfig, scan: Inspection, dropped: frozenset[str]) -> CorpusSize:
    """Returns the size of a corpus, which is read again if it was scanned in part, or if other corpora drop cuts.

    A cut whose id is that of a cut that another corpus drops is left out, too.
    """
    size = CorpusSize(scan.cuts, scan.seconds)
    if not scan.partial and dropped <= scan.dropped.keys():
        return size
    measured = measure_corpus(path, data, dropped)
    if not scan.partial and measured.cuts < size.cuts:
        count = size.cuts - measured.cuts
        logger.warning(f"{path}: {count} cuts have the ids of cuts that another corpus drops, and are left out, too")
    return measured
