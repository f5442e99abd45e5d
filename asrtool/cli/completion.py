"""What shells complete beyond the names of commands, options and files: the keys of a configuration after --set."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, get_args, get_origin

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from pydantic import BaseModel


def complete_override(_context: click.Context, _option: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Returns the keys that begin with what was typed of KEY=VALUE; after the sign, the values if they are words."""
    from asrtool.config import Config

    key, sign, value = incomplete.partition("=")
    if sign:
        values = dict(_keys(Config, "")).get(key, ())
        return [CompletionItem(f"{key}={name}") for name in values if name.startswith(value)]
    return [CompletionItem(f"{name}=") for name, _ in _keys(Config, "") if name.startswith(key)]


def _keys(section: "type[BaseModel]", path: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yields every key below a section with its valid values, if these are words."""
    for name, field in section.model_fields.items():
        below = _section_of(field.annotation)
        if below is None:
            yield f"{path}{name}", _words(field.annotation)
        else:
            yield from _keys(below, f"{path}{name}.")


def _section_of(annotation: object) -> "type[BaseModel] | None":
    from pydantic import BaseModel

    options = (annotation, *get_args(annotation))
    return next((option for option in options if isinstance(option, type) and issubclass(option, BaseModel)), None)


def _words(annotation: object) -> tuple[str, ...]:
    if annotation is bool:
        return ("true", "false")
    return tuple(map(str, get_args(annotation))) if get_origin(annotation) is Literal else ()
