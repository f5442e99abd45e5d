"""Reading and writing configurations: YAML files, their bases, overrides, and what is wrong with them.

A YAML file names what differs from the defaults in asrtool/config.py, or from the files that its `base` names, whose
paths are relative to it. `--set training.lr=1e-3` changes single values. Unknown keys are refused with the nearest
valid name, impossible combinations with the reason. Training writes the resolved configuration to
`exp/NAME/config.yaml`, the only configuration that decoding reads.
"""

import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from asrtool.config import Config
from asrtool.errors import UserError, did_you_mean, require_file
from asrtool.files import write_text
from asrtool.yaml_reader import InvalidYaml, dump_yaml, parse_yaml, read_yaml

HINT = "give a YAML file, e.g. one of egs/*/conf/"
MAX_FILES = 100  # files that a configuration may be built from; the recipes use up to 5
MAX_KEY_DEPTH = 10  # parts of a key in an override; sections are nested 3 deep
MAX_ERRORS_SHOWN = 10
MAX_KEY_SHOWN = 80  # characters of an unknown key in an error line
MAX_OVERRIDE_SHOWN = 200  # characters

_short = reprlib.Repr()  # shows values in error lines
_short.maxlevel = 2
_short.maxlist = _short.maxtuple = _short.maxdict = 4
_short.maxstring = _short.maxother = 60


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Returns the configuration in the YAML file `path`, with `overrides` ("training.lr=1e-3") applied.

    Raises UserError for a file that is not YAML, an unknown key, a value of the wrong type or an impossible
    combination.
    """
    tree = _read_tree(Path(path), (), {})
    for override in overrides:
        tree = _apply_override(tree, override)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        place = f"{path} with --set" if overrides else path
        raise UserError(f"{place}: {_explain(error)}") from error


def config_files(path: str | Path) -> list[Path]:
    """Returns the absolute paths of the files that a configuration consists of, each once: its bases, and itself.

    Raises UserError for a file that is missing or not YAML, and for a configuration that is its own base.
    """
    trees: dict[Path, dict] = {}
    _read_tree(Path(path), (), trees)
    return list(trees)


def _read_tree(path: Path, parents: tuple[Path, ...], trees: dict[Path, dict]) -> dict:
    """Returns the keys and values of a YAML file, merged over those of its bases; later bases override earlier ones.

    `parents` are the files whose bases led here. `trees` holds the tree of every file that was read, so that each is
    read once.
    """
    resolved = require_file(path, "configuration", HINT).resolve()
    if resolved in trees:
        return trees[resolved]
    if resolved in parents:
        chain = " -> ".join(parent.name for parent in (*parents, resolved))
        raise UserError(f"{resolved} is its own base: {chain}")
    if len(trees) + len(parents) >= MAX_FILES:
        raise UserError(f"{resolved}: more than {MAX_FILES} files by `base`; put them into fewer")
    tree = read_yaml(path, "configuration", HINT)
    if tree is None:  # an empty file
        tree = {}
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected keys and values, found {type(tree).__name__}; {HINT}")
    merged: dict = {}
    for base in _base_names(tree.pop("base", []), path):
        merged = merge(merged, _read_tree(resolved.parent / base, (*parents, resolved), trees))
    trees[resolved] = merge(merged, tree)
    return trees[resolved]


def _base_names(value: Any, path: Path) -> list[str]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise UserError(f"{path}: base = {_short.repr(value)}: expected the name of a file, or a list of names")
    return names


def merge(below: dict, above: dict) -> dict:
    """Returns a tree with the values of `above`, and where it has none, those of `below`; sections are merged."""
    merged = dict(below)
    for key, value in above.items():
        is_section = isinstance(value, dict) and isinstance(below.get(key), dict)
        merged[key] = merge(below[key], value) if is_section else value
    return merged


def _apply_override(tree: dict, override: str) -> dict:
    key, sign, text = override.partition("=")
    shown = " ".join(override.split())[:MAX_OVERRIDE_SHOWN]
    if not sign or not key:
        raise UserError(f"--set {shown}: expected KEY=VALUE, e.g. --set training.lr=1e-3")
    try:
        value = parse_yaml(text)
    except InvalidYaml as error:
        raise UserError(f"--set {shown}: the value is not YAML: {error}") from error
    return _with_value(tree, key.split(".", maxsplit=MAX_KEY_DEPTH), value)


def _with_value(tree: dict, keys: list[str], value: Any) -> dict:
    """Returns a copy of `tree` in which the path `keys` leads to `value`."""
    first, *rest = keys
    if not rest:
        return tree | {first: value}
    section = tree.get(first)
    return tree | {first: _with_value(section if isinstance(section, dict) else {}, rest, value)}


def save_config(config: Config, path: str | Path) -> None:
    """Write the whole configuration, defaults included, as YAML."""
    write_text(path, dump_yaml(config.model_dump(mode="json")))


def is_saved_config(path: Path) -> bool:
    """Returns True if a file has the form that `save_config` writes, and was not written by hand."""
    try:
        text = path.read_bytes().decode("utf-8")
        return text == dump_yaml(load_config(path).model_dump(mode="json"))
    except (UserError, UnicodeDecodeError):
        return False


def differences(old: Config, new: Config) -> list[str]:
    """Returns the keys whose values differ, as "training.lr: 0.001 -> 0.002"."""
    before = flatten(old.model_dump(mode="json"))
    after = flatten(new.model_dump(mode="json"))
    keys = dict.fromkeys([*after, *before])
    return [f"{key}: {before.get(key)} -> {after.get(key)}" for key in keys if before.get(key) != after.get(key)]


def flatten(tree: Mapping, prefix: str = "") -> dict[str, Any]:
    """Returns the values by their keys with the sections before them, such as "training.lr"."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _explain(error: ValidationError) -> str:
    """Returns the errors in one line, one per key; unknown keys with the nearest valid name."""
    lines: dict[str, str] = {}
    for details in error.errors(include_url=False):
        keys = _keys(details["loc"])
        lines.setdefault(".".join(keys), _explain_one(details, keys))
    shown = list(lines.values())[:MAX_ERRORS_SHOWN]
    if len(lines) > MAX_ERRORS_SHOWN:
        shown.append(f"and {len(lines) - MAX_ERRORS_SHOWN} more")
    return " ".join("; ".join(shown).split())


