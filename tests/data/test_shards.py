"""Manifests of every shape hold what lhotse finds in them, from any entry on."""

import gzip
import json
import shutil
import tarfile

import numpy as np
import pytest
from lhotse import CutSet
from lhotse.shar import SharWriter

from asrtool.data import shards
from asrtool.data.feature_store import store_features
from asrtool.data.lhotse_objects import read_cut
from asrtool.data.lhotse_sets import open_cuts
from asrtool.data.shards import entries, manifest_files, read_entries
from asrtool.data.sources import InvalidEntry
from asrtool.errors import UserError


@pytest.fixture(scope="module")
def stored(corpus, tmp_path_factory):
    """The tiny corpus with stored features."""
    out = tmp_path_factory.mktemp("stored") / "stored.jsonl.gz"
    store_features(corpus, out, 20)
    return out


def write_shar(cuts, folder, **fields):
    """Shar of 10 cuts a file."""
    folder.mkdir()
    with SharWriter(folder, fields, shard_size=10, warn_unused_fields=False) as writer:
        for cut in open_cuts(cuts):
            writer.write(cut)
    return folder


@pytest.fixture(scope="module")
def shar(corpus, tmp_path_factory):
    """The tiny corpus as Shar of audio."""
    return write_shar(corpus, tmp_path_factory.mktemp("shar") / "audio", recording="flac")


@pytest.fixture(scope="module")
def shar_features(stored, tmp_path_factory):
    """The tiny corpus as Shar of features alone."""
    return write_shar(stored, tmp_path_factory.mktemp("shar") / "features", features="lilcom")


@pytest.fixture
def lines(corpus):
    """The lines of the tiny corpus, each with its end."""
    return gzip.decompress(corpus.read_bytes()).splitlines(keepends=True)


@pytest.mark.parametrize("name", ["cuts.jsonl", "cuts.jsonl.gz"])
def test_entries_of_a_file_are_the_cuts_that_lhotse_reads(corpus, tmp_path, name):
    CutSet.from_cuts(open_cuts(corpus)).to_file(tmp_path / name)
    found = list(entries(tmp_path / name))
    assert [read_cut(entry) for entry in found] == list(CutSet.from_file(tmp_path / name))
    assert [(entry.id, entry.duration) for entry in found] == [(cut.id, cut.duration) for cut in open_cuts(corpus)]
    assert all(entry.shar_items == () for entry in found)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_files_of_a_folder_are_read_in_the_order_of_their_names(corpus, tmp_path, suffix):
    cuts = list(open_cuts(corpus))
    for name, part in (("b", cuts[:5]), ("c", cuts[5:6]), ("a", cuts[6:])):
        CutSet.from_cuts(part).to_file(tmp_path / f"{name}{suffix}")
    files = [tmp_path / f"{name}{suffix}" for name in "abc"]
    assert manifest_files(tmp_path) == files
    assert [read_cut(entry) for entry in entries(tmp_path)] == list(CutSet.from_files(files, shuffle_iters=False))


def test_other_and_unfinished_files_of_a_folder_are_ignored(lines, tmp_path):
    for name in ("a.jsonl", ".tmp-17-b.jsonl", "c.jsonl~", "a.jsonl.bak", "feats.tar"):
        (tmp_path / name).write_bytes(b"".join(lines))
    assert manifest_files(tmp_path) == [tmp_path / "a.jsonl"]


def test_shar_of_audio_has_the_cuts_that_lhotse_reads(corpus, shar):
    found = list(entries(shar))
    pairs = zip(found, CutSet.from_shar(in_dir=shar), open_cuts(corpus), strict=True)
    for entry, theirs, original in pairs:
        cut = read_cut(entry)
        assert (cut.id, cut.duration, cut.supervisions) == (original.id, original.duration, original.supervisions)
        assert (cut.sampling_rate, cut.num_samples) == (original.sampling_rate, original.num_samples)
        assert np.array_equal(cut.load_audio(), theirs.load_audio())
        assert np.array_equal(cut.load_audio(), original.load_audio())


def test_shar_of_features_has_the_cuts_that_lhotse_reads(stored, shar_features):
    pairs = zip(entries(shar_features), CutSet.from_shar(in_dir=shar_features), open_cuts(stored), strict=True)
    for entry, theirs, original in pairs:
        features = read_cut(entry).load_features()
        assert np.array_equal(features, theirs.load_features())
        assert np.abs(features - original.load_features()).max() <= 2.0**-5  # lhotse's lilcom is coarser than ours


def test_other_fields_of_shar_and_missing_fields_are_ignored(stored, tmp_path):
    cuts = list(open_cuts(stored))
    mixed = [cut.drop_features() if number % 3 else cut for number, cut in enumerate(cuts)]
    for number, cut in enumerate(mixed):
        cut.number = number
    with SharWriter(tmp_path, {"recording": "flac", "features": "lilcom", "number": "jsonl"}, shard_size=10) as writer:
        for cut in mixed:
            writer.write(cut)
    for entry, original in zip(entries(tmp_path), mixed, strict=True):
        cut = read_cut(entry)
        assert cut.has_features == original.has_features
        assert np.array_equal(cut.load_audio(), original.load_audio())


def test_shar_without_numbers_is_read(corpus, tmp_path):
    with SharWriter(tmp_path, {"recording": "wav"}, shard_size=None) as writer:
        for cut in open_cuts(corpus):
            writer.write(cut)
    for entry, original in zip(entries(tmp_path), open_cuts(corpus), strict=True):
        assert np.array_equal(read_cut(entry).load_audio(), original.load_audio())


