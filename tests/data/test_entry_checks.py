"""Lines of a manifest that are not what they should be: one line that says which, where and what to do."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from asrtool.data.entry_checks import EntryChecks, cut_problem, field_problem, overhang_problem
from asrtool.data.lhotse_objects import read_cut
from asrtool.data.shards import entries, fingerprint
from asrtool.data.sources import InvalidEntry
from asrtool.errors import UserError

NUMBERS = [float("nan"), float("inf"), -1, 0, True, "1", None, [], {}, 10**400, 1e300]


@pytest.fixture
def cuts(corpus) -> list[dict]:
    return [json.loads(line) for line in gzip.decompress(corpus.read_bytes()).splitlines()]


def written(path: Path, cuts: list) -> Path:
    path.write_text("".join(json.dumps(cut) + "\n" for cut in cuts), encoding="utf-8")
    return path


def changed(cut: dict, place: tuple, value: object) -> dict:
    """`cut` with another value at this place, e.g. ("recording", "sampling_rate")."""
    inner = changed(cut[place[0]], place[1:], value) if place[1:] else value
    return {**cut, place[0]: inner} if isinstance(cut, dict) else [inner, *cut[1:]]


PLACES = {
    ("duration",): NUMBERS,
    ("id",): [None, 7, "", [], {"a": 1}],
    ("start",): [float("nan"), "0", [], True, 10**400, -1.0],
    ("channel",): ["0", -1, 0.5, [0]],
    ("supervisions",): ["x", {}, [1], [None], 3],
    ("supervisions", 0, "text"): [1, [], {}],
    ("supervisions", 0, "speaker"): [1, [], {}],
    ("supervisions", 0, "start"): [float("nan"), "0", []],
    ("supervisions", 0, "duration"): ["1", [], 10**400],
    ("supervisions", 0, "alignment"): ["x", [], 3],
    ("recording",): ["x", [1], 3],
    ("recording", "sampling_rate"): [None, "16000", float("nan"), 0, -1, 1, 16000.5, 10**20, True],
    ("recording", "sources"): [None, [], "x", [1], {}],
}


@pytest.mark.parametrize("place", PLACES)
def test_a_field_of_another_type_or_range_is_named_with_file_and_line(cuts, tmp_path, place):
    for number, value in enumerate(PLACES[place]):
        rows = [cuts[0], changed(cuts[1], place, value), cuts[2]]
        path = written(tmp_path / f"{number}.jsonl", rows)
        with pytest.raises(UserError) as caught:
            list(entries(path))
        message = str(caught.value)
        assert message.startswith(f"{path}:2 ") and "asrtool prepare" in message, (value, message)
        assert "\n" not in message and len(message) < 800


@pytest.mark.parametrize("text", ["1e999", "-1e999", "NaN", "Infinity", "9" * 400 + ".0"])
@pytest.mark.parametrize("field", ["duration", "anything"])
def test_a_number_beyond_float64_is_refused_in_every_field(cuts, tmp_path, field, text):
    line = json.dumps({**cuts[0], field: "HERE"}).replace('"HERE"', text)
    (tmp_path / "m.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match=r"m\.jsonl:1 .*(finite|duration)"):
        list(entries(tmp_path / "m.jsonl"))


@pytest.mark.parametrize(
    "line",
    [b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe{}", b'{"id": "\xe9"}', b"\x00\x01", b'{"id": 1' + b"0" * 5000],
)
def test_a_line_that_is_not_json_is_named_with_its_number(cuts, tmp_path, line):
    first = json.dumps(cuts[0]).encode()
    (tmp_path / "m.jsonl.gz").write_bytes(gzip.compress(first + b"\n\n" + line + b"\n"))
    with pytest.raises(UserError, match=r"m\.jsonl\.gz:3 is not a manifest of cuts"):
        list(entries(tmp_path / "m.jsonl.gz"))


def test_a_good_manifest_has_no_wrong_fields(cuts):
    assert [field_problem(cut) for cut in cuts] == [None] * len(cuts)
    assert field_problem({**cuts[0], "recording": None, "features": None, "supervisions": None}) is None


def two_supervisions(cut: dict) -> dict:
    (one,) = cut["supervisions"]
    half = cut["duration"] / 2
    return {**cut, "supervisions": [{**one, "duration": half}, {**one, "id": "b", "start": half, "duration": half}]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (two_supervisions, "2 supervisions; run `asrtool prepare lhotse`"),
        (lambda cut: changed(cut, ("supervisions", 0, "duration"), 0.2), "its supervision covers 0.00 to 0.20 s"),
        (lambda cut: changed(cut, ("supervisions", 0, "start"), 0.3), "its supervision covers 0.30 to"),
        (lambda cut: {**cut, "recording": None}, "no recording and no features"),
        (lambda cut: {k: v for k, v in cut.items() if k != "recording"}, "no recording and no features"),
    ],
)
def test_a_cut_that_would_be_misread_is_refused(cuts, tmp_path, change, message):
    cut = change(max(cuts, key=lambda cut: cut["duration"]))
    assert cut_problem(cut).startswith(message)
    (entry,) = entries(written(tmp_path / "m.jsonl", [cut]))
    with pytest.raises(InvalidEntry, match=f"^{entry.id}: {message.split(';')[0]}"):
        read_cut(entry)


def test_a_supervision_may_be_a_little_shorter_than_its_cut_and_a_cut_may_have_none(cuts):
    cut = max(cuts, key=lambda cut: cut["duration"])
    close = changed(cut, ("supervisions", 0, "start"), 0.09)
    assert cut_problem(changed(close, ("supervisions", 0, "duration"), cut["duration"] - 0.18)) is None
    assert cut_problem({**cut, "supervisions": []}) is cut_problem({**cut, "supervisions": None}) is None


def test_a_window_of_a_longer_cut_has_an_overhanging_transcript(cuts):
    cut = max(cuts, key=lambda cut: cut["duration"])
    assert overhang_problem(cut) is None
    assert "goes beyond the cut" in overhang_problem({**cut, "duration": cut["duration"] / 2})
    assert "goes beyond the cut" in overhang_problem(changed(cut, ("supervisions", 0, "start"), -0.5))
    assert cut_problem({**cut, "duration": cut["duration"] / 2}) is None  # it can be decoded


def test_a_repeated_id_is_a_duplicate(cuts):
    checks = EntryChecks()
    assert [checks.problem(cut) for cut in (*cuts[:3], cuts[1])] == [None, None, None, "duplicate id"]


def test_a_cut_above_the_limit_is_too_long(cuts):
    problem = EntryChecks(max_seconds=60.0).problem({**cuts[0], "supervisions": [], "duration": 90.0})
    assert problem.startswith("1.5 minutes long, more than --max-minutes 1")


def test_a_manifest_that_changes_at_the_same_size_has_another_fingerprint(corpus, tmp_path):
    content = gzip.decompress(corpus.read_bytes())
    for name, data in (("one", content), ("two", content.replace(b'"two', b'"six', 1))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "m.jsonl").write_bytes(data)
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "m.jsonl").write_bytes(content)
    one, two, copy = (fingerprint(tmp_path / name) for name in ("one", "two", "copy"))
    assert (tmp_path / "one" / "m.jsonl").stat().st_size == (tmp_path / "two" / "m.jsonl").stat().st_size
    assert one == copy != two


BOMBS = {"spaces": b" " * (1 << 20), "one line": b"x" * (1 << 20), "line ends": b"\n" * (1 << 20)}
READ = """
import sys
from pathlib import Path
from asrtool.data.shards import entries
from asrtool.errors import UserError
try:
    print(len(list(entries(Path(sys.argv[1])))))
