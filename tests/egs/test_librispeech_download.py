"""The download of LibriSpeech: whole, checked and unpacked once, whatever happens on the way."""

import importlib.util
import random
import re
from pathlib import Path

import pytest

from tests.egs.openslr import archive, serve

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "egs" / "librispeech"
PARTS = ["train-clean-5", "dev-clean-2"]
SOUND = random.Random(1).randbytes(3_000_000)  # several blocks, and gzip does not make it less


@pytest.fixture(scope="module")
def script():
    """local/download.py as a module."""
    spec = importlib.util.spec_from_file_location("librispeech_download", RECIPE / "local" / "download.py")
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
    """download("train-clean-5") -> exit status and what was said; into tmp_path / "out"."""
    sums = openslr.write_sums(tmp_path / "sums.txt")

    def run(*names: str) -> tuple[int, list[str]]:
        status = script.main([str(tmp_path / "out"), *names, "--url", openslr.url, "--sums", str(sums)])
        return status, capsys.readouterr().err.splitlines()

    run.out = tmp_path / "out"
    return run


def is_whole(out: Path, part: str) -> bool:
    folder = out / "LibriSpeech" / part
    sound = (folder / "1/2/1-2-0000.flac").read_bytes() == SOUND
    return sound and (folder / ".completed").exists() and not list(out.glob(f"{part}*"))


def test_parts_are_unpacked_and_a_second_call_asks_for_nothing(download, openslr):
    assert download(*PARTS)[0] == 0
    assert all(is_whole(download.out, part) for part in PARTS)
    openslr.requests.clear()
    assert download(*PARTS) == (0, [])
    assert openslr.requests == []


def test_a_file_that_is_no_archive_stays_as_it_is(download):
    assert download("4-gram.arpa.gz")[0] == 0
    assert [(path.name, path.read_bytes()) for path in download.out.iterdir()] == [("4-gram.arpa.gz", b"a model")]


def test_an_interrupted_download_goes_on_where_it_was(download, openslr):
    name = "31/train-clean-5.tar.gz"
    download.out.mkdir()
    (download.out / "train-clean-5.tar.gz.part").write_bytes(openslr.files[name][:2_000_000])
    assert download("train-clean-5")[0] == 0
    assert openslr.requests == [(name, 2_000_000)] and is_whole(download.out, "train-clean-5")


def test_lost_connections_are_made_again(download, openslr):
    openslr.lose_after = 1_200_000
    assert download("train-clean-5")[0] == 0
    assert [first for _, first in openslr.requests] == [0, 1_200_000, 2_400_000]
    assert is_whole(download.out, "train-clean-5")


def test_a_server_that_cannot_go_on_sends_all_anew(download, openslr):
    openslr.ranges = False
    download.out.mkdir()
    (download.out / "train-clean-5.tar.gz.part").write_bytes(b"the beginning")
    assert download("train-clean-5")[0] == 0 and is_whole(download.out, "train-clean-5")


@pytest.mark.parametrize("damaged", [b"x" * 2_000_000, b"x" * 9_000_000])
def test_what_was_damaged_before_is_fetched_anew(download, damaged):
    download.out.mkdir()
    (download.out / "train-clean-5.tar.gz.part").write_bytes(damaged)
    assert download("train-clean-5")[0] == 0 and is_whole(download.out, "train-clean-5")


def test_an_interrupted_unpacking_is_done_again_without_a_download(download, openslr):
    (download.out / "LibriSpeech/train-clean-5/9").mkdir(parents=True)
    (download.out / "train-clean-5.tar.gz").write_bytes(openslr.files["31/train-clean-5.tar.gz"])
    assert download("train-clean-5")[0] == 0
    assert is_whole(download.out, "train-clean-5") and openslr.requests == []
    assert not (download.out / "LibriSpeech/train-clean-5/9").exists()


def test_another_file_than_the_published_one_is_refused_and_removed(download, openslr):
    openslr.files["31/dev-clean-2.tar.gz"] = openslr.files["31/train-clean-5.tar.gz"]
    status, said = download("dev-clean-2")
    assert status == 2 and "has not the MD5 sum" in said[-1] and "Traceback" not in "".join(said)
    assert list(download.out.iterdir()) == []


def test_a_missing_file_and_a_missing_server_are_one_line(download, openslr, script, tmp_path, capsys):
    del openslr.files["31/dev-clean-2.tar.gz"]
    status, said = download("dev-clean-2")
    assert status == 2 and "404" in said[-1] and "--mirror" in said[-1]
    assert script.main([str(tmp_path / "out"), "train-clean-5", "--url", "http://127.0.0.1:9/none"]) == 2
    assert "cannot download http://127.0.0.1:9/none/31/train-clean-5.tar.gz" in capsys.readouterr().err.splitlines()[-1]


def test_an_unknown_part_is_named_beside_the_nearest(download):
    assert download("train-clean-500") == (
        2,
        ["download.py: error: there is no 'train-clean-500' to download; did you mean 'train-clean-5'?"],
    )


def test_there_is_a_sum_for_each_part_that_the_recipe_names(script):
    named = re.findall(r'parts="([^"$]*)|scored="([^"]*)', (RECIPE / "local" / "data.sh").read_text())
    parts = {part for pair in named for part in " ".join(pair).split()}
    files = set(re.search(r'lm_files="(.*)"', (RECIPE / "local" / "lang.sh").read_text())[1].split())
    assert parts | files == set(script.read_sums(script.SUMS)) and len(parts) == 9
    assert all(re.fullmatch("[0-9a-f]{32}", md5) for _, md5 in script.read_sums(script.SUMS).values())
