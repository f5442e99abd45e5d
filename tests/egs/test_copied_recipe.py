"""A copy of the LibriSpeech recipe with another stage 0 is a recipe for another corpus.

The other tests run stage 0 of the recipe itself, with a local server instead of OpenSLR.
"""

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.egs.openslr import archive, serve
from tests.egs.recipes import LINE, ROOT, run, tiny_config
from tests.tiny import RATE, WORDS, tone

DATA_STAGE = """
if begin_stage 0 "prepare data (manifests of the Kaldi data folders in $corpus_dir)" "$corpus_dir"; then
    for name in train dev test; do
        asrtool prepare kaldi "$corpus_dir/$name" data/$name.jsonl.gz --case upper
    done
    echo dev test >data/scored_sets
    finish_stage "data/{train,dev,test}.jsonl.gz"
fi
"""


def copy_recipe(root: Path, recipe: str = "librispeech") -> Path:
    """Does `cp -r egs/RECIPE egs/copied` in a checkout at `root`; returns the folder of the copy."""
    outputs = shutil.ignore_patterns("data", "exp", "download", ".done")
    shutil.copytree(ROOT / "egs" / recipe, root / "egs/copied", ignore=outputs)
    (root / "local").symlink_to(ROOT / "local")
    return root / "egs/copied"


def replace_stage_0(script: Path, stage: str) -> None:
    """Replaces stage 0 of a run.sh, from `if begin_stage 0` to its `fi`, by `stage`."""
    before, _, rest = script.read_text().partition("if begin_stage 0 ")
    script.write_text(before + stage.lstrip() + rest.partition("\nfi\n")[2])


def make_kaldi_folder(folder: Path, speakers: str, segmented: bool) -> None:
    """Writes words that are tones, in lower case: one recording per utterance, or per speaker with `segments`."""
    folder.mkdir(parents=True)
    lines: dict[str, list[str]] = {"wav.scp": [], "text": [], "utt2spk": [], **({"segments": []} if segmented else {})}
    for speaker in speakers:
        sounds, start = [], 0.0
        for number in range(6):
            name, words = f"{speaker}-{number}", list(WORDS)[number % 3 :][: 1 + number % 4]
            sounds.append(np.concatenate([tone(WORDS[word], 0.5, number) for word in words]))
            end = start + len(sounds[-1]) / RATE
            lines["text"].append(f"{name} {' '.join(words)}")
            lines["utt2spk"].append(f"{name} {speaker}")
            if segmented:
                lines["segments"].append(f"{name} rec-{speaker} {start:.3f} {end:.3f}")
                start = end
            else:
                soundfile.write(folder / f"{name}.wav", sounds[-1], RATE)
                lines["wav.scp"].append(f"{name} {folder / name}.wav")
        if segmented:
            soundfile.write(folder / f"rec-{speaker}.flac", np.concatenate(sounds), RATE)
            lines["wav.scp"].append(f"rec-{speaker} {folder}/rec-{speaker}.flac")
    for name, rows in lines.items():
        (folder / name).write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


@pytest.mark.slow
def test_a_copy_with_another_stage_0_runs_to_a_word_error_rate(tmp_path):
    replace_stage_0(copy_recipe(tmp_path) / "run.sh", DATA_STAGE)
    for name, speakers, segmented in [("train", "abc", True), ("dev", "d", False), ("test", "e", True)]:
        make_kaldi_folder(tmp_path / "kaldi" / name, speakers, segmented)
    conf = tiny_config(tmp_path, tmp_path / "egs/copied/conf/transformer_small.yaml").rename(tmp_path / "my conf.yaml")
    work = tmp_path / "my work"
    options = ["--corpus-dir", tmp_path / "kaldi", "--conf", conf, "--units", "char", "--speeds", "1.0", "--work", work]
    output = run("copied", *options, "--decode", "greedy graph", "--stop-stage", 6, root=tmp_path)
    assert [name for name, _ in LINE.findall(output)] == ["dev", "test"] * 2
    exp = work / "exp/my conf_char_seed1"
    assert json.loads((exp / "decode/test/graph/wer.json").read_text())["words"]["length"] == 12
    hyps = (json.loads(line) for line in (exp / "decode/test/greedy/hyps.jsonl").read_text().splitlines())
    assert {hyp["id"]: hyp["ref"] for hyp in hyps}["e-3"] == "ONE TWO THREE FOUR"
    text = tmp_path / "kaldi/test/text"
    text.write_text(text.read_text().replace("four", "zero"))
    options += ["--stop-stage", 0]
    assert "Stage 0: wrote" in run("copied", *options, root=tmp_path)
    assert "ONE TWO THREE ZERO" in gzip.decompress((work / "data/test.jsonl.gz").read_bytes()).decode()
    assert "already done" in run("copied", *options, root=tmp_path)


