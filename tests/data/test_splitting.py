import errno
import gzip
import json
from contextlib import contextmanager
from pathlib import Path

import pytest
from lhotse import CutSet

from asrtool.data import splitting
from asrtool.data.manifest_lines import open_writer
from asrtool.data.splitting import SplitOptions, SubsetOptions, parse_size, split_manifest, write_subset
from asrtool.errors import UserError


@pytest.fixture
def manifest(tmp_path):
    """manifest([("u1", 2.0, "ann", "A B"), ...], recording="r") writes cuts (id, seconds, speaker, text)."""

    def write(rows, recording=None, name="all.jsonl.gz") -> Path:
        with gzip.open(tmp_path / name, "wt") as file:
            for cut_id, seconds, speaker, text in rows:
                supervision = {"id": cut_id, "recording_id": "r", "start": 0, "duration": seconds, "text": text}
                sources = [{"type": "file", "channels": [0], "source": "/none.wav"}]
                audio = {"id": recording(cut_id) if recording else cut_id, "sources": sources, "sampling_rate": 16000}
                audio |= {"num_samples": round(seconds * 16000), "duration": seconds}
                cut = {"id": cut_id, "start": 0, "duration": seconds, "channel": 0, "type": "MonoCut"}
                cut |= {"supervisions": [supervision | {"speaker": speaker}], "recording": audio}
                file.write(json.dumps(cut) + "\n")
        return tmp_path / name

    return write


def corpus(speakers: int, utterances: int = 10) -> list[tuple]:
    """Utterances of 3 s with sentences of their own."""
    return [(f"s{s}-{n}", 3.0, f"s{s}", f"sentence {s} {n}") for s in range(speakers) for n in range(utterances)]


def sets(folder: Path) -> dict[str, set[str]]:
    """The ids in each manifest of a folder."""
    found = {}
    for path in folder.glob("*.jsonl.gz"):
        with gzip.open(path, "rt") as file:
            found[path.name.removesuffix(".jsonl.gz")] = {json.loads(line)["id"] for line in file}
    return found


def split(cuts: Path, **options) -> tuple[dict[str, set[str]], list[str]]:
    lines = split_manifest(cuts, cuts.parent / "out", SplitOptions(**options))
    return sets(cuts.parent / "out"), lines


def test_no_speaker_is_in_two_sets(manifest):
    found, lines = split(manifest(corpus(20)))
    speakers = {name: {i.split("-")[0] for i in ids} for name, ids in found.items()}
    assert {name: len(ids) for name, ids in speakers.items()} == {"train": 16, "dev": 2, "test": 2}
    assert sum(map(len, found.values())) == 200 and not speakers["dev"] & speakers["test"]
    assert lines[0] == "split by speaker, seed 0"
    assert "160 utterances, 0.13 h, 16 speakers" in lines[1]
    assert not any("also in train" in line for line in lines)


def test_a_full_disk_at_the_end_of_the_training_set_leaves_all_earlier_sets(manifest, monkeypatch):
    cuts = manifest(corpus(20))
    before, _ = split(cuts)

    @contextmanager
    def open_on_full_disk(path):
        with open_writer(path) as file:
            yield file
            if path.name == "train.jsonl.gz":
                raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(splitting, "open_writer", open_on_full_disk)
    with pytest.raises(UserError, match="no space left to write .*train.jsonl.gz"):
        split(cuts, seed=1)
    assert sets(cuts.parent / "out") == before


def test_the_order_of_the_lines_does_not_matter_and_the_seed_does(manifest):
    rows = corpus(20)
    first, _ = split(manifest(rows))
    assert split(manifest(rows[::-1]))[0] == first
    assert split(manifest(rows), seed=1)[0] != first


def test_the_same_manifest_gives_the_same_bytes(manifest):
    cuts = manifest(corpus(8))
    split(cuts)
    before = (cuts.parent / "out" / "train.jsonl.gz").read_bytes()
    split(cuts)
    assert (cuts.parent / "out" / "train.jsonl.gz").read_bytes() == before


@pytest.mark.parametrize("by", ["speaker", "utterance"])
def test_added_data_leaves_almost_all_where_it_was(manifest, by):
    before, _ = split(manifest(corpus(60)), by=by)
    after, _ = split(manifest(corpus(66)), by=by)
    moved = sum(len(before[name] - after[name]) for name in before)
    assert moved <= 0.05 * 600  # of 600, where a new draw would move about 220


