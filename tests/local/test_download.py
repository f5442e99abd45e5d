"""A corpus is downloaded completely, checked and unpacked once, despite interruptions and damage."""

import hashlib
import importlib.util
import io
import random
import re
import tarfile
from pathlib import Path

import pytest

from tests.egs.openslr import archive, serve

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "egs" / "librispeech"
PARTS = ["train-clean-5", "dev-clean-2"]
NOT_TEXT = "not UTF-8 (invalid start byte); convert it, e.g. with iconv"
SOUND = random.Random(1).randbytes(3_000_000)  # several blocks, and gzip does not make it less


@pytest.fixture(scope="module")
def script():
    """local/download.py as a module."""
    spec = importlib.util.spec_from_file_location("download", ROOT / "local" / "download.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def packed() -> dict[str, bytes]:
    return {f"31/{part}.tar.gz": archive(part, {"1/2/1-2-0000.flac": SOUND}) for part in PARTS}


@pytest.fixture
def openslr(packed):
    """Two parts and a language model."""
    with serve({**packed, "11/4-gram.arpa.gz": b"a model"}) as resources:
        yield resources


@pytest.fixture
def download(script, openslr, tmp_path, capsys):
    """download("train-clean-5") -> exit status and lines on stderr; into tmp_path / "out"."""
    sums = openslr.write_sums(tmp_path / "sums.txt")

    def run(*names: str, url: str = openslr.url, inside: str = "LibriSpeech") -> tuple[int, list[str]]:
        arguments = [str(tmp_path / "out"), *names, "--url", url, "--sums", str(sums), "--inside", inside]
        return script.main(arguments), capsys.readouterr().err.splitlines()

    run.out, run.sums = tmp_path / "out", sums
    return run


def is_whole(out: Path, part: str) -> bool:
    folder = out / "LibriSpeech" / part
    sound = (folder / "1/2/1-2-0000.flac").read_bytes() == SOUND
    return sound and (folder / ".completed").exists() and not list(out.glob(f"{part}*"))


def test_parts_are_unpacked_and_a_second_call_downloads_nothing(download, openslr):
    assert download(*PARTS)[0] == 0
    assert all(is_whole(download.out, part) for part in PARTS)
    openslr.requests.clear()
    assert download(*PARTS) == (0, [])
    assert openslr.requests == []


def test_a_file_that_is_not_an_archive_is_not_unpacked(download):
    assert download("4-gram.arpa.gz")[0] == 0
    assert [(path.name, path.read_bytes()) for path in download.out.iterdir()] == [("4-gram.arpa.gz", b"a model")]


def test_an_interrupted_download_continues_where_it_stopped(download, openslr):
    name = "31/train-clean-5.tar.gz"
    download.out.mkdir()
    (download.out / "train-clean-5.tar.gz.part").write_bytes(openslr.files[name][:2_000_000])
    assert download("train-clean-5")[0] == 0
    assert openslr.requests == [(name, 2_000_000)] and is_whole(download.out, "train-clean-5")


def test_a_lost_connection_is_opened_again(download, openslr):
    openslr.lose_after = 1_200_000
    assert download("train-clean-5")[0] == 0
    assert [first for _, first in openslr.requests] == [0, 1_200_000, 2_400_000]
    assert is_whole(download.out, "train-clean-5")


def test_a_server_without_ranges_sends_the_whole_file_again(download, openslr):
    openslr.ranges = False
    download.out.mkdir()
    (download.out / "train-clean-5.tar.gz.part").write_bytes(b"the beginning")
    assert download("train-clean-5")[0] == 0 and is_whole(download.out, "train-clean-5")


@pytest.mark.parametrize("damaged", [b"x" * 2_000_000, b"x" * 9_000_000])
def test_a_damaged_partial_file_is_downloaded_again(download, damaged):
    download.out.mkdir()
    (download.out / "train-clean-5.tar.gz.part").write_bytes(damaged)
    assert download("train-clean-5")[0] == 0 and is_whole(download.out, "train-clean-5")


def test_an_interrupted_unpacking_is_repeated_without_a_download(download, openslr):
    (download.out / "LibriSpeech/train-clean-5/9").mkdir(parents=True)
    (download.out / "train-clean-5.tar.gz").write_bytes(openslr.files["31/train-clean-5.tar.gz"])
    assert download("train-clean-5")[0] == 0
    assert is_whole(download.out, "train-clean-5") and openslr.requests == []
    assert not (download.out / "LibriSpeech/train-clean-5/9").exists()


def test_a_file_with_another_checksum_is_refused_and_removed(download, openslr):
    openslr.files["31/dev-clean-2.tar.gz"] = openslr.files["31/train-clean-5.tar.gz"]
    status, lines = download("dev-clean-2")
    assert status == 2 and "does not have the MD5 sum" in lines[-1] and "Traceback" not in "".join(lines)
    assert list(download.out.iterdir()) == []


def test_a_missing_file_and_a_missing_server_are_one_error_line(download, openslr):
    del openslr.files["31/dev-clean-2.tar.gz"]
    status, lines = download("dev-clean-2")
    assert status == 2 and "404" in lines[-1] and "--mirror" in lines[-1]
    status, lines = download("train-clean-5", url="http://127.0.0.1:9/none")
    assert status == 2 and "cannot download http://127.0.0.1:9/none/31/train-clean-5.tar.gz" in lines[-1]


def test_an_unknown_part_is_named_with_the_nearest_one(download):
    assert download("train-clean-500") == (
        2,
        ["download.py: error: there is no 'train-clean-500' to download; did you mean 'train-clean-5'?"],
    )


def test_each_part_that_the_recipe_names_has_a_checksum(script):
    named = re.findall(r'\bparts="([^"$]*)|scored="([^"]*)', (RECIPE / "local" / "data.sh").read_text())
    parts = {part for pair in named for part in " ".join(pair).split()}
    files = set(re.search(r'lm_files="(.*)"', (RECIPE / "local" / "lm.sh").read_text())[1].split())
    sums = script.read_checksums(RECIPE / "local" / "md5sum.txt")
    assert parts | files == set(sums) and len(parts) == 9
    assert all(re.fullmatch("[0-9a-f]{32}", file.checksum) for file in sums.values())


def test_yesno_has_a_sha256_checksum(script):
    sums = script.read_checksums(ROOT / "egs" / "yesno" / "local" / "sha256sum.txt")
    assert list(sums) == ["waves_yesno"] and re.fullmatch("[0-9a-f]{64}", sums["waves_yesno"].checksum)


def test_sha256_checksums_are_compared(download, openslr):
    data = openslr.files["11/4-gram.arpa.gz"]
    download.sums.write_text(f"# a comment\n{hashlib.sha256(data).hexdigest()}  11/4-gram.arpa.gz\n")
    assert download("4-gram.arpa.gz")[0] == 0
    (download.out / "4-gram.arpa.gz").unlink()
    openslr.files["11/4-gram.arpa.gz"] = b"another"
    status, lines = download("4-gram.arpa.gz")
    assert status == 2 and "does not have the SHA-256 sum" in lines[-1] and list(download.out.iterdir()) == []


@pytest.mark.parametrize("line", ["no sum", "0123  11/x", "Z" * 32 + "  11/x", "0" * 32, "0" * 40 + "  11/x"])
def test_a_line_that_is_not_a_checksum_is_named(download, line):
    download.sums.write_text(f"# a comment\n{line}\n")
    status, lines = download("x")
    assert status == 2 and lines == [
        f"download.py: error: {download.sums}:2: not a line of md5sum or sha256sum: {line}"
    ]


@pytest.mark.parametrize(
    "url", ["", "openslr", "http://[x", "http://127.0.0.1:1/ü", "http://127.0.0.1:x", "http://a b"]
)
def test_a_url_that_is_none_is_one_error_line(download, url):
    status, lines = download("4-gram.arpa.gz", url=url)
    assert status == 2 and lines[-1].startswith(f"download.py: error: cannot download {url}/11/4-gram.arpa.gz (")


def test_a_file_of_checksums_that_is_not_text_is_one_error_line(download):
    download.sums.write_bytes(b"# \xff\n")
    assert download("x") == (2, [f"download.py: error: {download.sums}:1: {NOT_TEXT}"])


@pytest.mark.parametrize("harm", ["cut off", "a header alone", "empty", "another kind", "a flipped bit"])
def test_a_damaged_archive_in_the_folder_is_named_with_the_remedy(download, packed, harm):
    content = packed["31/train-clean-5.tar.gz"]
    half = len(content) // 2
    harmed = {"cut off": content[:half], "a header alone": content[:10], "empty": b"", "another kind": b"<html>" * 99}
    download.out.mkdir()
    path = download.out / "train-clean-5.tar.gz"
    path.write_bytes(harmed.get(harm, content[:half] + bytes([content[half] ^ 255]) + content[half + 1 :]))
    status, lines = download("train-clean-5")
    assert status == 2 and re.fullmatch(
        rf"download\.py: error: {path} is damaged \(.*\); remove it and run the same command again", lines[-1]
    )
    path.unlink()
    assert download("train-clean-5")[0] == 0 and is_whole(download.out, "train-clean-5")


def unsafe(**settings: object) -> bytes:
    """An archive of LibriSpeech/train-clean-5 with one member that has these settings."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        folder = tarfile.TarInfo("LibriSpeech/train-clean-5")
        folder.type = tarfile.DIRTYPE
        member = tarfile.TarInfo("LibriSpeech/train-clean-5/x")
        for name, value in settings.items():
            setattr(member, name, value)
        tar.addfile(folder)
        tar.addfile(member)
    return packed.getvalue()


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "../evil"},
        {"name": "LibriSpeech/../../evil"},
        {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
        {"type": tarfile.SYMTYPE, "linkname": "../../../evil"},
        {"type": tarfile.LNKTYPE, "linkname": "../evil"},
        {"type": tarfile.CHRTYPE},
        {"type": tarfile.FIFOTYPE},
    ],
)
def test_an_archive_member_outside_the_folder_or_that_is_not_a_file_is_refused(download, openslr, settings):
    openslr.files["31/train-clean-5.tar.gz"] = unsafe(**settings)
    openslr.write_sums(download.sums)
    status, lines = download("train-clean-5")
    assert status == 2 and lines[-1].startswith("download.py: error: ") and "Traceback" not in "".join(lines)
    assert not (download.out.parent / "evil").exists() and not (download.out / "evil").exists()
    assert not (download.out / "LibriSpeech/train-clean-5/.completed").exists()


def test_a_python_that_cannot_unpack_safely_is_refused_before_the_download(download, openslr, monkeypatch):
    monkeypatch.delattr(tarfile, "data_filter")
    status, lines = download("train-clean-5")
    assert status == 2 and len(lines) == 1 and "cannot unpack archives safely; use 3.11.4 or newer" in lines[0]
    assert openslr.requests == []
