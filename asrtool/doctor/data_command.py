"""The inputs of `asrtool doctor data`, from options and a configuration, and its exclusion list."""

import logging
from collections.abc import Sequence
from pathlib import Path

from asrtool.config import Config
from asrtool.config_file import load_config
from asrtool.data.exclusion import read_exclusions
from asrtool.data.shards import manifest_files
from asrtool.doctor.data import DataFindings, examine_data
from asrtool.doctor.data_faults import require_own_list, require_unedited, write_exclusions
from asrtool.errors import UserError
from asrtool.files import require_output, require_same_kind
from asrtool.machine import affinity_cores
from asrtool.text.tokenizer import load_tokenizer

logger = logging.getLogger(__name__)

MAX_NAMED_IDS = 5  # in a warning


def check_data(
    cuts: Sequence[Path],
    dev_cuts: Sequence[Path],
    test_cuts: Sequence[Path],
    config_file: Path | None,
    tokenizer_file: Path | None,
    exclude: Path | None,
    ignored: Sequence[str],
    jobs: int | None,
) -> DataFindings:
    """Checks manifests, if `cuts` are empty those that the configuration names, and writes the exclusion list.

    The tokenizer of the configuration is used if its file exists, and the utterances of its data.exclude are left out.
    Raises UserError without any manifest, and for an exclusion list that would replace another file, one that was
    edited, or one of the configuration, whose utterances would be lost.
    """
    config = load_config(config_file) if config_file else None
    if not cuts and config:
        cuts, dev_cuts = _sets_of(config, dev_cuts)
    if not cuts:
        raise UserError("no manifest to check; give CUTS, or --config with data.train")
    if tokenizer_file is None and config and config.data.tokenizer.is_file():
        tokenizer_file = config.data.tokenizer
    if exclude:
        inputs = [file for path in (*cuts, *dev_cuts, *test_cuts) for file in manifest_files(path)]
        require_output(exclude, (), [*inputs, *filter(None, (config_file, tokenizer_file))])
        _require_replaceable(exclude, config)
    tokenizer = load_tokenizer(tokenizer_file) if tokenizer_file else None
    lists = config.data.exclusion_lists if config else ()
    left_out = read_exclusions(path for path in lists if not exclude or path.absolute() != exclude.absolute())
    jobs = jobs or affinity_cores()
    findings = examine_data(cuts, dev_cuts, test_cuts, tokenizer, config, jobs, ignored, left_out)
    if exclude:
        unlisted = write_exclusions(exclude, findings.excluded, cuts)
        logger.info(f"{exclude}: {len(findings.excluded) - len(unlisted)} utterances; add it to data.exclude")
        if unlisted:
            names = ", ".join(map(ascii, unlisted[:MAX_NAMED_IDS]))
            logger.warning(f"{len(unlisted)} ids cannot be written into a list, rename them: {names}")
    return findings


def _require_replaceable(exclude: Path, config: Config | None) -> None:
    """Raises UserError for an existing file that another list would destroy."""
    require_same_kind(exclude, "an exclusion list of `asrtool doctor data`", require_own_list)
    if not exclude.exists() or not exclude.stat().st_size:
        return
    if config and any(path.exists() and path.samefile(exclude) for path in config.data.exclusion_lists):
        hint = "name another file, and add it to data.exclude"
        raise UserError(f"--exclude: {exclude} is a list of the configuration, whose utterances are left out; {hint}")
    require_unedited(exclude)


def _sets_of(config: Config, dev_cuts: Sequence[Path]) -> tuple[Sequence[Path], Sequence[Path]]:
    """Returns the training and development sets of a configuration; `dev_cuts` replace the latter."""
    data = config.data
    return data.train_manifests, dev_cuts or tuple(data.dev_sets.values())
