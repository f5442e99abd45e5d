"""The documentation site: it builds without a warning, and the generated pages are complete."""

import importlib.util
import os
import subprocess
import sys
from types import ModuleType

import click
import pytest

from asrtool.cli import cli
from asrtool.config import Config
from tests.docs.pages import ROOT

pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install 'asrtool[docs]'")
pytest.importorskip("material", reason="mkdocs-material is not installed: pip install 'asrtool[docs]'")


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    """docs/hooks.py as a module."""
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site. --strict makes a broken link, a missing anchor and a page outside the navigation an error."""
    out = tmp_path_factory.mktemp("site")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def keys(section=Config, path="") -> list[str]:
    """The path of every value of the configuration."""
    found = []
    for name, field in section.model_fields.items():
        options = (field.annotation, *getattr(field.annotation, "__args__", ()))
        below = next((option for option in options if hasattr(option, "model_fields")), None)
        found += keys(below, f"{path}{name}.") if below else [f"{path}{name}"]
    return found


def all_commands(command=cli, path="asrtool"):
    """The path and the parameters of every command."""
    yield path, command.params
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from all_commands(below, f"{path} {name}")


def test_every_page_is_built(site):
    for page in (ROOT / "docs").glob("*.md"):
        assert (site / f"{page.stem}.html").is_file(), page
    assert not list(site.rglob("*.py"))


def test_nothing_is_loaded_from_other_servers(site):
    for page in site.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        for attribute in ('src="http', "@import url(http", 'rel="stylesheet" href="http', 'rel="preconnect"'):
            assert attribute not in text, f"{page.name} loads something over the network ({attribute})"


def test_the_configuration_page_has_every_key_with_its_comment(hooks):
    page = hooks.configuration_page()
    rows = {line.split("|")[1].strip().strip("`"): line for line in page.splitlines() if line.startswith("| `")}
    assert set(keys()) <= set(rows)
    for key in keys():
        _, _, kind, default, *_ = rows[key].split("|")
        assert kind.strip() and default.strip(), rows[key]
    assert "`bf16`" in rows["training.precision"]


def test_the_page_of_commands_has_every_command_and_option(hooks):
    page = hooks.cli_page()
    for path, parameters in all_commands():
        assert f"\n## {path}\n" in page
        section = page.split(f"\n## {path}\n")[1].split("\n## ")[0]
        for parameter in parameters:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                for name in parameter.opts:
                    assert f"`{name}`" in section, f"{path} {name}"
