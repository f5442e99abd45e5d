"""Stored features are those that the manifest describes, and storing them costs nobody else's files."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, Fbank, FbankConfig, LilcomChunkyWriter, Mfcc, MfccConfig, NumpyFilesWriter

from asrtool.data import feature_store
from asrtool.data.feature_store import store_feature_share, store_features
from asrtool.data.features import compute_features, load_features
from asrtool.data.lhotse_sets import open_cuts
from asrtool.data.sources import InvalidEntry
from asrtool.errors import DataError, UserError

BINS = 20


@pytest.fixture
def few(corpus, tmp_path) -> Path:
    """A manifest of the first six cuts."""
    CutSet.from_cuts(list(open_cuts(corpus))[:6]).to_file(tmp_path / "few.jsonl.gz")
    return tmp_path / "few.jsonl.gz"


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "stored" / "few.jsonl.gz"


def rewritten(path: Path, change) -> Path:
    """The manifest with `change(number, cut)` instead of each cut."""
    cuts = map(json.loads, gzip.decompress(path.read_bytes()).splitlines())
    lines = [json.dumps(change(number, cut)) + "\n" for number, cut in enumerate(cuts)]
    path.write_bytes(gzip.compress("".join(lines).encode()))
    return path


def archives(out: Path) -> list[Path]:
    return sorted((out.parent / "feats").rglob("*.lca"))


@pytest.mark.parametrize("suffixes", [(".jsonl", ".jsonl.gz"), (".jsonl.gz", ".jsonl")])
def test_two_manifests_of_one_folder_of_features_are_refused(few, out, suffixes):
    first, second = (out.with_name(f"few{suffix}") for suffix in suffixes)
    store_features(few, first, BINS)
    before = archives(out)
    with pytest.raises(UserError, match=rf"OUT is {second}: {first} exists, .*; name another file"):
        store_features(few, second, 30)
    with pytest.raises(UserError, match="name another file"):
        store_feature_share(few, second, (1, 2), BINS)
    assert archives(out) == before and not second.exists()
    store_features(few, first, 30)


@pytest.mark.parametrize("flip", [0, -1])
def test_a_flipped_bit_in_an_archive_is_that_cuts_problem(few, out, flip):
    store_features(few, out, BINS)
    (archive,) = archives(out)
    content = bytearray(archive.read_bytes())
    content[flip] ^= 4
    archive.write_bytes(content)
    cuts = list(open_cuts(out))
    broken = cuts[flip]
    with pytest.raises(InvalidEntry, match=rf"^{broken.id}: cannot read .*lca \(damaged: its checksum differs\); run"):
        load_features(broken, "stored", BINS)
    for cut in cuts:
        if cut.id != broken.id:
            load_features(cut, "stored", BINS)


def test_stored_features_of_a_part_of_a_cut_are_verified(few, out):
    store_features(few, out, BINS)
    cut = max(open_cuts(out), key=lambda cut: cut.duration)
    part = cut.truncate(offset=0.3, duration=0.4, preserve_id=True)
    assert abs(len(load_features(part, "stored", BINS)) - 40) <= 1
    cut.custom["features_crc32"] += 1
    with pytest.raises(InvalidEntry, match="checksum differs"):
        load_features(cut.truncate(offset=0.3, duration=0.4, preserve_id=True), "stored", BINS)


KINDS = {
    "mfcc": (Mfcc(MfccConfig(num_filters=BINS, num_ceps=BINS)), "kaldi-mfcc"),
    "slow": (Fbank(FbankConfig(num_filters=BINS, frame_shift=0.02)), "frame_shift 0.02"),
    "bins": (Fbank(FbankConfig(num_filters=23)), "23 bins are stored"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_features_of_another_kind_are_refused_with_both_descriptions(few, tmp_path, kind):
    extractor, message = KINDS[kind]
    cuts = CutSet.from_file(few).compute_and_store_features(extractor, tmp_path / kind, storage_type=LilcomChunkyWriter)
    for cut in cuts:
        with pytest.raises(InvalidEntry, match=f"^{cut.id}: .*{message}"):
            load_features(cut, "stored", BINS)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("type", "fbank", "type fbank"),
        ("sampling_rate", 8000, "sampling_rate 8000"),
        ("frame_shift", 0.0125, "frame_shift 0.0125"),
        ("num_features", BINS + 1, f"{BINS + 1} bins"),
        ("storage_key", "0,999999999999", "cannot read"),
        ("storage_key", "x", "cannot read"),
        ("storage_path", "/none/x.lca", "cannot read"),
    ],
)
def test_an_inconsistent_features_description_is_refused(few, out, field, value, message):
    store_features(few, out, BINS)
    rewritten(out, lambda _, cut: {**cut, "features": {**cut["features"], field: value}})
    with pytest.raises(InvalidEntry, match=message):
        load_features(next(iter(open_cuts(out))), "stored", BINS)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_stored_features_that_are_not_finite_are_named_with_their_time(few, tmp_path, value):
    extractor = Fbank(FbankConfig(num_filters=BINS))
    cuts = CutSet.from_file(few).compute_and_store_features(extractor, tmp_path / "np", storage_type=NumpyFilesWriter)
    cut = next(iter(cuts))
    path = Path(cut.features.storage_path) / cut.features.storage_key
    features = np.load(path)
    features[30, 2] = value
    np.save(path, features)
    with pytest.raises(InvalidEntry, match=f"^{cut.id}: its features are not finite at 0.30 s"):
        load_features(cut, "stored", BINS)
    np.save(path, features[:20])
    with pytest.raises(InvalidEntry, match=f"^{cut.id}: its stored features have the shape"):
        load_features(cut, "stored", BINS)


def test_only_the_bad_cut_is_named(few, out, tmp_path):
    cut = list(open_cuts(few))[3]
    samples, rate = soundfile.read(cut.recording.sources[0].source, dtype="float32")
    samples[4000] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, rate, "FLOAT")

    def change(number: int, cut: dict) -> dict:
        if number == 3:
            cut["recording"]["sources"][0]["source"] = str(tmp_path / "nan.wav")
        return cut

    with pytest.raises(DataError) as caught:
        store_features(rewritten(few, change), out, BINS)
    assert caught.value.problems == [f"{cut.id}: the sample at 0.250 s is nan; samples must lie between -1 and 1"]
    assert not out.exists()


def test_all_cuts_with_bad_lines_are_listed_before_features_are_computed(few, out, monkeypatch):
    def change(number: int, cut: dict) -> dict:
        if number == 1:
            cut["id"] = "a-00"
        if number == 2:
            cut["supervisions"] *= 2
        if number == 4:
            del cut["recording"]
        return cut

    monkeypatch.setattr(feature_store, "compute_features", None)
    with pytest.raises(DataError) as caught:
        store_features(rewritten(few, change), out, BINS)
    assert [problem.partition(": ")[2].partition(";")[0] for problem in caught.value.problems] == [
        "duplicate id",
        "2 supervisions",
        "no recording and no features",
    ]
    with pytest.raises(DataError, match="minutes long, more than --max-minutes"):
        store_features(few, out, BINS, max_seconds=0.2)


def test_manifests_whose_names_differ_after_the_first_dot_have_separate_features(corpus, few, tmp_path):
    CutSet.from_cuts(list(open_cuts(corpus))[6:12]).to_file(tmp_path / "other.jsonl.gz")
    one, two = tmp_path / "fb" / "test.clean.jsonl.gz", tmp_path / "fb" / "test.other.jsonl.gz"
    store_features(few, one, BINS)
    store_features(tmp_path / "other.jsonl.gz", two, BINS, speeds=(0.9, 1.1))
    assert all(len(load_features(cut, "stored", BINS)) for out in (one, two) for cut in open_cuts(out))


@pytest.mark.parametrize("where", ["NAME", "DIGEST"])
def test_other_files_in_the_features_folders_remain(few, out, where):
    store_features(few, out, BINS)
    (old,) = (out.parent / "feats" / "few").iterdir()
    thesis = (old if where == "DIGEST" else old.parent) / "thesis.txt"
    thesis.write_text("mine")
    store_features(few, out, BINS + 3)
    assert thesis.read_text() == "mine"
    assert (old.exists(), len(archives(out))) == (where == "DIGEST", 1)
    assert not list(old.glob("*.lca"))
    assert len(load_features(next(iter(open_cuts(out))), "stored", BINS + 3))


def test_a_manifest_that_was_moved_away_keeps_its_features(few, out):
    store_features(few, out, BINS)
    kept = out.rename(out.with_name("kept.jsonl.gz"))
    store_features(few, out, BINS + 3)
    assert all(len(load_features(cut, "stored", BINS)) for cut in open_cuts(kept))


@pytest.mark.parametrize("content", [b"my thesis", b'{"id": "x"}\n'])
def test_an_existing_file_of_another_kind_is_refused_as_output_and_kept(few, tmp_path, content):
    for name in ("thesis.txt", "thesis.jsonl", "thesis.jsonl.gz"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"OUT is .*{name}"):
            store_features(few, tmp_path / name, BINS)
        assert (tmp_path / name).read_bytes() == content


def test_an_input_or_another_manifest_is_refused_as_output_and_kept(corpus, few, tmp_path):
    before, other = few.read_bytes(), tmp_path / "dev.jsonl.gz"
    other.write_bytes(corpus.read_bytes())
    for out, message in (
        (few, "an input"),
        (other, "which `asrtool features` has not written"),
        (tmp_path, "not end in"),
    ):
        with pytest.raises(UserError, match=message):
            store_features(few, out, BINS)
    assert (few.read_bytes(), other.read_bytes()) == (before, corpus.read_bytes())


def test_an_archive_that_was_deleted_is_stored_again(few, out):
    store_features(few, out, BINS)
    archives(out)[0].unlink()
    store_features(few, out, BINS)
    assert all(len(load_features(cut, "stored", BINS)) for cut in open_cuts(out))


def _own_audio(few: Path, folder: Path) -> list[Path]:
    """Copies the audio of a manifest, so that a test may change it; returns the files in the order of the cuts."""

    def change(number: int, cut: dict) -> dict:
        source = cut["recording"]["sources"][0]
        source["source"] = str(shutil.copy(source["source"], folder / f"{number}.wav"))
        return cut

    return [Path(cut.recording.sources[0].source) for cut in open_cuts(rewritten(few, change))]


CHANGES = {
    "samples": lambda path: soundfile.write(path, *_reversed(path)),  # of the same size
    "older time": lambda path: (path.write_bytes(path.read_bytes()), os.utime(path, (1, 1))),
    "time": lambda path: os.utime(path),
}


def _reversed(path: Path):
    samples, rate = soundfile.read(path)
    return samples[::-1], rate


@pytest.mark.parametrize("change", CHANGES)
def test_features_of_changed_audio_are_stored_again_and_those_of_other_audio_are_kept(
    few, out, tmp_path, monkeypatch, change
):
    monkeypatch.setattr(feature_store, "SHARD_CUTS", 2)
    audio = _own_audio(few, tmp_path)
    store_features(few, out, BINS)
    before = {path.name: path.stat().st_mtime_ns for path in archives(out)}
    store_features(few, out, BINS)
    assert {path.name: path.stat().st_mtime_ns for path in archives(out)} == before
    CHANGES[change](audio[3])
    store_features(few, out, BINS)
    after = {path.name: path.stat().st_mtime_ns for path in archives(out)}
    assert [name in before for name in sorted(after)] == [True, False, True]
    for cut in open_cuts(out):
        assert np.allclose(load_features(cut, "stored", BINS), compute_features(cut, BINS), atol=0.01)


def test_features_that_out_lists_remain_when_changed_audio_cannot_be_read(few, out, tmp_path):
    audio = _own_audio(few, tmp_path)
    store_features(few, out, BINS)
    audio[3].write_bytes(b"not audio")
    with pytest.raises(DataError):
        store_features(few, out, BINS)
    assert all(len(load_features(cut, "stored", BINS)) for cut in open_cuts(out))


def test_features_that_another_process_has_listed_in_out_again_are_not_removed(few, out, monkeypatch):
    store_features(few, out, BINS)
    listing = out.read_bytes()
    join = feature_store._join_manifests

    def join_and_lose_the_race(*arguments):
        summary = join(*arguments)
        out.write_bytes(listing)  # of a run with the earlier settings, which ends a moment later
        return summary

    monkeypatch.setattr(feature_store, "_join_manifests", join_and_lose_the_race)
    store_features(few, out, BINS + 3)
    assert all(len(load_features(cut, "stored", BINS)) for cut in open_cuts(out))


@pytest.mark.parametrize("harm", ["cut off", "no manifest", "empty", "a line lost"])
def test_a_damaged_manifest_of_a_shard_is_named(few, out, harm):
    store_features(few, out, BINS)
    (shard,) = (out.parent / "feats").rglob("000000-*.jsonl.gz")
    content = shard.read_bytes()
    lines = gzip.decompress(content).splitlines(keepends=True)
    harmed = {"cut off": content[: len(content) // 2], "no manifest": gzip.compress(b"x"), "empty": b""}
    shard.write_bytes(harmed.get(harm, gzip.compress(b"".join(lines[1:]))))
    with pytest.raises(UserError, match=r"000000-\w+\.jsonl\.gz is damaged; delete it"):
        store_features(few, out, BINS)
    shard.unlink()
    store_features(few, out, BINS)
    assert len(list(open_cuts(out))) == 6


HOLD = """
import sys, time
from pathlib import Path
from asrtool.locks import write_lock
with write_lock(Path(sys.argv[1]), "asrtool features", shared=sys.argv[2] == "shared"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("kind", ["alone", "shared"])
def test_full_runs_exclude_each_other_and_shares_do_not(few, out, kind):
    store_feature_share(few, out, (1, 1), BINS)
    (folder,) = (out.parent / "feats" / "few").iterdir()
    with subprocess.Popen([sys.executable, "-c", HOLD, folder, kind], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"in use by asrtool features \(process {other.pid} on "):
            store_features(few, out, BINS)
        if kind == "shared":
            assert store_feature_share(few, out, (1, 1), BINS) == (1, 1)
        else:
            with pytest.raises(UserError, match="in use by"):
                store_feature_share(few, out, (1, 1), BINS)
        other.kill()
    store_features(few, out, BINS)


OPTIONS = [
    (["--num-bins", "1"], "--num-bins"),
    (["--num-bins", "100000"], "--num-bins"),
    (["--speeds", "nan"], "--speeds"),
    (["--speeds", "inf"], "--speeds"),
    (["--speeds", ""], "--speeds"),
    (["--speeds", "1,1.0"], "--speeds"),
    (["--shard", "1/" + "9" * 26], "--shard"),
    (["--shard", "1/999999999"], "--shard"),
    (["--jobs", "100000"], "--jobs"),
    (["--max-minutes", "nan"], "--max-minutes"),
    (["--max-minutes", "0"], "--max-minutes"),
]


@pytest.mark.parametrize(("options", "message"), OPTIONS)
def test_an_impossible_option_is_one_error_line_and_status_2(asr, few, out, options, message):
    status, printed, err = asr("features", few, out, *options)
    assert (status, printed, err.count("\n")) == (2, "", 1)
    assert message in err and not out.parent.exists()


def test_a_killed_process_is_one_error_line_with_the_remedy(few, out, monkeypatch, asr):
    monkeypatch.setattr(feature_store, "compute_features", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    status, printed, err = asr("features", few, out, "--jobs", "2")
    assert (status, printed) == (2, "")
    assert "a process of --jobs 2 was killed" in err and "fewer --jobs" in err
