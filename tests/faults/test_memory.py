"""Small files that unpack to gigabytes are refused, or read with at most 500 MB above a command's usual memory."""

import gzip
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.faults.commands import run

MORE = 500 << 20  # bytes
PACKED = 2 << 20  # bytes of a file that a stranger may send
BLOCK = b" " * (1 << 20)


def blank_line(path: Path) -> Path:
    """Writes a gzip file of one line of 1.5 GB."""
    with gzip.open(path, "wb", 1) as file:
        for _ in range(1500):
            file.write(BLOCK)
        file.write(b"\n")
    return path


def zeros(path: Path, names: tuple[str, ...]) -> Path:
    """Writes a zip archive whose members, .npy arrays, unpack to 1.5 GB in all."""
    head = Path(f"{path}.head")
    count = (1500 << 20) // len(names) // 8
    with open(head, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<i8", "fortran_order": False, "shape": (count,)})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in names:
            with archive.open(name, "w") as member:
                member.write(head.read_bytes())
                for _ in range(count * 8 >> 20):
                    member.write(bytes(1 << 20))
    return path


def silence(path: Path, hours: float) -> Path:
    """Writes a FLAC file of hours of digital silence, which has a megabyte."""
    with soundfile.SoundFile(path, "w", 16000, 1) as file:
        for _ in range(int(hours * 60)):
            file.write(np.zeros(16000 * 60, np.float32))
    return path


@pytest.fixture(scope="module")
def plain(given, tmp_path_factory) -> int:
    """Returns the peak memory of a command that reads little."""
    folder = tmp_path_factory.mktemp("plain")
    return run(folder, "lm", "perplexity", given.arpa, given.text).peak


def check(finished, plain, statuses=(1, 2)):
    assert finished.status in statuses, (finished.status, finished.printed)
    assert "Traceback" not in finished.printed
    assert finished.peak - plain < MORE, f"{finished.peak - plain >> 20} MB"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cuts.jsonl.gz", "text.gz", "lexicon.txt.gz", "lm.arpa.gz"])
def test_a_compressed_line_of_gigabytes_takes_bounded_memory(given, plain, tmp_path, name):
    path = blank_line(tmp_path / name)
    assert path.stat().st_size < 4 * PACKED
    commands = {
        "cuts.jsonl.gz": [
            ("decode", given.exp, path, "--device", "cpu", "--workers", 0),
            ("features", path, tmp_path / "fb.jsonl.gz"),
            ("prepare", "lhotse", tmp_path / "out.jsonl.gz", "--cuts", path),
            ("tokenizer", path, tmp_path / "tokenizer.json"),
        ],
        "text.gz": [("lm", "train", path, tmp_path / "out.arpa")],
        "lexicon.txt.gz": [
            ("tokenizer", given.cuts, tmp_path / "tokenizer.json", "--type", "phone", "--lexicon", path),
        ],
        "lm.arpa.gz": [
            ("lm", "perplexity", path, given.text),
            ("graph", tmp_path / "graph", "--tokenizer", given.tokenizer, "--lm", path),
        ],
    }
    for command in commands[name]:
        check(run(tmp_path, *command), plain)


@pytest.mark.slow
def test_a_compressed_language_model_of_zeros_takes_bounded_memory(given, plain, tmp_path):
    names = ("words.npy", "keys.npy", "offsets.npy", "suffixes.npy", "logprobs.npy", "backoffs.npy", "states.npy")
    path = zeros(tmp_path / "lm.npz", names)
    check(run(tmp_path, "lm", "perplexity", path, given.text), plain)


@pytest.mark.slow
def test_a_checkpoint_with_compressed_records_takes_bounded_memory(given, experiment_copy, plain, tmp_path):
    path = experiment_copy / "checkpoints" / "best.pt"
    packed = zipfile.ZipFile(tmp_path / "new.pt", "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with zipfile.ZipFile(path) as old, packed as new:
        records = [name for name in old.namelist() if "/data/" in name]
        for name in old.namelist():
            with new.open(name, "w") as file:
                file.write(old.read(name))
                for _ in range(300 if name in records[:5] else 0):
                    file.write(bytes(1 << 20))
    shutil.move(tmp_path / "new.pt", path)
    check(run(tmp_path, "decode", experiment_copy, given.cuts, "--device", "cpu"), plain)


@pytest.mark.slow
def test_hours_of_silence_take_bounded_memory(given, plain, tmp_path):
    audio = silence(tmp_path / "long.flac", 6)
    assert audio.stat().st_size < 2 * PACKED
    (tmp_path / "t.csv").write_text(f"audio,text\n{audio},one\n", encoding="utf-8")
    manifest = tmp_path / "long.jsonl.gz"
    check(run(tmp_path, "prepare", "table", tmp_path / "t.csv", manifest), plain, (0, 1, 2))
    if manifest.exists():
        check(run(tmp_path, "features", manifest, tmp_path / "fb.jsonl.gz", "--jobs", 1), plain)
        check(run(tmp_path, "decode", given.exp, manifest, "--device", "cpu", "--workers", 0), plain)


@pytest.mark.parametrize("kind", ["aliases", "bases", "depth", "width"])
def test_a_configuration_that_expands_to_gigabytes_takes_bounded_memory(given, plain, tmp_path, kind):
    path = tmp_path / "c.yaml"
    if kind == "aliases":
        lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
        lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
        path.write_text("\n".join(lines), encoding="utf-8")
    elif kind == "bases":
        path.write_text("base: [b0.yaml, b0.yaml]\n", encoding="utf-8")
        for n in range(24):
            (tmp_path / f"b{n}.yaml").write_text(f"base: [b{n + 1}.yaml, b{n + 1}.yaml]\n", encoding="utf-8")
        (tmp_path / "b24.yaml").write_text("seed: 1\n", encoding="utf-8")
    elif kind == "depth":
        path.write_text("[" * 100_000, encoding="utf-8")
    else:
        text = given.config.read_text(encoding="utf-8")
        path.write_text(text.replace("ff_dim: 32", "ff_dim: 200000000"), encoding="utf-8")
        assert path.read_text(encoding="utf-8") != text
    finished = run(tmp_path, "info", path, "--set", f"data.tokenizer={given.tokenizer}")
    check(finished, plain, (0, 1, 2) if kind == "bases" else (1, 2))


def test_a_configuration_larger_than_its_weights_takes_bounded_memory(given, experiment_copy, plain, tmp_path):
    path = experiment_copy / "config.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("ff_dim: 32", "ff_dim: 20000000"), encoding="utf-8")
    check(run(tmp_path, "decode", experiment_copy, given.cuts, "--device", "cpu"), plain)


def test_file_headers_that_claim_gigabytes_take_bounded_memory(given, experiment_copy, plain, tmp_path):
    arpa = tmp_path / "lm.arpa"
    arpa.write_text(given.arpa.read_text().replace("ngram 1=", "ngram 1=99999999999"), encoding="utf-8")
    check(run(tmp_path, "lm", "perplexity", arpa, given.text), plain)
    shutil.copytree(given.graph, tmp_path / "graph")
    fst = tmp_path / "graph" / "HLG.fst"
    content = bytearray(fst.read_bytes())
    content[52:60] = (1 << 40).to_bytes(8, "little")  # of states or arcs, in OpenFst's header
    fst.write_bytes(bytes(content))
    options = ("--method", "graph", "--graph", tmp_path / "graph", "--device", "cpu")
    check(run(tmp_path, "decode", experiment_copy, given.cuts, *options), plain)
