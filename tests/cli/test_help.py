"""The help of every command and option: phrases with a noun, and defaults that click shows."""

import re

import click
import pytest

from asrtool.cli import CONTEXT_SETTINGS, cli

# Options with a value that stand for something which is left out when they are not given. Any other option has a
# default, which click shows, or declares with `show_default="..."` what happens without it.
OPTIONAL = {
    *("--adapted", "--alignments", "--ctm", "--cuts", "--decoding-weights", "--dev", "--graph", "--graph-lm"),
    *("--hotwords", "--hyps", "--init-from", "--lexicon", "--list", "--lm", "--ngram", "--noise", "--pool"),
    *("--priors", "--recordings", "--licence", "--model", "--train-cuts", "--rescore", "--silence", "--size"),
    *(
        "--config",
        "--exclude",
        "--supervisions",
        "--pcm",
        "--tag",
        "--threshold",
        "--tokenizer",
        "--warmup-hours",
        "--wav",
        "--add-words",
        "--from",
        "--kaldi-alignments",
        "--kaldi-graph",
        "--kaldi-model",
        "--transforms",
    ),
}
QUOTED = re.compile(r"as --[\w-]+ of `[^`]*`|`[^`]*`")
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")


def commands(group, path=()):
    """Yields the path and the object of every command, groups included."""
    yield path, group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


def options():
    """Every option of every command that is not hidden."""
    for path, command in commands(cli):
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                yield pytest.param(command, option, id=" ".join(["asrtool", *path, option.opts[0]]))


@pytest.mark.parametrize("command", [command for _, command in commands(cli)], ids=lambda command: command.name)
def test_the_help_of_a_command_begins_with_a_short_sentence(command):
    first = (command.help or "").strip().splitlines()[0]
    assert first[:1].isupper() and first.endswith(".") and len(first) <= 100, first


@pytest.mark.parametrize("command, option", options())
def test_the_help_of_an_option_is_a_phrase(command, option):
    text = option.help or ""
    assert text[:1].isupper() and text.endswith("."), text
    assert "[default" not in text and "by default" not in text, "let click show the default"


@pytest.mark.parametrize("command, option", options())
def test_the_help_of_an_option_shows_its_default(command, option):
    _, text = option.get_help_record(click.Context(command, **CONTEXT_SETTINGS))
    is_explained = option.is_flag or option.required or option.multiple or option.opts[0] in OPTIONAL
    assert is_explained or "[default: " in text, text


def test_the_help_of_an_option_names_options_of_its_own_command():
    """Options of another command stand in backquotes, after its name."""
    for path, command in commands(cli):
        own = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        for option in command.params:
            if isinstance(option, click.Option):
                default = option.show_default if isinstance(option.show_default, str) else ""
                named = set(OPTION.findall(QUOTED.sub("", f"{option.help} {default}")))
                assert named <= own, f"{' '.join(path)} {option.opts[0]}: the command has no {named - own}"


def test_defaults_of_beams_are_those_of_the_searches():
    """A pack leaves its beams to the command that searches: with confidences, or without. Tuning builds lattices."""
    from asrtool.decoding.graph_options import GraphOptions
    from asrtool.decoding.options import DEFAULT_LATTICE_BEAM, LATTICE_SEARCH_BEAM
    from asrtool.decoding.system_options import with_lattices

    confident = with_lattices("graph", {})
    shown = {
        name: {
            option.name: str(option.show_default)
            for option in cli.commands[name].params
            if isinstance(option, click.Option)
        }
        for name in ("pack", "decode", "transcribe", "tune")
    }
    for name, plain in (("beam", GraphOptions().beam), ("lattice_beam", DEFAULT_LATTICE_BEAM)):
        assert str(plain) in shown["decode"][name] and str(confident[name]) in shown["transcribe"][name]
        assert f"{confident[name]} in `asrtool transcribe`, {plain} in `asrtool decode`" in shown["pack"][name]
    tuning = {"beam": str(LATTICE_SEARCH_BEAM), "lattice_beam": str(DEFAULT_LATTICE_BEAM)}
    assert {name: shown["tune"][name] for name in tuning} == tuning


@pytest.mark.parametrize("name", ["transcribe", "align", "segment", "prepare folder", "prepare nemo"])
def test_the_help_of_channel_shows_the_words_that_the_option_takes(name):
    command = cli
    for word in name.split():
        command = command.commands[word]
    context = click.Context(command)
    (option,) = (option for option in command.params if "--channel" in option.opts)
    shown = option.make_metavar(context).strip("[]").split("|")
    for word in ("mix", "each", "0", "1"):
        if word in shown:
            assert str(option.type.convert(word, option, context)) == word
        else:
            with pytest.raises(click.BadParameter, match="give .*a number from 0 on"):
                option.type.convert(word, option, context)
