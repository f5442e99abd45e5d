"""The synthetic digits: LibriSpeech's layout, separate voices, the same bytes every time, true times."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("espeakng_loader", reason="needs espeak-ng: pip install espeakng-loader")

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "egs" / "digits" / "local" / "synthesise.py"
SIZES = {"train": 16, "dev": 8, "test": 8}
DIGITS = set("ZERO ONE TWO THREE FOUR FIVE SIX SEVEN EIGHT NINE".split())  # noqa: SIM905


def run(out: Path, *options: str) -> subprocess.CompletedProcess:
    """The script with the tiny sizes; later options win."""
    sizes = [word for split, count in SIZES.items() for word in (f"--{split}", str(count))]
    command = [sys.executable, str(SCRIPT), str(out), *sizes, *options]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths})


@pytest.fixture(scope="module")
def script():
    """The script as a module, for what needs no worker processes."""
    spec = importlib.util.spec_from_file_location("digits_synthesise", SCRIPT)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """A tiny corpus, created once by two processes."""
    out = tmp_path_factory.mktemp("digits")
    result = run(out, "--jobs", "2")
    assert result.returncode == 0, result.stderr
    return out / "LibriSpeech"


@pytest.fixture(scope="module")
def manifests(corpus) -> dict:
    """What lhotse reads of it."""
    from lhotse.recipes import prepare_librispeech

    return prepare_librispeech(corpus, dataset_parts=[f"{split}-digits" for split in SIZES])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def voices(corpus: Path) -> dict[str, set[tuple[str, str]]]:
    """{split: (accent, variant) pairs} by SPEAKERS.TXT."""
    voices = {}
    for line in (corpus / "SPEAKERS.TXT").read_text().splitlines()[1:]:
        _, _, split, _, voice = (column.strip() for column in line.split("|"))
        voices.setdefault(split, set()).add(tuple(voice.split("+")))
    return voices


def test_lhotse_reads_everything(manifests):
    for split, count in SIZES.items():
        manifest = manifests[f"{split}-digits"]
        assert len(manifest["recordings"]) == len(manifest["supervisions"]) == count
        assert {(r.sampling_rate, r.num_channels) for r in manifest["recordings"]} == {(16000, 1)}


def test_transcripts_are_digit_strings(manifests):
    for manifest in manifests.values():
        for supervision in manifest["supervisions"]:
            assert 1 <= len(supervision.text.split()) <= 7
            assert set(supervision.text.split()) <= DIGITS


def test_alignments_fit_words_and_sound(manifests):
    for manifest in manifests.values():
        for supervision in manifest["supervisions"]:
            items = supervision.alignment["word"]
            assert [item.symbol for item in items if item.symbol] == supervision.text.split()
            assert all(item.duration > 0 for item in items)
            assert all(0.08 < item.duration < 1.5 for item in items if item.symbol)
            assert items[-1].end == pytest.approx(supervision.duration, abs=1e-6)


def test_words_are_louder_than_silence(manifests):
    def power(signal, items):
        return min(float((signal[int(i.start * 16000) : int(i.end * 16000)] ** 2).mean()) for i in items)

    for manifest in manifests.values():
        sounds = {recording.id: recording for recording in manifest["recordings"]}
        for supervision in manifest["supervisions"]:
            signal = sounds[supervision.recording_id].load_audio()[0]
            items = supervision.alignment["word"]
            assert 0.01 < abs(signal).max() < 0.95
            assert power(signal, [i for i in items if i.symbol]) > 2 * power(signal, [i for i in items if not i.symbol])


def test_splits_share_accents_but_no_variant(corpus):
    train, dev, test = (voices(corpus)[f"{split}-digits"] for split in SIZES)
    variants = [{variant for _, variant in split} for split in (train, dev, test)]
    assert not (variants[0] & variants[1] or variants[0] & variants[2] or variants[1] & variants[2])
    assert {a for a, _ in train} == {a for a, _ in dev} == {a for a, _ in test}
    assert len({a for a, _ in train}) >= 6


def test_same_seed_same_bytes_whatever_the_jobs(corpus, tmp_path):
    assert run(tmp_path, "--jobs", "1").returncode == 0
    assert contents(tmp_path / "LibriSpeech") == contents(corpus)
    assert run(tmp_path / "other", "--seed", "2", "--dev", "0", "--train", "0").returncode == 0
    name = "test-digits/3000/103000/3000-103000-0000.flac"
    assert (tmp_path / "other" / "LibriSpeech" / name).read_bytes() != (corpus / name).read_bytes()


def test_rerun_keeps_the_corpus_or_refuses(corpus, script, capsys):
    before = contents(corpus)
    sizes = [f"--{split}={count}" for split, count in SIZES.items()]
    assert script.main([str(corpus.parent), *sizes]) == 0
    assert "nothing to do" in capsys.readouterr().err
    assert script.main([str(corpus.parent), *sizes, "--seed", "7"]) == 2
    assert "remove that folder" in capsys.readouterr().err
    assert contents(corpus) == before


def test_interrupted_run_is_continued(corpus, tmp_path):
    """Speakers already there are kept, an incomplete one is created again."""
    import shutil

    partial = tmp_path / ".partial"
    shutil.copytree(corpus, partial)
    shutil.rmtree(partial / "train-digits" / "1003")
    (partial / "train-digits" / ".tmp-1003" / "junk").mkdir(parents=True)
    (partial / "SPEAKERS.TXT").unlink()
    assert run(tmp_path).returncode == 0
    assert contents(tmp_path / "LibriSpeech") == contents(corpus) and not partial.exists()


@pytest.mark.parametrize(
    "options", [("--train", "-1"), ("--seed", "-1"), ("--jobs", "0"), ("--dev", "x"), ("--trian",)]
)
def test_bad_arguments_are_one_line(tmp_path, script, capsys, options):
    assert script.main([str(tmp_path), *options]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and options[0] in error
    assert not list(tmp_path.iterdir())


def test_missing_espeak_says_what_to_install(tmp_path, script, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    assert script.main([str(tmp_path)]) == 2
    assert "pip install espeakng-loader" in capsys.readouterr().err
