"""The types of options: finite numbers within bounds."""

import re
from collections import defaultdict

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


@pytest.mark.parametrize("command, options, valid", [
    ("align exp cuts.jsonl.gz out.jsonl.gz", ["--channel 0", "--format ctm", "--output-dir out"], "recordings"),
    ("align exp talk.wav talk.txt",
     ["--ctm o.ctm", "--no-g2p", "--g2p", "--max-minutes 5", "--batch-seconds 9", "--workers 0"], "manifests"),
    ("rescore a b --mbr", ["--weight 0.5", "--context 3"], "a neural model, of --lm"),
    ("lm perplexity x.arpa text", ["--weight 0.5", "--context 3", "--ngram x"], r"a neural model (*.pt), and x.arpa"),
    ("lm perplexity x.pt text", ["--weight 0.5"], "the interpolation with a model of --ngram"),
    ("report exp", ["--cuts c", "--spk2gender s", "--worst 20", "--no-audio", "--checkpoint x"], "the page of --html"),
    ("report exp --html a.html", ["--title T"], "Markdown, without --html"),
    ("tree cuts out.json --tokenizer t",
     ["--checkpoint last", "--precision fp32", "--batch-seconds 200", "--workers 1"], "--statistics log-probs"),
])  # fmt: skip
def test_options_without_effect_are_refused_also_with_the_value_of_their_default(asr, command, options, valid):
    for option in options:
        status, _, err = asr(*command.split(), *option.split())
        assert status == 2 and f"{option.split()[0]} has no effect here: it is for {valid}" in err, err
        assert err.count("\n") == 1


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


# Options whose meaning belongs to the command: the test says why.
OWN_MEANING = {
    "--device": "`asrtool plan` is about devices that are not here, by their names",
    "--port": "a server may be given 0, for any free port; `asrtool doctor env` needs a number",
    "--part": "parts of a corpus have the names that the corpus gives them",
}


def described_options():
    """{name of an option: {(type, metavar, first sentence of the help): commands}} of all commands."""
    found = defaultdict(lambda: defaultdict(list))
    for path, command in commands(cli):
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                name = max(option.opts, key=len)
                sentence = re.split(r"\. |\.$", option.help or "")[0]
                found[name][_type_text(option), option.metavar, sentence].append(" ".join(path))
    return found


def _type_text(option):
    """The name of an option's type, with its limits and choices."""
    kind = option.type
    facts = {name: value for name, value in vars(kind).items() if isinstance(value, int | float | str | list | tuple)}
    if isinstance(kind, click.Choice) or type(kind).__name__ == "FormatList":
        facts = {}  # not all methods and formats exist in every command
    return f"{type(kind).__name__} {sorted(facts.items())}"


@pytest.mark.parametrize("name", sorted(described_options()))
def test_an_option_has_the_same_type_and_help_in_every_command(name):
    meanings = described_options()[name]
    if name in OWN_MEANING:
        assert len(meanings) > 1, f"{name} needs no exception"
    else:
        assert len(meanings) == 1, dict(meanings)


@pytest.mark.parametrize("kind", ["char", "word", "phone"])
def test_a_number_of_units_has_no_effect_on_other_units_than_bpe(asr, corpus, tmp_path, kind):
    (tmp_path / "lexicon.txt").write_text("A a\n")
    lexicon = ("--lexicon", tmp_path / "lexicon.txt") if kind == "phone" else ()
    command = ("tokenizer", corpus, tmp_path / "tokenizer.json", "--type", kind, "--vocab-size", 100, *lexicon)
    status, _, message = asr(*command)
    assert status == 2 and "--vocab-size has no effect here: it is for --type bpe" in message
    assert not (tmp_path / "tokenizer.json").exists()
