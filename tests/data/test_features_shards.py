"""Storing features on several machines at once is storing them on one, whoever is killed on the way."""

import gzip
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

import asrtool
from asrtool.cli import main
from asrtool.data import feature_store
from asrtool.data.corpora import Utterance
from asrtool.data.feature_store import store_feature_share, store_features
from asrtool.data.features import load_features
from asrtool.data.lhotse_sets import open_cuts
from asrtool.data.manifest import write_manifest
from asrtool.errors import DataError, UserError

BINS = 20
SHARDS = 8


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Three cuts a shard: the corpus makes eight."""
    monkeypatch.setattr(feature_store, "SHARD_CUTS", 3)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "shared" / "train.jsonl.gz"


@pytest.fixture
def single(corpus, tmp_path):
    """The manifest of features that one run stored."""
    store_features(corpus, tmp_path / "single" / "train.jsonl.gz", BINS)
    return tmp_path / "single" / "train.jsonl.gz"


def archives(out) -> dict[str, Path]:
    return {path.name: path for path in (out.parent / "feats" / "train").glob("*/[!.]*.lca")}


def same(one, two) -> bool:
    """Whether two manifests have the same lines, but for the folder, and the same archives behind them."""
    lines = [gzip.decompress(out.read_bytes()).replace(str(out.parent).encode(), b"") for out in (one, two)]
    contents = [{name: path.read_bytes() for name, path in archives(out).items()} for out in (one, two)]
    return lines[0] == lines[1] and contents[0] == contents[1]


def written(out) -> dict[str, int]:
    return {name: path.stat().st_mtime_ns for name, path in archives(out).items()}


def at_once(*calls):
    """What `calls` return or raise when they start at the same moment; as threads, they have one process id, as
    processes on several machines may have."""
    start = Barrier(len(calls))

    def run(call):
        start.wait()
        try:
            return call()
        except UserError as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


KILL = """
import os, signal
from asrtool.data import feature_store
feature_store.SHARD_CUTS = 3
real, calls = feature_store.compute_features, []
def compute(*arguments):
    calls.append(1)
    if len(calls) == KILLED_AT:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)
