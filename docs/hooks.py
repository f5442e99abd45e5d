"""The pages of the documentation that are written from the code when the site is built.

configuration.md comes from asrtool/config.py and config_data.py: every key with its type, its default and its comment.
cli.md comes from click: every command with its usage, its help, its arguments and its options.
"""

import ast
import inspect
import math
import re
import tokenize
import types
from collections.abc import Iterator
from io import StringIO
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
from mkdocs.structure.files import File
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from asrtool import config as configuration
from asrtool import config_data
from asrtool.cli import cli

EXTRA = re.compile(r"\s*\[([^\[\]]*(?:\[[^\]]*\][^\[\]]*)*)\]$")  # what click adds to a help text
BASIC = {int: "integer", float: "number", bool: "true or false", str: "text"}
VALUES = {"INTEGER RANGE": "integer", "INTEGER": "integer", "FLOAT": "number", "TEXT": "text", "PATH": "path"}
LIMITS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}

CONFIGURATION = """# Configuration

A configuration is a YAML file that names only the values that differ from the defaults below. `base: other.yaml` (or a
list of files) takes over the values of other files, relative to the file that names them; `--set training.lr=1e-3`
changes single values on the command line. Training writes the resolved configuration to `EXP/config.yaml`, and
everything after training reads only this file.

The values follow YAML 1.2: `true` and `false` are the only booleans, and `1:30` and `010` are text. Numbers are finite,
and sizes have upper bounds, so that a wrong configuration is refused before it fills the memory. Unknown keys are
refused with the nearest valid name, and impossible combinations with the reason.

This page is generated from `asrtool/config.py` and `asrtool/config_data.py`.
"""

COMMANDS = """# Commands

`asrtool COMMAND --help` prints the same text. `python3 -m asrtool` and, in several processes, `torchrun -m asrtool` are
the same program. The exit statuses are listed under [Files and exit statuses](experiment.md#exit-statuses).

This page is generated from the command line itself.
"""


def on_files(files: Any, config: Any) -> Any:
    """Adds the generated pages; mkdocs calls this with the files of docs/."""
    for name, text in (("configuration.md", configuration_page()), ("cli.md", cli_page())):
        files.append(File.generated(config, name, content=text))
    return files


# configuration.md


def configuration_page() -> str:
    """The page of all keys, one table a section."""
    comments = read_comments(inspect.getsource(configuration)) | read_comments(inspect.getsource(config_data))
    lines = [CONFIGURATION]
    plain = list(sections(configuration.Config, ""))
    listed = list(listed_sections(configuration.Config, ""))
    for path, section in [*plain, *listed]:
        lines += ["", f"## {path or 'Top level'}", "", first_paragraph(section.__doc__ or ""), ""]
        lines += ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
        for name, field in section.model_fields.items():
            key = f"{path}.{name}".lstrip(".")
            if section_of(field) is not None:
                lines.append(f"| `{key}` | section | | see [{key}](#{anchor(key)}) |")
            else:
                meaning = escape(comments.get((section.__name__, name), ""))
                lines.append(f"| `{key}` | {escape(type_text(field))} | `{default_text(field.default)}` | {meaning} |")
    return "\n".join(lines) + "\n"