def test_without_speakers_equal_sentences_stay_together(manifest):
    rows = [(f"u{n}", 2.0, None, f"Sentence, {n // 2}!" if n % 2 else f"sentence {n // 2}") for n in range(200)]
    found, lines = split(manifest(rows))
    sentence = {row[0]: int(row[0][1:]) // 2 for row in rows}
    assert not {sentence[i] for i in found["test"]} & {sentence[i] for i in found["train"]}
    assert lines[0] == "split by utterance, seed 0" and not any("sentences that train has" in line for line in lines)
    assert 16 <= len(found["test"]) <= 24


@pytest.mark.parametrize("by", ["auto", "utterance", "recording"])
def test_copies_at_other_speeds_stay_with_their_utterance(manifest, by):
    cuts = CutSet.from_file(manifest([(f"u{n}", 2.0, None, f"text {n % 25}") for n in range(100)])).to_eager()
    copies = CutSet.from_cuts([*cuts.perturb_speed(0.9), *cuts, *cuts.perturb_speed(1.1)])
    path = manifest([], name="copies.jsonl.gz")
    copies.to_file(path)
    found, lines = split(path, by=by)
    assert lines[0] == f"split by {'recording' if by == 'recording' else 'utterance'}, seed 0"
    originals = [{name.split("_")[0] for name in ids} for ids in found.values()]
    assert sum(map(len, originals)) == 100 and min(map(len, originals)) >= 8


def test_ids_that_end_as_those_of_copies_are_utterances_of_their_own(manifest):
    found, _ = split(manifest([(f"u_sp{n}", 2.0, None, "word") for n in range(100)]))
    assert 8 <= len(found["test"]) <= 12 and 8 <= len(found["dev"]) <= 12


def test_few_sentences_are_in_all_sets_and_that_is_said(manifest):
    found, lines = split(manifest([(f"u{n}", 1.0, None, f"word{n % 10}") for n in range(300)]))
    assert 27 <= len(found["test"]) <= 33
    assert any(line.startswith("100.0 % of test are sentences that train has, too (") for line in lines)


def test_segments_of_a_recording_stay_together_without_speakers(manifest):
    rows = [(f"r{r}-{n}", 2.0, None, f"s {r} {n}") for r in range(30) for n in range(5)]
    found, lines = split(manifest(rows, recording=lambda cut_id: cut_id.split("-")[0]))
    assert lines[0] == "split by recording, seed 0"
    recordings = [{i.split("-")[0] for i in ids} for ids in found.values()]
    assert sum(map(len, recordings)) == 30


def test_a_speaker_in_two_unicode_forms_is_in_one_set(manifest):
    forms = ["Jos\u00e9 {}", "Jose\u0301 {}"]
    rows = [(f"u{s}-{n}", 2.0, forms[n % 2].format(s), f"s {s} {n}") for s in range(8) for n in range(6)]
    found, lines = split(manifest(rows))
    speakers = [{name.split("-")[0] for name in ids} for ids in found.values()]
    assert lines[0].startswith("split by speaker") and sum(map(len, speakers)) == 8
    found, _ = split(manifest(rows), dev_speakers=frozenset(["Jos\u00e9 3"]))
    assert len(found["dev"]) == 6


def test_few_speakers_are_in_all_sets_and_that_is_said(manifest):
    _, lines = split(manifest(corpus(3)))
    assert lines[0] == "split by utterance, seed 0"
    assert "3 speakers of test are also in train" in lines


def test_named_speakers_and_times_are_sizes(manifest):
    rows = [*corpus(20), ("x", 3.0, None, "nobody")]
    found, lines = split(manifest(rows), dev_speakers=frozenset(["s3", "s4"]), test="1m")
    assert {i.split("-")[0] for i in found["dev"]} == {"s3", "s4"}
    assert len(found["test"]) == 20  # 60 s
    assert "x" in found["train"] and "1 utterances without a speaker are in train" in lines


def test_a_size_of_zero_writes_no_set_and_leaves_a_file_of_this_name(manifest):
    cuts = manifest(corpus(10))
    (cuts.parent / "out").mkdir()
    (cuts.parent / "out" / "test.jsonl.gz").write_bytes(gzip.compress(b'{"id": "own"}\n'))
    found, _ = split(cuts, test="0")
    assert found["test"] == {"own"} and set(found) == {"train", "dev", "test"}


@pytest.mark.parametrize("stale", ["dev", "test"])
def test_an_old_set_of_the_same_utterances_is_refused_and_nothing_is_written(manifest, stale):
    cuts = manifest(corpus(10))
    before, _ = split(cuts, dev="0.2", test="0.2")
    sizes = {"dev": "0.4", "test": "0.4"} | {stale: "0"}
    with pytest.raises(UserError, match=rf"out/{stale}\.jsonl\.gz has utterances of .*; delete it, or"):
        split(cuts, **sizes)
    assert sets(cuts.parent / "out") == before
    (cuts.parent / "out" / f"{stale}.jsonl.gz").unlink()
    assert stale not in split(cuts, **sizes)[0]


def test_official_sets_with_the_same_ids_may_lie_beside(manifest):
    cuts = manifest(corpus(10))
    official = manifest(corpus(2), recording=lambda name: f"other-{name}", name="official.jsonl.gz")
    content = gzip.decompress(official.read_bytes()).replace(b"/none.wav", b"/official.wav")
    (cuts.parent / "out").mkdir()
    (cuts.parent / "out" / "test.jsonl.gz").write_bytes(gzip.compress(content))
    found, _ = split(cuts, test="0")
    assert len(found["test"]) == 20 and len(found["train"] | found["dev"]) == 100


def test_a_very_long_speaker_is_not_taken(manifest):
    rows = corpus(12) + [(f"long-{n}", 3.0, "long", f"long {n}") for n in range(300)]
    found, _ = split(manifest(rows))
    assert {i for i in found["train"] if i.startswith("long")} and 20 <= len(found["test"]) <= 60


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"dev": "1.5"}, "'1.5' is the whole corpus"),
        ({"dev": "ten"}, "'ten' is not a size"),
        ({"test": "-1"}, "'-1' is not a size"),
        ({"test": "9" * 400 + "h"}, "999' is not a size"),
        ({"test": "1h", "by": "utterance"}, "0 for no set"),
        ({"dev_speakers": frozenset(["nn"])}, "no such speaker in the manifest: nn; it has s0, s1"),
        ({"test": "1h"}, "leave none for train"),
        ({"dev_speakers": frozenset(["s1"]), "test_speakers": frozenset(["s1", "s2"])}, "s1 is in --dev-speakers and"),
        ({"dev_speakers": frozenset(f"s{n}" for n in range(8))}, "leave none for train"),
    ],
)
def test_impossible_sizes_are_refused_and_nothing_is_written(manifest, options, problem):
    cuts = manifest(corpus(8))
    with pytest.raises(UserError) as error:
        split(cuts, **options)
    assert problem in str(error.value)
    assert not (cuts.parent / "out").exists()


