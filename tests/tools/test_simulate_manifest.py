"""A simulated manifest is one that training could read, and always the same; what it costs can be measured."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from types import ModuleType

import pytest
from lhotse import CutSet

from asrtool.config import Config
from asrtool.data.lhotse_objects import read_cut
from asrtool.data.lhotse_sets import open_cuts
from asrtool.data.sampling import TrainingSampler
from asrtool.data.shards import entries, manifest_files
from tests.tools.load import load_tool

ROOT = Path(__file__).resolve().parents[2]
HOURS = 3.25  # 1,000 cuts


@pytest.fixture(scope="module")
def simulate() -> ModuleType:
    """The tool as a module."""
    with pytest.MonkeyPatch.context() as patch:
        module = load_tool("simulate_manifest", patch)
        yield module


@pytest.fixture(scope="module")
def make(simulate: ModuleType) -> Callable[..., int]:
    """make(out, "--seed", 2) -> the exit status"""

    def call(out: Path, *options: object) -> int:
        words = ["simulate_manifest.py", out, "--hours", HOURS, "--cuts-per-file", 300, "--jobs", 1, *options]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", list(map(str, words)))
            return simulate.main()

    return call


@pytest.fixture(scope="module")
def folder(make: Callable[..., int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,000 cuts in files of 300."""
    out = tmp_path_factory.mktemp("simulated") / "folder"
    assert make(out) == 0
    return out


def content(path: Path) -> bytes:
    return b"".join(gzip.decompress(file.read_bytes()) for file in manifest_files(path))


def keys(content: object) -> object:
    """The names and types in a JSON value."""
    if isinstance(content, dict):
        return {name: keys(value) for name, value in content.items()}
    return [keys(value) for value in content] if isinstance(content, list) else type(content)


def test_lhotse_reads_it_and_lines_are_as_prepare_writes_them(folder: Path, corpus: Path) -> None:
    files = manifest_files(folder)
    assert [sum(1 for _ in entries(file)) for file in files] == [300, 300, 300, 100]
    cuts = [cut for file in files for cut in CutSet.from_file(file)]
    assert [cut.to_dict() for cut in cuts] == [json.loads(line) for line in content(folder).splitlines()]
    assert len({cut.id for cut in cuts}) == 1000 and len({cut.supervisions[0].speaker for cut in cuts}) == 20
    real = next(entries(corpus)).to_dict()
    assert all(keys(entry.to_dict()) == keys(real) for entry in entries(folder))


def test_lengths_and_texts_are_like_those_of_read_speech(folder: Path) -> None:
    cuts = [cut for file in manifest_files(folder) for cut in CutSet.from_file(file)]
    seconds = [cut.duration for cut in cuts]
    assert 2 <= min(seconds) < 4 and 18 < max(seconds) <= 20
    assert sum(seconds) / 3600 == pytest.approx(HOURS, rel=0.05)
    assert all(len(cut.supervisions[0].text.split()) == pytest.approx(3 * cut.duration, abs=0.51) for cut in cuts)
    assert all(cut.num_samples == round(16000 * cut.duration) == cut.recording.num_samples for cut in cuts)
    assert len({cut.supervisions[0].text for cut in cuts}) > 990


def test_same_options_give_the_same_bytes_and_another_seed_does_not(
    make: Callable[..., int], folder: Path, tmp_path: Path
) -> None:
    assert make(tmp_path / "again", "--jobs", 2) == make(tmp_path / "other", "--seed", 2) == 0
    result = [[file.read_bytes() for file in manifest_files(path)] for path in (folder, tmp_path / "again")]
    assert result[0] == result[1]
    assert content(tmp_path / "other") != content(folder)


def test_single_file_holds_the_lines_of_the_folder(make: Callable[..., int], folder: Path, tmp_path: Path) -> None:
    assert make(tmp_path / "one.jsonl.gz", "--shape", "single") == 0
    assert content(tmp_path / "one.jsonl.gz") == content(folder)
    assert [cut.id for cut in open_cuts(tmp_path / "one.jsonl.gz")] == [entry.id for entry in entries(folder)]


def test_training_runs_over_it(folder: Path, tiny_config: Callable[..., Config]) -> None:
    config = tiny_config(data={"train": str(folder), "batch_seconds": 200})
    items = list(takewhile(lambda item: item.position.epoch < 1, TrainingSampler(config.data, config.seed)))
    result = sorted(entry.id for item in items for entry in item.entries)
    assert result == [entry.id for entry in entries(folder)]


def test_all_recordings_can_be_one_file(make: Callable[..., int], tmp_path: Path, write_audio: Callable) -> None:
    audio = write_audio(tmp_path / "some.flac", 3.0, rate=8000)
    assert make(tmp_path / "out", "--audio", audio, "--hours", 0.01) == 0
    cuts = [read_cut(entry) for entry in entries(tmp_path / "out")]
    assert len(cuts) == 12 and all(2 <= cut.duration <= 3 and cut.sampling_rate == 8000 for cut in cuts)
    assert all(cut.load_audio().shape == (1, cut.num_samples) for cut in cuts)


def test_what_is_there_is_not_touched_and_missing_audio_is_named(
    make: Callable[..., int], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    before = content(folder)
    assert make(folder) == 2 and f"{folder} is there already" in capsys.readouterr().err
    assert content(folder) == before
    assert make(tmp_path / "out", "--audio", "/none/some.flac") == 2
    assert "no such audio file: /none/some.flac" in capsys.readouterr().err and not (tmp_path / "out").exists()


def scale(*options: object) -> subprocess.CompletedProcess:
    """tools/bench/scale.py, tiny."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, ROOT / "tools" / "bench" / "scale.py", *options, "--quick"]
    return subprocess.run(map(str, command), capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths})


@pytest.mark.slow
def test_what_it_costs_is_measured_beside_a_baseline(folder: Path, tmp_path: Path) -> None:
    done = scale(folder, "--json", tmp_path / "figures.json", "--batches", 10)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "figures.json").read_text())
    assert result["device"] and result["sizes"]["manifest"] == str(folder)
    measured = [(row["case"], row["what"]) for row in result["rows"]]
    assert measured == [("stream", "asrtool"), ("stream", "lhotse"), ("resume", "asrtool"), ("inspection", "asrtool")]
    for row in result["rows"]:
        figures = {name: value for name, value in row.items() if name not in ("case", "what", "baseline")}
        assert all(value > 0 for name, value in figures.items() if "grown" not in name)
        assert all(name in done.stdout for name in figures)


def test_missing_manifest_is_one_line(tmp_path: Path) -> None:
    done = scale(tmp_path / "none")
    assert done.returncode == 2 and "manifest not found" in done.stderr and done.stderr.count("\n") == 1
