"""The types of options: finite numbers within bounds."""

from collections import defaultdict

import click
import pytest

from asrtool.cli import cli
from asrtool.cli.options import NUMBER, POSITIVE, SHARE, Number
from asrtool.cli.serve import Origin


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
    ("align exp cuts.jsonl.gz out.jsonl.gz",
     ["--channel 0", "--format ctm", "--output-dir out", "--overwrite"], "recordings"),
    ("align exp talk.wav talk.txt",
     ["--ctm o.ctm", "--no-g2p", "--g2p", "--max-minutes 5", "--batch-seconds 9", "--workers 0"], "manifests"),
    ("rescore a b --mbr", ["--weight 0.5", "--context 3"], "a neural model, of --lm"),
    ("lm perplexity x.arpa text", ["--weight 0.5", "--context 3", "--ngram x"], r"a neural model (*.pt), and x.arpa"),
    ("lm perplexity x.pt text", ["--weight 0.5"], "the interpolation with a model of --ngram"),
    ("lm perplexity x.pt text", ["--tokenizer t.json"], "n-gram models over units, and x.pt"),
    ("stream exp --wav a.wav", ["--max-minutes 60"], "CUTS"),
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


@pytest.mark.parametrize(("option", "value"), [
    ("--max-upload-mb", "1e305"),
    ("--max-kept-gb", "1e300"),
    ("--max-stream-minutes", "1e308"),
    ("--drain-seconds", "1e300"),
    ("--limit", "send_seconds=1e306"),
    ("--limit", f"max_upload_bytes={10**400}"),
    ("--limit", "gather_chunks=nan"),
    ("--limit", "max_batch=0"),
    ("--allow-origin", "http://[x"),
    ("--allow-origin", "example.org"),
    ("--allow-origin", "https://example.org/page"),
    ("--allow-origin", "https://user@example.org"),
    ("--allow-origin", "https://example.org:99999"),
    ("--allow-origin", "https://" + "x" * 70),
    ("--allow-origin", "ftp://example.org"),
    ("--allow-origin", "null"),
])  # fmt: skip
def test_impossible_values_of_serve_are_one_line(asr, tmp_path, option, value):
    pytest.importorskip("uvicorn")
    status, _, err = asr("serve", tmp_path, option, value)
    assert status == 2 and err.count("\n") == 1 and option in err, err


@pytest.mark.parametrize(("given", "origin"), [
    ("https://Example.org", "https://example.org"),
    ("https://example.org:443/", "https://example.org"),
    ("http://10.0.0.5:8080", "http://10.0.0.5:8080"),
    ("http://[::1]:80", "http://[::1]"),
    ("https://b\u00fccher.example", "https://xn--bcher-kva.example"),
])  # fmt: skip
def test_an_origin_is_written_as_browsers_send_it(given, origin):
    assert convert(Origin(), given) == origin


LARGE = ["--hours", "1e9", "--epochs", "1e6", "--network", "1e9", "--disk", "1e9", "--price", "1e9", "--mtbf", "1e9"]
SMALL = ["--hours", "1e-6", "--epochs", "1e-6", "--network", "1e-6", "--disk", "1e-6", "--price", "1e-6"]
SMALL += ["--utilisation", "1e-6"]


@pytest.mark.parametrize("options", [LARGE, SMALL, [*LARGE, "--utilisation", "1e-6"], [*SMALL, *LARGE[:4]]])
def test_plans_of_extreme_values_are_computed(asr, options):
    command = ["plan", "egs/digits/conf/transformer.yaml", "--vocab-size", 20, "--device", "h100", *options]
    for more in ([], ["--json"]):
        status, out, err = asr(*command, *more)
        assert status == 0 and out, err


@pytest.mark.parametrize("option", ["--hours", "--epochs", "--network", "--disk", "--price", "--mtbf", "--steps"])
@pytest.mark.parametrize("value", ["1e308", "1e-320", str(10**400)])
def test_impossible_values_of_plan_are_one_line(asr, option, value):
    command = ["plan", "egs/digits/conf/transformer.yaml", "--vocab-size", 20, "--device", "h100"]
    status, _, err = asr(*command, "--hours", 5, option, value)
    assert status == 2 and err.count("\n") == 1 and option in err, err


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


def typed_options():
    """{name of an option: {(type, metavar): commands}} of all commands."""
    found = defaultdict(lambda: defaultdict(list))
    for path, command in commands(cli):
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                name = max(option.opts, key=len)
                found[name][_type_text(option), option.metavar].append(" ".join(path))
    return found


def _type_text(option):
    """The name of an option's type, with its limits and choices."""
    kind = option.type
    facts = {name: value for name, value in vars(kind).items() if isinstance(value, int | float | str | list | tuple)}
    if isinstance(kind, click.Choice) or type(kind).__name__ in ("FormatList", "Channel"):
        facts = {}  # not all methods, formats and words for channels exist in every command
    return f"{type(kind).__name__} {sorted(facts.items())}"


@pytest.mark.parametrize("name", sorted(typed_options()))
def test_an_option_has_the_same_type_in_every_command(name):
    types = typed_options()[name]
    if name in OWN_MEANING:
        assert len(types) > 1, f"{name} needs no exception"
    else:
        assert len(types) == 1, dict(types)


@pytest.mark.parametrize("kind", ["char", "word", "phone"])
def test_a_number_of_units_has_no_effect_on_other_units_than_bpe(asr, corpus, tmp_path, kind):
    (tmp_path / "lexicon.txt").write_text("A a\n")
    lexicon = ("--lexicon", tmp_path / "lexicon.txt") if kind == "phone" else ()
    command = ("tokenizer", corpus, tmp_path / "tokenizer.json", "--type", kind, "--vocab-size", 100, *lexicon)
    status, _, message = asr(*command)
    assert status == 2 and "--vocab-size has no effect here: it is for --type bpe" in message
    assert not (tmp_path / "tokenizer.json").exists()