feature_store.compute_features = compute
from asrtool.cli import main
main()
"""


def start(cuts, out, share, killed_at=0) -> subprocess.Popen:
    """`asrtool features --shard`, to be killed before its call number `killed_at` of `compute`."""
    script = KILL.replace("KILLED_AT", str(killed_at))
    options = ["--num-bins", str(BINS), "--jobs", "1", "--shard", share]
    environment = os.environ | {"PYTHONPATH": str(Path(asrtool.__file__).parents[1])}
    arguments = [sys.executable, "-c", script, "features", str(cuts), str(out), *options]
    return subprocess.Popen(arguments, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_joined_shares_equal_the_features_of_one_run(corpus, out, single):
    assert store_feature_share(corpus, out, (2, 3), BINS) == (3, SHARDS)
    assert sorted(name[:6] for name in archives(out)) == ["000001", "000004", "000007"] and not out.exists()
    assert store_feature_share(corpus, out, (1, 3), BINS, jobs=2) == (6, SHARDS)
    assert store_feature_share(corpus, out, (3, 3), BINS) == (SHARDS, SHARDS) and not out.exists()
    before = written(out)
    store_features(corpus, out, BINS)
    assert written(out) == before and same(out, single)


def test_joining_stores_the_missing_shards(corpus, out, single):
    store_feature_share(corpus, out, (1, 4), BINS)
    before = written(out)
    store_features(corpus, out, BINS)
    assert before.items() < written(out).items() and same(out, single)


def test_more_shares_than_shards_leave_some_without_work(corpus, out, single):
    assert store_feature_share(corpus, out, (20, 20), BINS) == (0, SHARDS)


@pytest.mark.slow
def test_a_killed_process_that_is_started_again_changes_nothing(corpus, out, single):
    killed, whole = start(corpus, out, "1/2", killed_at=8), start(corpus, out, "2/2")
    _, message = whole.communicate(timeout=120)
    assert (killed.wait(timeout=120), whole.returncode) == (-signal.SIGKILL, 0), message
    assert len(archives(out)) == 6 and not out.exists()
    finished = archives(single)
    assert all(path.read_bytes() == finished[name].read_bytes() for name, path in archives(out).items())
    before = written(out)

    again = start(corpus, out, "1/2")
    assert again.communicate(timeout=120)[0] == f"{out}: 8 of 8 shards are stored; run without --shard to write it\n"
    assert before.items() < written(out).items()
    store_features(corpus, out, BINS)
    assert same(out, single) and not list(out.parent.rglob(".tmp-*"))


def test_shares_that_start_at_the_same_moment_do_not_disturb_each_other(corpus, out, single):
    at_once(*(lambda i=i: store_feature_share(corpus, out, (i, 8), BINS) for i in range(1, 9)))
    before = written(out)
    store_features(corpus, out, BINS)
    assert written(out) == before and same(out, single)


def test_simultaneous_shares_of_different_settings_do_not_disturb_each_other(corpus, out):
    outcomes = at_once(*(lambda bins=bins: store_feature_share(corpus, out, (1, 1), bins) for bins in (BINS, BINS + 3)))
    assert outcomes == [(SHARDS, SHARDS), (SHARDS, SHARDS)]
    for bins in (BINS + 3, BINS):
        store_features(corpus, out, bins)
        assert all(load_features(cut, "stored", bins).shape[1] == bins for cut in open_cuts(out))


def test_features_remain_until_their_manifest_is_replaced(corpus, out, monkeypatch):
    store_features(corpus, out, BINS)
    before, manifest = written(out), out.read_bytes()
    store_feature_share(corpus, out, (2, 2), BINS + 3)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(feature_store, "_join_manifests", lambda *_: interrupt())
        store_features(corpus, out, BINS + 3)
    assert out.read_bytes() == manifest
    assert all(load_features(cut, "stored", BINS).shape[1] == BINS for cut in open_cuts(out))
    assert before.keys() <= written(out).keys()
    store_features(corpus, out, BINS + 3)
    assert all(load_features(cut, "stored", BINS + 3).shape[1] == BINS + 3 for cut in open_cuts(out))
    assert len(list((out.parent / "feats" / "train").iterdir())) == 1  # the replaced ones are gone


def interrupt():
    raise KeyboardInterrupt


def test_after_an_interrupted_deletion_no_shard_seems_complete(corpus, out, monkeypatch):
    store_features(corpus, out, BINS)
    deleted = []

    def unlink(path, **_):
        if len(deleted) == SHARDS + 2:
            raise KeyboardInterrupt
        deleted.append(path)
        os.unlink(path)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "unlink", lambda path, **_: None if ".tmp-" in path.name else unlink(path))
        store_features(corpus, out, BINS + 3)
    for bins in (BINS, BINS + 3):
        store_features(corpus, out, bins)
        assert all(load_features(cut, "stored", bins).shape[1] == bins for cut in open_cuts(out))


def test_unreadable_cuts_of_a_share_are_listed_and_stored_after_repair(corpus, tmp_path, out, write_audio):
    bad = [write_audio(tmp_path / f"bad{number}.flac", 1.0) for number in range(2)]
    rows = [Utterance(cut.id, cut.recording.sources[0].source, "one") for cut in open_cuts(corpus).subset(first=4)]
    rows[1:1], rows[5:5] = ([Utterance(path.stem, str(path), "one")] for path in bad)  # in the first and second shard
    write_manifest(rows, tmp_path / "mine.jsonl.gz")
    for path in bad:
        path.unlink()
    with pytest.raises(DataError) as caught:
        store_feature_share(tmp_path / "mine.jsonl.gz", out, (2, 2), BINS)
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["bad1"]
    for path in bad:
        write_audio(path, 1.0)
    assert [store_feature_share(tmp_path / "mine.jsonl.gz", out, (i, 2), BINS) for i in (2, 1)] == [(1, 2), (2, 2)]


def test_settings_are_readable_json(corpus, out):
    store_feature_share(corpus, out, (1, 8), BINS, speeds=(0.9, 1.0))
    (file,) = (out.parent / "feats" / "train").glob("*/settings.json")
    settings = json.loads(file.read_text(encoding="utf-8"))
    assert (settings["num_bins"], settings["speeds"], settings["shard_cuts"]) == (BINS, [0.9, 1.0], 3)


@pytest.mark.parametrize("share", ["0/2", "3/2", "x", "1/2/3", "1/", "-1/2", ""])
def test_an_invalid_share_is_one_error_line_and_status_2(monkeypatch, capsys, tmp_path, share):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["asrtool", "features", "a.jsonl.gz", "b.jsonl.gz", f"--shard={share}"])
    with pytest.raises(SystemExit) as stop:
        main()
    out, err = capsys.readouterr()
    assert (stop.value.code, out, err.count("\n")) == (2, "", 1)
    assert f"'{share}' is not I/N with I from 1 to N" in err and not list(tmp_path.iterdir())