@pytest.fixture
def downloading(tmp_path):
    """download(*options) runs stage 0 with a local OpenSLR in the work folder tmp_path, and returns the output."""
    recipe = copy_recipe(tmp_path)
    soundfile.write(tmp_path / "tone.flac", tone(900, 1.0), RATE)
    sound = (tmp_path / "tone.flac").read_bytes()
    files = {"11/3-gram.pruned.1e-7.arpa.gz": b"3", "11/4-gram.arpa.gz": b"4", "11/librispeech-lexicon.txt": b"w"}
    for place, part, speaker in [(31, "train-clean-5", 1), (31, "dev-clean-2", 2), (12, "dev-clean", 3)]:
        chapter = f"{speaker}/7/{speaker}-7"
        files_of_part = {f"{chapter}-0000.flac": sound, f"{chapter}.trans.txt": f"{speaker}-7-0000 TWO\n".encode()}
        files[f"{place}/{part}.tar.gz"] = archive(part, files_of_part)
    with serve(files) as openslr:
        openslr.write_sums(recipe / "local/md5sum.txt")

        def download(*options, status=0):
            options = ["--work", tmp_path, "--mirror", openslr.url, "--stop-stage", 0, *options]
            return run("copied", *options, root=tmp_path, status=status)

        download.openslr = openslr
        yield download


@pytest.mark.slow
def test_stage_0_downloads_mini_librispeech_once(downloading, tmp_path):
    assert "Stage 0: wrote" in downloading("--lm", "openslr")
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"train.jsonl.gz", "dev.jsonl.gz", "scored_sets"}
    assert len(list((tmp_path / "download/lm").iterdir())) == 3
    asked = len(downloading.openslr.requests)
    assert "already done" in downloading() and len(downloading.openslr.requests) == asked == 5


@pytest.mark.slow
def test_stage_0_takes_named_parts_and_names_missing_ones(downloading, tmp_path):
    parts = ["--parts", "train-clean-5 dev-clean"]
    downloading(*parts)
    assert [path.name for path in sorted((tmp_path / "download/LibriSpeech").iterdir()) if path.is_dir()] == [
        "dev-clean",
        "train-clean-5",
    ]
    assert "no 'train-clean-9' to download" in downloading("--parts", "train-clean-9", status=2)
    there = ["--corpus-dir", tmp_path / "download", "--parts"]
    assert "no part train-clean-100 in" in downloading(*there, "100h", status=2)
    assert "Stage 0: wrote" in downloading(*there, "train-clean-5 dev-clean")


@pytest.mark.slow
def test_yesno_is_downloaded_and_checked_unless_a_corpus_is_given(tmp_path):
    recipe = copy_recipe(tmp_path, "yesno")
    soundfile.write(tmp_path / "tone.wav", tone(900, 1.0, rate=8000), 8000)
    names = ["_".join(f"{number:08b}") for number in range(60)]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name in names:
            tar.add(tmp_path / "tone.wav", f"waves_yesno/{name}.wav")
    with serve({"1/waves_yesno.tar.gz": packed.getvalue()}) as openslr:
        options = ["--mirror", openslr.url, "--stop-stage", 0, "--work"]
        output = run("copied", *options, tmp_path / "other", root=tmp_path, status=2)
        assert "does not have the SHA-256 sum c3f49e0c" in output  # of the real corpus
        digest = hashlib.sha256(packed.getvalue()).hexdigest()
        (recipe / "local/sha256sum.txt").write_text(f"{digest}  1/waves_yesno.tar.gz\n")
        assert "Stage 0: wrote" in run("copied", *options, tmp_path / "my work", root=tmp_path)
        assert len(list((tmp_path / "my work/download/waves_yesno").glob("*.wav"))) == 60
        asked = len(openslr.requests)
        given = ["--corpus-dir", tmp_path / "my work/download"]
        assert "Stage 0: wrote" in run("copied", *given, *options, tmp_path / "third", root=tmp_path)
        assert len(openslr.requests) == asked


def test_missing_language_models_are_named_before_any_stage_runs(tmp_path):
    output = run("librispeech", "--lm", tmp_path, "--work", tmp_path, status=2)
    assert len(output.splitlines()) == 1 and f"no 3-gram.pruned.1e-7.arpa.gz in {tmp_path}" in output
    output = run("librispeech", "--lm", "openslr", "--lm-text", "x.txt", "--work", tmp_path, status=2)
    assert len(output.splitlines()) == 1 and "choose one" in output
