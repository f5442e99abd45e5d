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
def test_a_wrong_option_prints_one_line_and_exits_with_status_2(bash, options, complaint):
    done = bash(SCRIPT, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr and done.stderr.count("\n") == 1 and "run.sh: error: " in done.stderr


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_is_the_comment_at_the_head_of_the_script(bash, option):
    done = bash(SCRIPT, "--seed", "2", option)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("What this recipe does.\n\n  --my-option TEXT   something\n")
    assert "set -euo" not in done.stdout and "#" not in done.stdout


def test_an_error_names_the_script(bash, tmp_path):
    done = bash(SCRIPT, "--un_known", "x")
    assert done.stderr.startswith(f"{tmp_path}/egs/mine/run.sh: error: unknown option --un_known")


ABSOLUTE = """#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "$0")"
path=$PWD/default
options=path
. ../../local/parse_options.sh
absolute_path "$path"
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
def test_a_path_is_relative_to_where_the_recipe_is_called_or_else_to_the_recipe(bash, tmp_path, path, expected):
    caller = tmp_path / "somewhere"
    caller.mkdir()
    recipe = tmp_path / "egs/mine"
    for folder, names in [(caller, ["here.txt", "both.txt", "a b.txt"]), (recipe, ["recipe.txt", "both.txt"])]:
        for name in names:
            (folder / name).touch()
    done = bash(ABSOLUTE, *(["--path", path] if path else []), cwd=caller)
    resolved = expected.format(caller=caller, recipe=recipe, above=caller.parent)
    assert (done.returncode, done.stdout, done.stderr) == (0, resolved + "\n", "")


PATHS = """#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "$0")"
work=$PWD from="" lm=openslr
options="work from lm"
path_options="work from lm"
. ../../local/parse_options.sh
require_choice --lm "$lm" none openslr other
echo "work=$work from=$from lm=$lm"
"""


@pytest.mark.parametrize(
    "options, printed",
    [
        ([], "work={recipe} from= lm=openslr"),
        (["--work", "w", "--from", "none", "--lm", "none"], "work={caller}/w from=none lm=none"),
        (["--from", "exp/a b"], "work={recipe} from={caller}/exp/a b lm=openslr"),
    ],
)
def test_path_options_become_absolute_unless_they_are_empty_or_a_keyword(bash, tmp_path, options, printed):
    done = bash(PATHS, *options)
    resolved = printed.format(caller=tmp_path, recipe=tmp_path / "egs/mine")
    assert (done.returncode, done.stdout, done.stderr) == (0, resolved + "\n", "")


def test_a_value_that_is_not_among_the_choices_prints_them(bash):
    done = bash(PATHS, "--lm", "/srilm")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--lm is none, openslr or other, not '/srilm'" in done.stderr
