import gzip
import json
from itertools import islice

import pytest
from lhotse import CutSet
from lhotse.shar import SharWriter

from asrtool.data.lhotse_manifest import copy_manifest
from asrtool.data.lhotse_sets import open_cuts, read_items, read_lhotse
from asrtool.data.manifest import count_cuts
from asrtool.data.sources import InvalidEntry
from asrtool.errors import DataError, UserError


@pytest.fixture
def dicts(corpus) -> list[dict]:
    """The entries of the tiny corpus."""
    with gzip.open(corpus, "rt") as file:
        return [json.loads(line) for line in file]


@pytest.fixture
def write(tmp_path):
    """write(entries, name="in.jsonl") -> the file of a manifest"""

    def make(entries, name="in.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        return tmp_path / name

    return make


def changed(cut_dict: dict, path: str, value) -> dict:
    """A copy of `cut_dict` in which the field that `path` leads to is `value`."""
    cut_dict = json.loads(json.dumps(cut_dict))
    *above, last = path.split(".")
    place = cut_dict
    for name in above:
        place = place[int(name) if name.isdigit() else name]
    place[last] = value
    return cut_dict


FIELDS = {
    "id": [None, 5, [], {}],
    "start": ["0", None, True, [], 1e300, 10**400],
    "duration": ["1", None, False, -(10**30)],
    "supervisions.0.text": [5, ["a"], {"a": 1}],
    "supervisions.0.speaker": [5, [], True],
    "supervisions.0.start": ["0", None],
    "recording.sampling_rate": [0, -16000, "16000", None, 16000.5, True],
    "recording.num_samples": [-1, 0, "100", 1e400, None],
    "recording.id": [None, 7],
    "recording.sources": [None, 5, {}, "a.wav"],
    "supervisions": [5, "a", [5]],
    "recording": [5, "a", []],
}


@pytest.mark.parametrize(("path", "value"), [(path, value) for path, values in FIELDS.items() for value in values])
def test_a_field_of_another_type_is_a_problem_of_its_entry_alone(dicts, write, tmp_path, path, value):
    good, bad = dicts[0], changed(dicts[1], path, value)
    file, out = write([good, bad]), tmp_path / "out" / "cuts.jsonl.gz"
    try:
        copy_manifest(read_lhotse(file, None, None), out, skip_bad=True)
    except UserError as error:  # 1e400 and 10**400 are no JSON that asrtool reads
        assert value in (1e400, 10**400)
        assert "line 2" in str(error)
    else:
        assert [cut.id for cut in open_cuts(out)] == [good["id"]]
    with pytest.raises((UserError, DataError)) as caught:
        copy_manifest(read_lhotse(file, None, None), out)
    assert "in.jsonl:2" in str(caught.value) or "line 2" in str(caught.value) or bad["id"] in str(caught.value)


def test_a_bad_entry_later_in_a_manifest_is_named_by_line_and_id(dicts, write):
    dicts[2] = changed(dicts[2], "recording.sources.0.type", "command")
    cuts = open_cuts(write(dicts))
    assert len(list(islice(cuts, 2))) == 2
    with pytest.raises(UserError, match=f"in.jsonl:3: {dicts[2]['id']}: .*--allow-commands"):
        list(cuts)


@pytest.mark.parametrize("line", ["{", "[]", "5", "null", '"a"', "[" * 100_000, '{"id": NaN}', '{"id": "a"}', "{}"])
def test_a_line_that_is_not_an_entry_is_named(dicts, write, line):
    file = write(dicts[:2])
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(UserError, match=r"in.jsonl.*(:3|line 3)"):
        list(open_cuts(file))


@pytest.mark.parametrize("path", ["supervisions.0.text", "id", "custom"])
def test_text_that_is_not_unicode_is_named_with_its_line(dicts, write, tmp_path, path):
    file = write([dicts[0], changed(dicts[1], path, "a\ud800")])
    with pytest.raises(DataError, match="in.jsonl:2: .*half of a character"):
        copy_manifest(read_lhotse(file, None, None), tmp_path / "out.jsonl.gz")


def test_a_manifest_that_is_cut_off_is_named(corpus, tmp_path):
    content = corpus.read_bytes()
    damaged = content[:1000] + bytes([content[1000] ^ 255]) + content[1001:]
    for name, part in (("cut.jsonl.gz", content[:-200]), ("bad.jsonl.gz", damaged)):
        (tmp_path / name).write_bytes(part)
        for read in (count_cuts, lambda path: list(open_cuts(path)), lambda path: list(read_lhotse(path, None, None))):
            with pytest.raises(UserError, match=name):
                read(tmp_path / name)


def test_a_line_that_is_too_long_is_refused(tmp_path):
    with gzip.open(tmp_path / "bomb.jsonl.gz", "wb", 1) as file:
        for _ in range(20):
            file.write(b" " * (1 << 20))
    for read in (open_cuts, count_cuts):
        with pytest.raises(UserError, match="more than 8 MB"):
            read(tmp_path / "bomb.jsonl.gz")


@pytest.mark.parametrize("name", ["cuts.yaml", "cuts.json", "my.wav"])
def test_other_formats_are_refused_with_the_command_that_converts_them(write, dicts, name):
    file = write(dicts, name)
    for read in (open_cuts, lambda path: read_lhotse(path, None, None)):
        with pytest.raises(UserError, match="lhotse copy"):
            read(file)


def test_a_manifest_can_be_iterated_more_than_once(corpus):
    cuts = open_cuts(corpus)
    assert [cut.id for cut in cuts] == [cut.id for cut in cuts] == [cut.id for cut in CutSet.from_jsonl_lazy(corpus)]


def parts_of(dicts, folder):
    """A folder with a manifest in two files."""
    folder.mkdir()
    for number in (0, 1):
        lines = "".join(json.dumps(cut_dict) + "\n" for cut_dict in dicts[number::2])
        (folder / f"{number}.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    return folder


def test_a_folder_of_files_is_one_manifest(dicts, tmp_path):
    folder = parts_of(dicts, tmp_path / "parts")
    (folder / ".tmp-unfinished.jsonl.gz").write_bytes(b"")
    assert [cut.id for cut in open_cuts(folder)] == [cut_dict["id"] for cut_dict in dicts[0::2] + dicts[1::2]]
    with open(folder / "2.jsonl", "w") as file:
        file.write("not a cut\n")
    with pytest.raises(UserError, match=r"2\.jsonl is not a manifest of cuts"):
        list(open_cuts(folder))
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"no \*\.jsonl\.gz in .*none"):
        open_cuts(tmp_path / "none")


@pytest.mark.parametrize("command", ["features", "subset"])
def test_commands_take_folders_of_files_and_refuse_shar_in_one_line(asr, dicts, corpus, tmp_path, command):
    folder = parts_of(dicts[:4], tmp_path / "parts")
    status, _, message = asr(command, folder, tmp_path / "out.jsonl.gz")
    assert status == 0, message
    assert {cut.id for cut in open_cuts(tmp_path / "out.jsonl.gz")} == {cut_dict["id"] for cut_dict in dicts[:4]}
    (tmp_path / "shar").mkdir()
    with SharWriter(tmp_path / "shar", {"recording": "wav"}, shard_size=2) as writer:
        for cut in islice(open_cuts(corpus), 4):
            writer.write(cut)
    status, _, message = asr(command, tmp_path / "shar", tmp_path / "new.jsonl.gz")
    assert status == 2 and "is lhotse's Shar" in message and len(message.splitlines()) == 1
    assert not (tmp_path / "new.jsonl.gz").exists()


def test_entries_are_returned_with_their_line_numbers(dicts, write):
    dicts[1] = changed(dicts[1], "recording.sources.0.source", "cat x |")
    (one, good), (two, bad) = islice(read_items(write(dicts), "cuts"), 2)
    assert one.endswith(f"in.jsonl:1: {dicts[0]['id']}")
    assert good.id == dicts[0]["id"]
    assert two.endswith(f"in.jsonl:2: {dicts[1]['id']}")
    assert isinstance(bad, InvalidEntry)


def test_all_inconsistent_recordings_and_supervisions_are_named(dicts, write, tmp_path):
    recordings = [cut_dict["recording"] for cut_dict in dicts[:3]]
    supervisions = [cut_dict["supervisions"][0] for cut_dict in dicts[:4]]
    files = write([*recordings, recordings[0]], "r.jsonl"), write([*supervisions, supervisions[1]], "s.jsonl")
    with pytest.raises(DataError) as caught:
        copy_manifest(read_lhotse(None, *files), tmp_path / "out.jsonl.gz")
    names = [cut_dict["id"] for cut_dict in dicts]
    assert [problem.rpartition("/")[2] for problem in caught.value.problems[:1]] == [
        f"r.jsonl:4: {names[0]}: duplicate recording"
    ]
    assert f"s.jsonl:4: {names[3]}: " in caught.value.problems[1]
    assert "no recording" in caught.value.problems[1]


def test_one_recording_id_of_two_files_is_refused(dicts, write, tmp_path):
    dicts[1] = changed(dicts[1], "recording.id", dicts[0]["recording"]["id"])
    with pytest.raises(DataError, match=f"{dicts[1]['id']}: its recording .* elsewhere"):
        copy_manifest(read_lhotse(write(dicts), None, None), tmp_path / "out.jsonl.gz")


def test_cuts_without_a_transcript_are_kept_with_unlabelled(dicts, write, tmp_path):
    dicts = [changed(dicts[0], "supervisions", []), changed(dicts[1], "supervisions.0.text", ""), dicts[2]]
    file, out = write(dicts), tmp_path / "out.jsonl.gz"
    with pytest.raises(DataError) as caught:
        copy_manifest(read_lhotse(file, None, None), out)
    assert len(caught.value.problems) == 2
    copy_manifest(read_lhotse(file, None, None), out, unlabelled=True)
    one, two, three = open_cuts(out)
    assert one.supervisions == []
    assert (two.supervisions[0].text, two.supervisions[0].speaker) == (None, dicts[1]["supervisions"][0]["speaker"])
    assert three.supervisions[0].text


def test_an_end_beyond_the_recording_is_clamped_in_a_copy(dicts, write, tmp_path):
    cut_dict = changed(dicts[0], "duration", dicts[0]["duration"] + 0.05)
    cut_dict = changed(cut_dict, "supervisions.0.duration", cut_dict["duration"])
    summary = copy_manifest(read_lhotse(write([cut_dict]), None, None), tmp_path / "out.jsonl.gz")
    (cut,) = open_cuts(tmp_path / "out.jsonl.gz")
    assert "1 ends beyond" in str(summary)
    assert cut.duration == cut.supervisions[0].duration == dicts[0]["duration"]
    assert cut.load_audio().shape == (1, cut.num_samples)


def test_fields_that_lhotse_cannot_use_are_a_problem_of_their_entry(dicts, write, tmp_path):
    alignment = {"word": [["one", "zero", 0.5]]}
    bad = [
        changed(dicts[1], "supervisions.0.alignment", alignment),
        changed(dicts[2], "recording.channel_ids", 5),
        changed(dicts[3], "recording.sources.0.type", ["file"]),
        changed(dicts[5], "channel", "0"),
    ]
    copy_manifest(read_lhotse(write([dicts[0], *bad]), None, None), tmp_path / "out.jsonl.gz", skip_bad=True)
    (cut,) = open_cuts(tmp_path / "out.jsonl.gz")
    assert cut.id == dicts[0]["id"]
