"""The folder that a training or a result was made in, also in a copy: commands are repeated there.

Recorded paths of a copy lead to the original, whose files may be intact where the copy is damaged.
"""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asrtool.config import Config


def training_folder(experiment: Path, config: Config | None) -> Path | None:
    """Returns the folder that the manifests of the configuration are relative to, None if unknown or if none is.

    The parents of the experiment are tried, the nearest one first, and then the current folder.
    """
    manifests = relative_manifests(config)
    folders = (*Path(os.path.abspath(experiment)).parents, Path.cwd())
    return next((folder for folder in folders if manifests and all(_exists(folder / path) for path in manifests)), None)


def relative_manifests(config: Config | None) -> list[Path]:
    """Returns the manifests of the training sets whose paths are relative to the folder of the training."""
    return [path for path in config.data.train_manifests if not path.is_absolute()] if config else []


def result_folder(experiment: Path, facts: Mapping[str, Any]) -> Path | None:
    """Returns the folder, in this copy, in which the recorded command of a result was given; None if unknown.

    The command names the experiment by a relative path, which is the end of its path here, too.
    """
    given = Path(experiment_word(facts))
    here = Path(os.path.abspath(experiment))
    if given.is_absolute() or not given.parts or ".." in given.parts or len(given.parts) >= len(here.parts):
        return None
    return here.parents[len(given.parts) - 1] if here.parts[-len(given.parts) :] == given.parts else None


def command_words(facts: Mapping[str, Any]) -> list[str]:
    """Returns the words of the recorded command, none without one or if a quotation has no end."""
    try:
        return shlex.split(facts["command"]) if isinstance(facts.get("command"), str) else []
    except ValueError:
        return []


def experiment_word(facts: Mapping[str, Any]) -> str:
    """Returns the experiment as the recorded command names it, "" without one."""
    words = command_words(facts)
    return words[2] if words[:1] == ["asrtool"] and len(words) > 2 else ""


def own_path(experiment: Path, facts: Mapping[str, Any], name: str) -> str | None:
    """Returns the absolute path of an option of a result, such as "cuts", in the folder of this copy; None without.

    Paths outside of the folder that the result was made in are the same for a copy.
    """
    options = facts.get("options")
    recorded = options.get(name) if isinstance(options, dict) else None
    if not isinstance(recorded, str):
        return None
    original, here = _original_folder(facts), result_folder(experiment, facts)
    if original is None or here is None or not Path(recorded).is_relative_to(original):
        return recorded
    return str(here / Path(recorded).relative_to(original))


def _original_folder(facts: Mapping[str, Any]) -> Path | None:
    """Returns the folder that the command of a result was given in: the manifest is recorded as given and absolute."""
    given, absolute = facts.get("cuts"), facts["options"].get("cuts")
    if not isinstance(given, str) or not isinstance(absolute, str):
        return None
    parts, end = Path(absolute).parts, Path(given).parts
    is_end = 0 < len(end) < len(parts) and parts[-len(end) :] == end
    return Path(*parts[: -len(end)]) if is_end and ".." not in end else None


def _exists(path: Path) -> bool:
    return os.path.exists(path)  # False also for names that no file system allows
