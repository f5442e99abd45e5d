"""The commands of README.md and of the documentation: they run, or at least all that they name exists."""

import re
import subprocess
from functools import cache
from pathlib import Path

import click
import pytest

from asrtool.cli import cli
from asrtool.config import Config
from tests.docs.pages import INLINE, OTHERS, PAGES, ROOT, blocks, commands, prose_commands, recipe_options

RUN = [page.name for page in PAGES if any(block.not_run is None for block in blocks(page, ("bash", "python")))]
# Files that a page may name: files of the checkout must exist, other than those that commands write.
PATHS = re.compile(r"^(asrtool|egs|local|tests|tools|docs)/[\w./-]+\.(py|sh|md|yaml|json|sbatch|txt)$")
FILE_SUFFIXES = {
    "py",
    "json",
    "jsonl",
    "md",
    "yaml",
    "onnx",
    "safetensors",
    "sbatch",
}  # of names that begin as a key does, such as data.py
WRITTEN = re.compile(r"/(data|exp|mine)/|^egs/digits/loss|^local/data.sh$")  # the last one is in every recipe's folder


SHELL = ("bash", "")  # languages of blocks of commands; pages outside of docs/ name none
EVERY_PAGE = pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=lambda page: str(page.relative_to(ROOT)))


def parse(arguments: list[str]) -> None:
    """Parses the arguments of asrtool without running anything; click raises for what it does not know."""
    command: click.Command = cli
    context = click.Context(cli, info_name="asrtool", **cli.context_settings)
    while isinstance(command, click.Group):
        options = [word for word in arguments if not word.startswith("-")]
        assert options, f"no command in {arguments}"
        name = options[0]
        below = command.get_command(context, name)
        assert below is not None, f"no command {name!r} in {context.command_path}"
        arguments = arguments[arguments.index(name) + 1 :]
        command, context = below, click.Context(below, info_name=name, parent=context, **below.context_settings)
    command.make_parser(context).parse_args(list(arguments))


@EVERY_PAGE
def test_every_command_and_option_in_a_block_exists(page):
    for block in blocks(page, SHELL):
        for arguments in commands(block.text):
            try:
                parse(arguments)
            except click.ClickException as error:
                pytest.fail(f"{page.name}:{block.line}: asrtool {' '.join(arguments)}: {error.format_message()}")


@EVERY_PAGE
def test_every_command_and_option_in_the_text_exists(page):
    for text in prose_commands(page):
        words = text.split()[1:]
        known, context = cli, click.Context(cli, info_name="asrtool", **cli.context_settings)
        while words and isinstance(known, click.Group) and not words[0].startswith("-") and words[0].islower():
            below = known.get_command(context, words[0])
            assert below is not None, f"{page.name}: `{text}` names no command of asrtool"
            known, words = below, words[1:]
        names = {name for parameter in known.params for name in parameter.opts} | {"--help"}
        unknown = [word for word in words if word.startswith("--") and word.split("=")[0] not in names]
        assert not unknown, f"{page.name}: `{text}` names unknown options {unknown}"


@cache
def help_of(script: Path) -> str:
    """Returns what `--help` of a script prints: its own options, and those of the driver of the recipes."""
    return subprocess.run(["bash", str(script), "--help"], check=True, capture_output=True, text=True).stdout


@EVERY_PAGE
def test_every_option_of_a_recipe_exists(page):
    for block in blocks(page, SHELL):
        for script, option in recipe_options(block.text):
            assert re.search(rf"{option}\b", help_of(script)), (
                f"{page.name}:{block.line}: {script.name} has no {option}"
            )


@EVERY_PAGE
def test_every_configuration_key_exists(page):
    sections = set(Config.model_fields)
    for match in INLINE.finditer(page.read_text(encoding="utf-8")):
        key = match[1].split("=")[0].split(":")[0].strip()
        first, *rest = key.split(".")
        if first in sections and rest and re.fullmatch(r"[\w.]+", key) and rest[-1] not in FILE_SUFFIXES:
            section = Config
            for name in (first, *rest):
                assert name in section.model_fields, f"{page.name}: `{match[1]}` is not a key of the configuration"
                annotation = section.model_fields[name].annotation
                options = (annotation, *getattr(annotation, "__args__", ()))
                section = next((option for option in options if hasattr(option, "model_fields")), None)


@EVERY_PAGE
def test_every_file_of_the_checkout_exists(page):
    for match in INLINE.finditer(page.read_text(encoding="utf-8")):
        for word in match[1].split():
            if PATHS.match(word) and not WRITTEN.search(word):
                here = [Path(ROOT, word), Path(page.parent, word)]
                assert any(path.is_file() for path in here), f"{page} names {word}, which does not exist"


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_the_commands_of_a_page_run(page, run_page):
    pytest.importorskip("espeakng_loader", reason="needs espeak-ng: pip install espeakng-loader")
    run_page(page)