def sections(section: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """Every section with the path that leads to it, in the order of the file."""
    yield path, section
    for name, field in section.model_fields.items():
        below = section_of(field)
        if below is not None:
            yield from sections(below, f"{path}.{name}".lstrip("."))


def listed_sections(section: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """The sections that may stand in a list, each with the key of the list and the place of a section in it."""
    for name, field in section.model_fields.items():
        key = f"{path}.{name}".lstrip(".")
        below = section_of(field)
        if below is not None:
            yield from listed_sections(below, key)
        elif (item := item_section(field.annotation)) is not None:
            yield f"{key}.N", item


def item_section(annotation: Any) -> type[BaseModel] | None:
    """The section of the items of a list within a type, or None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(item_section, get_args(annotation))), None)


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The section that a field holds, or None where it holds a value."""
    options = (field.annotation, *get_args(field.annotation))
    return next((option for option in options if isinstance(option, type) and issubclass(option, BaseModel)), None)


def read_comments(source: str) -> dict[tuple[str, str], str]:
    """The comment of each field of each class: the lines directly above it and what stands behind it."""
    comments: dict[int, str] = {}
    alone: set[int] = set()
    for token in tokenize.generate_tokens(StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments[token.start[0]] = token.string.lstrip("# ").strip()
            if not token.line[: token.start[1]].strip():
                alone.add(token.start[0])
    texts = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            for item in node.body:
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                    first = item.lineno
                    while first - 1 in alone:
                        first -= 1
                    parts = [
                        comments[line] for line in range(first, (item.end_lineno or first) + 1) if line in comments
                    ]
                    texts[node.name, item.target.id] = " ".join(parts)
    return texts


def type_text(field: FieldInfo) -> str:
    """The type of a field and its limits, in words."""
    return describe(field.annotation, field.metadata)


def describe(annotation: Any, metadata: Any = ()) -> str:
    """A type in words: `one of a, b`, `integer, at least 1`, `list of numbers` ..."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        return describe(inner, [*more, *metadata])
    if origin is Literal:
        return "one of " + ", ".join(f"`{value}`" for value in get_args(annotation))
    if origin in (Union, types.UnionType):
        parts = [describe(option) for option in get_args(annotation) if option is not type(None)]
        return " or ".join(parts) + (" or null" if type(None) in get_args(annotation) else "")
    if origin is tuple:
        items = [item for item in get_args(annotation) if item is not Ellipsis]
        count = "list" if Ellipsis in get_args(annotation) else f"list of {len(items)}"
        return f"{count} ({describe(items[0])})"
    if origin is dict:
        return f"names with a value each ({describe(get_args(annotation)[1])})"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    name = BASIC.get(annotation, "path")
    return ", ".join([name, *limits(metadata)])


def limits(metadata: Any) -> Iterator[str]:
    """The bounds among the metadata of a type."""
    bounds: dict[str, float] = {}
    for item in metadata:
        for bound in getattr(item, "metadata", None) or [item]:  # pydantic's Field holds them in a list
            bounds |= {key: getattr(bound, key) for key in LIMITS if getattr(bound, key, None) is not None}
    if bounds.get("gt", -1) >= bounds.get("ge", math.inf):
        del bounds["ge"]
    for key, value in bounds.items():
        yield f"{LIMITS[key]} {value:,.0f}" if value == int(value) else f"{LIMITS[key]} {value:g}"


def default_text(value: Any) -> str:
    """A default as YAML has it."""
    if value is PydanticUndefined:
        return "required"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"[{', '.join(map(default_text, value))}]" if isinstance(value, tuple) else str(value)


# cli.md


def cli_page() -> str:
    """The page of all commands."""
    lines = [COMMANDS]
    for context in commands(cli, click.Context(cli, info_name="asrtool", **cli.context_settings)):
        lines += command_lines(context)
    return "\n".join(lines) + "\n"


def commands(command: click.Command, context: click.Context) -> Iterator[click.Context]:
    """The context of a command and, below it, of each of its commands."""
    yield context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                settings = {"info_name": name, "parent": context, **below.context_settings}
                yield from commands(below, click.Context(below, **settings))


def command_lines(context: click.Context) -> list[str]:
    """The section of one command."""
    command = context.command
    usage = " ".join(command.collect_usage_pieces(context))
    lines = ["", f"## {context.command_path}", "", "```text", f"{context.command_path} {usage}", "```", ""]
    lines += help_lines(command.help or "")
    options = [record for record in option_records(command, context)]
    if options:
        lines += ["", "| option | values | default | meaning |", "| --- | --- | --- | --- |", *options]
    if isinstance(command, click.Group):
        lines += [
            "",
            "Commands: "
            + ", ".join(
                f"[{name}](#{anchor(f'{context.command_path} {name}')})" for name in command.list_commands(context)
            ),
        ]
    return lines


def help_lines(text: str) -> list[str]:
    """A help text as Markdown: paragraphs, and its preformatted parts, which begin with a form feed, as blocks."""
    lines: list[str] = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b"):
            lines += ["```text", *paragraph.removeprefix("\b").strip("\n").splitlines(), "```", ""]
        else:
            lines += [" ".join(paragraph.split()).replace("*", r"\*").replace("<", "&lt;").replace("_", r"\_"), ""]
    return lines


def option_records(command: click.Command, context: click.Context) -> Iterator[str]:
    """A table row for each option."""
    for option in command.get_params(context):
        record = option.get_help_record(context) if isinstance(option, click.Option) else None
        if record is None:
            continue
        names, text = record
        extra = EXTRA.search(text)
        facts = re.split(r"; (?![^()]*\))", extra.group(1)) if extra and is_extra(extra.group(1)) else []
        if facts and extra:
            text = text[: extra.start()]
        default = next((fact.removeprefix("default: ") for fact in facts if fact.startswith("default: ")), "")
        flags, values = split_names(names)
        values = ", ".join(filter(None, [value_text(values), *map(range_text, facts)]))
        default = re.sub(r"^\((.*)\)$", r"\1", default)  # where the default depends on something, click has parentheses
        default = f"`{default}`" if default else ""
        yield f"| {flags} | {escape(values)} | {escape(default)} | {escape(text)} |"


def is_extra(text: str) -> bool:
    """Whether a text in brackets is what click adds: a default, a range, or required."""
    return text.startswith("default: ") or text.endswith("required") or re.search(r"[<>]=?x|x[<>]=?", text) is not None


def split_names(names: str) -> tuple[str, str]:
    """`-s, --set KEY=VALUE` as the names, each marked as code, and the values."""
    flags, values = [], ""
    for part in names.split(", "):
        name, _, values = part.partition(" ")
        flags.append(f"`{name}`")
    return ", ".join(flags), values


def value_text(values: str) -> str:
    """What an option takes, in words: `INTEGER RANGE` as integer, `[a|b]` as a, b."""
    if values.startswith("["):
        return ", ".join(f"`{value}`" for value in values.strip("[]").split("|"))
    return VALUES.get(values, values)


def range_text(fact: str) -> str:
    """A range of click in words: `1<=x<=9` as 1 to 9. Empty for a default, which has a column of its own."""
    between = re.fullmatch(r"(\S+)<=x<=(\S+)", fact)
    if between:
        return f"{between[1]} to {between[2]}"
    if fact.startswith("default: "):
        return ""
    return fact.replace("x>=", "at least ").replace("x<=", "at most ")


# both


def first_paragraph(text: str) -> str:
    """The first paragraph of a docstring."""
    return " ".join(inspect.cleandoc(text).split("\n\n")[0].split())


def escape(text: str) -> str:
    """A text as a cell of a Markdown table."""
    return text.replace("|", r"\|").replace("<", "&lt;").replace("\n", " ")


def anchor(heading: str) -> str:
    """The anchor that the toc extension gives a heading."""
    return re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())