except UserError as error:
    print(error)
print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) >> 10)
"""


@pytest.mark.parametrize("kind", ["spaces", "one line"])
def test_a_line_of_more_than_eight_megabytes_is_refused(cuts, tmp_path, kind):
    first = json.dumps(cuts[0]).encode() + b"\n"
    (tmp_path / "m.jsonl.gz").write_bytes(gzip.compress(first + 10 * BOMBS[kind], 1))
    with pytest.raises(UserError, match=r"m\.jsonl\.gz is not .*a line of more than 8 MB"):
        list(entries(tmp_path / "m.jsonl.gz"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", BOMBS)
def test_a_small_file_that_unpacks_to_a_gigabyte_takes_bounded_memory(tmp_path, kind):
    megabytes = 100 if kind == "line ends" else 1000
    with gzip.open(tmp_path / "bomb.jsonl.gz", "wb", compresslevel=1) as file:
        for _ in range(megabytes):
            file.write(BOMBS[kind])
    ran = subprocess.run([sys.executable, "-c", READ, tmp_path / "bomb.jsonl.gz"], capture_output=True, text=True)
    *message, peak = ran.stdout.splitlines()
    assert int(peak) < 500, message
    assert message == ["0"] if kind == "line ends" else "a line of more than 8 MB" in message[0], ran.stderr
