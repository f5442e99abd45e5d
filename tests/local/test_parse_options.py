"""The options of a recipe."""

import pytest

SCRIPT = """#!/usr/bin/env bash
# What this recipe does.
#
#   --my-option TEXT   something

# not this
set -euo pipefail
cd "$(dirname "$0")"
my_option=default seed=1 hidden=safe
options="my_option seed"
. ../../local/parse_options.sh
echo "my_option=$my_option seed=$seed hidden=$hidden"
"""


@pytest.mark.parametrize(
    "options, printed",
    [
        ([], "my_option=default seed=1 hidden=safe"),
        (["--my-option", "a b", "--seed", "7"], "my_option=a b seed=7 hidden=safe"),
        (["--my_option", "x"], "my_option=x seed=1 hidden=safe"),
        (["--my-option", ""], "my_option= seed=1 hidden=safe"),
        (["--my-option", "-1"], "my_option=-1 seed=1 hidden=safe"),
        (["--my-option", "$(false) `x` \\n %s"], "my_option=$(false) `x` \\n %s seed=1 hidden=safe"),
        (["--seed", "1", "--seed", "2"], "my_option=default seed=2 hidden=safe"),
    ],
)
def test_options_set_the_variables_of_their_names(bash, options, printed):
    done = bash(SCRIPT, *options)
    assert (done.returncode, done.stdout, done.stderr) == (0, printed + "\n", "")


@pytest.mark.parametrize(
    "options, complaint",
    [
        (["--hidden", "x"], "unknown option --hidden; the options are --my-option --seed --help"),
        (["--my", "x"], "unknown option --my;"),
        (["--seed"], "--seed needs a value"),
        (["7"], "unexpected argument '7'"),
        (["--my-option", "a", "b"], "unexpected argument 'b'"),
    ],
)
def test_wrong_options_are_one_line_and_status_2(bash, options, complaint):
    done = bash(SCRIPT, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr and done.stderr.count("\n") == 1 and "run.sh: error: " in done.stderr


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_is_the_comment_at_the_head_of_the_script(bash, option):
    done = bash(SCRIPT, "--seed", "2", option)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("What this recipe does.\n\n  --my-option TEXT   something\n")
    assert "set -euo" not in done.stdout and "#" not in done.stdout


def test_the_script_keeps_its_name_in_an_error(bash, tmp_path):
    done = bash(SCRIPT, "--un_known", "x")
    assert done.stderr.startswith(f"{tmp_path}/egs/mine/run.sh: error: unknown option --un_known")


LOCATING = """#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "$0")"
path=$PWD/default
options=path
. ../../local/parse_options.sh
located "$path"
"""


@pytest.mark.parametrize(
    "path, expected",
    [
        ("here.txt", "{caller}/here.txt"),
        ("both.txt", "{caller}/both.txt"),
        ("recipe.txt", "{recipe}/recipe.txt"),
        ("new/folder", "{caller}/new/folder"),
        ("../up", "{above}/up"),
        ("/no/such", "/no/such"),
        ("a b.txt", "{caller}/a b.txt"),
        (None, "{recipe}/default"),
    ],
)
def test_a_path_counts_from_where_the_recipe_is_called_or_else_from_the_recipe(bash, tmp_path, path, expected):
    caller = tmp_path / "somewhere"
    caller.mkdir()
    recipe = tmp_path / "egs/mine"
    for folder, names in [(caller, ["here.txt", "both.txt", "a b.txt"]), (recipe, ["recipe.txt", "both.txt"])]:
        for name in names:
            (folder / name).touch()
    done = bash(LOCATING, *(["--path", path] if path else []), cwd=caller)
    found = expected.format(caller=caller, recipe=recipe, above=caller.parent)
    assert (done.returncode, done.stdout, done.stderr) == (0, found + "\n", "")