def test_one_speaker_cannot_be_split_by_speaker(manifest):
    with pytest.raises(UserError, match="1 speakers are too few for 3 sets; give --by utterance"):
        split(manifest(corpus(1)), by="speaker")


def test_sizes():
    assert parse_size("0.25", 100) == parse_size("25%", 100) == 25
    assert (parse_size("2h", 1), parse_size("30m", 1), parse_size("1.5min", 1), parse_size("7s", 1)) == (
        7200,
        1800,
        90,
        7,
    )


def test_subsets_by_speakers_ids_and_hours(manifest):
    cuts = manifest(corpus(4))
    out = cuts.parent / "sub" / "part.jsonl.gz"

    def subset(**options) -> set[str]:
        write_subset(cuts, out, SubsetOptions(**options))
        return sets(out.parent)["part"]

    assert subset(speakers=frozenset(["s1"])) == {f"s1-{n}" for n in range(10)}
    (cuts.parent / "ids.txt").write_text("s2-0\ttoo loud\n")
    assert len(subset(exclude_speakers=frozenset(["s1"]), exclusion_list=cuts.parent / "ids.txt")) == 29
    hour = subset(max_hours=30 / 3600)
    assert len(hour) == 10 and hour < subset(max_hours=60 / 3600)  # a larger subset has the smaller one
    with pytest.raises(UserError, match="no such speaker"):
        subset(speakers=frozenset(["s9"]))
    with pytest.raises(UserError, match="no utterances left"):
        subset(max_hours=1e-4)


@pytest.mark.parametrize(
    ("line", "named"), [("s9-0", "s9-0"), ("s1-0 too loud", "'s1-0 too loud'"), ("s1-0,s1-1", "s1-0,s1-1")]
)
def test_ids_to_exclude_that_the_manifest_lacks_are_named(manifest, capsys, line, named):
    cuts = manifest(corpus(4))
    (cuts.parent / "ids.txt").write_text(f"s2-0\n# a comment\n{line}\n")
    summary = write_subset(cuts, cuts.parent / "part.jsonl.gz", SubsetOptions(exclusion_list=cuts.parent / "ids.txt"))
    assert "39 of 40 utterances" in summary
    assert f"1 of 2 ids are not in {cuts}: {named}; " in capsys.readouterr().err
    with pytest.raises(UserError, match="which is an input"):
        write_subset(cuts, cuts, SubsetOptions())