def written(folder, content: bytes, name: str):
    """A manifest of these bytes."""
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return folder / name


@pytest.mark.parametrize("name", ["cuts.jsonl", "cuts.jsonl.gz"])
@pytest.mark.parametrize("chunk", [1, 700, 3000, 1 << 20])
@pytest.mark.parametrize("shape", ["plain", "no last newline", "blank lines", "carriage returns", "byte order mark"])
def test_reading_can_start_at_any_entry(monkeypatch, lines, tmp_path, name, chunk, shape):
    monkeypatch.setattr(shards, "CHUNK", chunk)
    content = b"".join(lines)
    if shape == "no last newline":
        content = content.rstrip()
    elif shape == "blank lines":
        content = b"\n" + b"".join(line + number % 4 * b" \n" for number, line in enumerate(lines)) + b"\n\n"
    elif shape == "carriage returns":
        content = content.replace(b"\n", b"\r\n")
    elif shape == "byte order mark":
        content = b"\xef\xbb\xbf" + content
    file = written(tmp_path, content, name)
    whole = list(read_entries(file))
    assert [entry.to_dict() for entry in whole] == [json.loads(line) for line in lines]
    for first in range(len(lines) + 3):
        assert list(read_entries(file, first)) == whole[first:]


def test_entries_longer_than_a_chunk_and_chunks_of_many_entries(lines, tmp_path):
    file = written(tmp_path, b"".join(lines * 200), "cuts.jsonl.gz")  # 2 MB and more
    whole = list(read_entries(file))
    assert len(whole) == 200 * len(lines) and sum(len(entry.line) for entry in whole) > 2 * shards.CHUNK
    for first in (0, 1, 1000, 2000, 3000, len(whole) - 1, len(whole)):
        assert list(read_entries(file, first)) == whole[first:]


def test_reading_shar_can_start_at_any_entry(corpus, shar):
    (file, *_), original = manifest_files(shar), list(open_cuts(corpus))
    for first in (0, 3, 9, 10):
        found = list(read_entries(file, first))
        assert [entry.id for entry in found] == [cut.id for cut in original[first:10]]
        for entry, cut in zip(found[:1], original[first:], strict=False):
            assert np.array_equal(read_cut(entry).load_audio(), cut.load_audio())


def refused(path) -> str:
    """Returns the error of reading entries, which is one line that names the manifest."""
    with pytest.raises(UserError) as caught:
        list(entries(path))
    message = str(caught.value)
    assert "\n" not in message and str(path) in message and "asrtool prepare" in message
    return message


def test_a_broken_gzip_is_refused(lines, tmp_path):
    content = bytearray(gzip.compress(b"".join(lines)))
    for name, broken in (
        ("end", content[: len(content) // 2]),
        ("middle", content[:300] + bytes(200) + content[500:]),
        ("start", b"\x00" + content),
        ("sum", content[:-8] + bytes(8)),
    ):
        (tmp_path / f"{name}.jsonl.gz").write_bytes(broken)
        assert "is not a manifest of cuts" in refused(tmp_path / f"{name}.jsonl.gz")


@pytest.mark.parametrize("line", [b"not JSON", b"[1, 2]", b"7", b'"id"', b"{}", b'{"id": "a"}', b"\xff\xfe", b"{"])
def test_an_entry_that_is_not_a_cut_is_refused(lines, tmp_path, line):
    assert "is not a manifest of cuts" in refused(written(tmp_path, lines[0] + line + b"\n" + lines[1], "x.jsonl"))


def test_a_mixed_cut_is_refused_and_named(corpus, tmp_path):
    one, two = open_cuts(corpus).subset(first=2)
    CutSet.from_cuts([one, one.mix(two)]).to_file(tmp_path / "mixed.jsonl.gz")
    assert "number 2 is a MixedCut" in refused(tmp_path / "mixed.jsonl.gz")


def test_recordings_are_refused(corpus, tmp_path):
    recordings, _, _ = open_cuts(corpus).decompose()
    recordings.to_file(tmp_path / "recordings.jsonl.gz")
    assert "is not a manifest of cuts" in refused(tmp_path / "recordings.jsonl.gz")


@pytest.mark.parametrize("harm", ["missing", "cut off", "compressed", "short"])
@pytest.mark.parametrize("field", ["recording", "features"])
def test_a_tar_file_that_is_missing_or_broken_is_refused(shar, shar_features, tmp_path, field, harm):
    folder = shutil.copytree(shar if field == "recording" else shar_features, tmp_path / "copy")
    tar = folder / f"{field}.000001.tar"
    if harm == "missing":
        tar.unlink()
    elif harm == "cut off":
        tar.write_bytes(tar.read_bytes()[:3000])
    elif harm == "compressed":
        tar.write_bytes(gzip.compress(tar.read_bytes()))
    else:
        tarfile.open(tar, "w").close()
    message = refused(folder)
    assert "cuts.000001.jsonl.gz" in message
    assert (tar.name in message) == (harm == "missing")


def test_a_tar_file_that_vanishes_later_is_named(shar, tmp_path):
    folder = shutil.copytree(shar, tmp_path / "copy")
    found = next(entries(folder))
    (folder / "recording.000000.tar").unlink()
    with pytest.raises(InvalidEntry, match=rf"{found.id}: cannot read .*recording\.000000\.tar"):
        read_cut(found)


def test_a_missing_manifest_and_an_empty_folder_are_refused(tmp_path):
    assert "manifest not found" in refused(tmp_path / "none.jsonl.gz")
    assert "manifest not found" in refused(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "no *.jsonl.gz in" in refused(tmp_path / "empty")
