"""The folder of a new recipe: its name, its files, and where the driver of all recipes is."""

import os
import re
import shutil
import time
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import asrtool
from asrtool.errors import UserError
from asrtool.files import report_full_disk, temporary_path
from asrtool.recipes.choices import duration
from asrtool.recipes.command_lines import comment, printable, shell_word
from asrtool.recipes.config_text import config_text
from asrtool.recipes.data_script import DataScript
from asrtool.recipes.options_text import options_text
from asrtool.recipes.summary import advice, choice_rows, fact_rows, markdown
from asrtool.text.normalisation import rules_text

if TYPE_CHECKING:
    from asrtool.recipes.create import Recipe

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}")
TEMPLATES = Path(__file__).parent / "templates"
DRIVER = "local/recipe.sh"


def checkout() -> Path:
    """Returns the folder of the checkout of asrtool, which has the driver of the recipes. Raises UserError."""
    root = Path(os.environ.get("ASRTOOL_ROOT") or Path(asrtool.__file__).resolve().parents[1])
    if not (root / DRIVER).is_file():
        hint = "recipes run in a checkout of asrtool; set ASRTOOL_ROOT to its folder"
        raise UserError(f"no {DRIVER} in {root}: {hint}")
    return root


def recipe_folder(name: str, out: Path | None) -> Path:
    """Returns the folder of a new recipe, by default in egs/ of the checkout. Raises UserError if it exists."""
    if not NAME.fullmatch(name):
        raise UserError(f"'{name}' cannot be the name of a recipe; use letters, digits, '.', '_' and '-'")
    folder = (out.absolute() if out else checkout() / "egs") / name
    if folder.exists() or folder.is_symlink():
        raise UserError(f"{folder} exists already; choose another name, or remove it")
    return folder


def write_recipe(recipe: "Recipe") -> None:
    """Writes all files of a recipe, or none."""
    recipe.folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(recipe.folder)
    try:
        with report_full_disk(recipe.folder):
            for name, text in recipe_files(recipe).items():
                path = temporary / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
                if name.endswith(".sh"):
                    path.chmod(0o755)
            os.rename(temporary, recipe.folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def recipe_files(recipe: "Recipe") -> dict[str, str]:
    """Returns the text of each file of a recipe by its name."""
    script = DataScript(
        corpus=recipe.corpus.path,
        commands=recipe.corpus.commands,
        audio=recipe.audio,
        sets=recipe.sets,
        skips_bad=len(recipe.facts.problems),
        before=recipe.corpus.before,
    )
    values = _values(recipe)
    has_dev = "dev" in script.scored_sets
    return {
        "run.sh": _template("run.sh", values),
        "local/data.sh": _template("data.sh", {"head": script.head, "steps": script.text()}),
        "conf/train.yaml": config_text(values["title"], recipe.audio, recipe.training, has_dev),
        "conf/normalise.yaml": rules_text(recipe.normalised.rules),
        "README.md": _template("README.md", values | _readme_values(recipe)),
    }


def _template(name: str, values: dict[str, str]) -> str:
    return Template((TEMPLATES / name).read_text(encoding="utf-8")).substitute(values)


def _values(recipe: "Recipe") -> dict[str, str]:
    """Values of the templates of run.sh and README.md."""
    corpus, folder = recipe.corpus, recipe.folder
    hours = duration(recipe.facts.seconds) if recipe.facts.hours < 1 else f"{recipe.facts.hours:.1f} h"
    title = printable(f"{folder.name}: {corpus.description}, {hours}.")
    return {
        "name": folder.name,
        "title": title,
        "comment": comment(title),
        "call": recipe.call,
        "driver": _driver(folder),
        "corpus": shell_word(str(corpus.path)),
        "data_title": shell_word(f"prepare data: {printable(corpus.description)}"),
        "options": options_text(recipe.audio, recipe.units, recipe.user, recipe.normalised.case, recipe.machine),
    }


def _driver(folder: Path) -> str:
    """The path of the driver in run.sh: relative in the checkout, so that this can be moved."""
    root = checkout()
    if folder.parent == root / "egs":
        return "../../local/recipe.sh"
    return f'"${{ASRTOOL_ROOT:-{root}}}/{DRIVER}"'


def _readme_values(recipe: "Recipe") -> dict[str, str]:
    choices = choice_rows(recipe.audio, recipe.units, recipe.training, recipe.sets, recipe.has_split)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "facts": markdown(fact_rows(recipe.facts, recipe.text, recipe.normalised)),
        "settings": markdown(choices),
        "training_time": duration(recipe.training.hours * 3600),
        "machine": str(recipe.machine),
        "advice": "\n".join(f"- {item}" for item in advice(recipe.facts, recipe.units, recipe.training)),
    }
