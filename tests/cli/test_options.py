"""The types of options: finite numbers within bounds."""

import click
import pytest

from asrtool.cli import cli
from asrtool.cli.options import NUMBER, POSITIVE, SHARE, Number


def convert(kind, text):
    return kind.convert(text, None, None)


@pytest.mark.parametrize("text", ["nan", "NaN", "inf", "-inf", "infinity", "1e999", "x", "", "1,5"])
@pytest.mark.parametrize("kind", [NUMBER, POSITIVE, SHARE, Number(0, 5)])
def test_values_that_are_not_finite_numbers_are_refused(kind, text):
    with pytest.raises(click.BadParameter):
        convert(kind, text)


@pytest.mark.parametrize(
    "kind, good, bad",
    [
        (POSITIVE, ["1e-9", "3"], ["0", "-1"]),
        (SHARE, ["0", "1", "0.5"], ["-0.1", "1.1"]),
        (Number(0, 1, minimum_open=True, maximum_open=True), ["0.5"], ["0", "1"]),
    ],
)
def test_values_outside_the_bounds_are_refused(kind, good, bad):
    assert [convert(kind, text) for text in good] == [float(text) for text in good]
    for text in bad:
        with pytest.raises(click.BadParameter):
            convert(kind, text)


def commands(group, prefix=()):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*prefix, name))
        else:
            yield (*prefix, name), command


def float_options():
    for path, command in commands(cli):
        for option in command.params:
            if isinstance(option, click.Option) and "float" in option.type.name:
                yield pytest.param(path, option, id=" ".join([*path, option.opts[0]]))


@pytest.mark.parametrize("path, option", float_options())
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_all_options_with_numbers_refuse_values_that_are_not_finite(path, option, value):
    with pytest.raises(click.BadParameter):
        option.type.convert(value, option, None)