def _keys(location: tuple[int | str, ...]) -> list[str]:
    """Returns the keys that lead to a value. Pydantic's location goes on with list indices and tried types.

    A number in a list of sections counts as a key: data.train.0.weight.
    """
    keys: list[str] = []
    section: type[BaseModel] | None = Config
    for part in location:
        if section is None:
            break
        keys.append(str(part))
        if not isinstance(part, int):
            section = _subsection(section, part)
    return keys


def _explain_one(details: Mapping[str, Any], keys: list[str]) -> str:
    name = ".".join(keys)[:MAX_KEY_SHOWN]
    if details["type"] == "extra_forbidden":
        return f"unknown key '{name}' ({did_you_mean(keys[-1][:MAX_KEY_SHOWN], _valid_keys(keys[:-1]))})"
    message = details["msg"].removeprefix("Value error, ").removesuffix(" for <class 'pathlib.Path'>")
    if details["type"] == "value_error" and not isinstance(details["input"], str):
        return f"{name}: {message}" if name else message
    return f"{name} = {_short.repr(details['input'])}: {message[0].lower()}{message[1:]}"


def _valid_keys(keys: list[str]) -> list[str]:
    """Returns the keys of the section to which `keys` lead."""
    section: type[BaseModel] = Config
    for key in keys:
        if key.isdigit():  # the number of a section in a list
            continue
        subsection = _subsection(section, key)
        assert subsection is not None, f"{key} is not a section"
        section = subsection
    return list(section.model_fields)


def _subsection(section: type[BaseModel], key: str) -> type[BaseModel] | None:
    """Returns the type of the section under `key`; None if `key` is unknown or holds a plain value."""
    if key not in section.model_fields:
        return None
    return _section_in(section.model_fields[key].annotation)


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """Returns the section that a type consists of or has among its options or items: `X | None`, `tuple[X, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section_in, get_args(annotation))), None)
