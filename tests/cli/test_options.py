import click
import pytest
from click.testing import CliRunner

from asrtool.cli import cli
from asrtool.cli.options import NUMBER, POSITIVE, SHARE, Number


def convert(kind, text):
    return kind.convert(text, None, None)


@pytest.mark.parametrize("text", ["nan", "NaN", "inf", "-inf", "infinity", "1e999", "x", "", "1,5"])
@pytest.mark.parametrize("kind", [NUMBER, POSITIVE, SHARE, Number(0, 5)])
def test_what_is_no_finite_number_is_refused(kind, text):
    with pytest.raises(click.BadParameter):
        convert(kind, text)


@pytest.mark.parametrize(
    "kind, good, bad",
    [
        (POSITIVE, ["1e-9", "3"], ["0", "-1"]),
        (SHARE, ["0", "1", "0.5"], ["-0.1", "1.1"]),
        (Number(0, 1, open=True, most_open=True), ["0.5"], ["0", "1"]),
    ],
)
def test_bounds_are_kept(kind, good, bad):
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
def test_no_command_takes_a_number_that_is_not_finite(path, option, value):
    with pytest.raises(click.BadParameter):
        option.type.convert(value, option, None)


@pytest.mark.parametrize("path", [path for path, _ in commands(cli)], ids=" ".join)
def test_every_command_explains_itself(path):
    result = CliRunner().invoke(cli, [*path, "--help"])
    assert result.exit_code == 0 and "Usage" in result.output
