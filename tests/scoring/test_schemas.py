"""The files that a report reads may be damaged: the error is one line that names the file, never a traceback."""

import json
import random

import pytest

from tests.scoring.test_results import DECODED, LOG, STREAMED, add_result, make_experiment  # noqa: F401 - a fixture

ODD = [None, True, -1, 0, 1e300, 10**400, 10**18, "x", "", [], [1], {}, {"dirty": 10**18}, [[[]]], float("nan")]


def paths(tree, at=()):
    """Yields the paths to all values in a tree of plain types."""
    yield at
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield from paths(value, (*at, key))


def changed(tree, at, value):
    """Returns a copy of the tree with `value` at a path; None removes the entry."""
    if not at:
        return value
    copy = json.loads(json.dumps(tree))
    inner = copy
    for key in at[:-1]:
        inner = inner[key]
    if value is None:
        del inner[at[-1]]
    else:
        inner[at[-1]] = value
    return copy


@pytest.fixture
def whole(make_experiment):  # noqa: F811
    """An experiment with every file that a report reads."""
    git = {"git": {"commit": "0" * 40, "dirty": False}, "version": "1", "command": "asrtool", "adapted_by": ["x"]}
    experiment = add_result(make_experiment(log=LOG), **DECODED, **git, ranks=2, jobs=2)
    return add_result(experiment, "stream/test/greedy", **STREAMED, **git)


@pytest.mark.parametrize(
    "name", ["log.jsonl", *(f"{kind}/test/greedy/{file}.json" for kind, file in [
        ("decode", "decode"), ("decode", "wer"), ("stream", "stream"), ("stream", "wer")
    ])]
)  # fmt: skip
def test_a_field_with_any_value_is_accepted_or_refused_in_one_line(whole, asr, name):
    path, draw = whole / name, random.Random(1)
    rows = [json.loads(line) for line in path.read_text().splitlines()] if name == "log.jsonl" else None
    tree = rows if rows else json.loads(path.read_text())
    seen = set()
    for at in paths(tree):
        for value in draw.sample(ODD, 6):
            new = changed(tree, at, value)
            lines = new if rows and isinstance(new, list) else [new]
            path.write_text("\n".join(map(json.dumps, lines)) + "\n")
            status, _, err = asr("report", whole)
            assert status in (0, 2), (at, value, err)
            assert not status or (err.count("\n") == 1 and len(err) < 2000), (at, value, err)
            seen.add(status)
    assert seen == {0, 2}


@pytest.mark.parametrize("name", ["decode/test/greedy/decode.json", "decode/test/greedy/wer.json", "log.jsonl"])
@pytest.mark.parametrize("content", [b"\xff\xfe", b"[" * 100_000, b"7", b"{", b'{"wer": 1e999}', b'{"git": NaN}'])
def test_a_file_that_is_not_json_is_named(whole, asr, name, content):
    (whole / name).write_bytes(content + b"\n")
    status, _, err = asr("report", whole)
    assert status == 2 and name.rpartition("/")[2] in err and err.count("\n") == 1


def test_a_report_is_written_to_markdown_files_only(whole, asr, tmp_path):
    other = tmp_path / "audio.wav"
    other.write_bytes(b"RIFF")
    status, _, err = asr("report", whole, "--out", other)
    assert status == 2 and "does not end in .md" in err and other.read_bytes() == b"RIFF"
    page = tmp_path / "page.md"
    page.write_bytes(b"caf\xe9")
    status, _, err = asr("report", whole, "--out", page)
    assert status == 2 and "page.md: not UTF-8" in err and page.read_bytes() == b"caf\xe9"


def test_a_page_keeps_its_line_endings(whole, asr, tmp_path):
    page = tmp_path / "page.md"
    page.write_bytes(b"# Mine\r\n\r\nText.\r\n")
    assert asr("report", whole, "--out", page)[0] == 0
    assert page.read_bytes().startswith(b"# Mine\r\n\r\nText.\r\n")
