"""A recipe of twenty lines, which sources the shared driver, and copies of the recipes that download their corpora.

The copies run stage 0, with a local server instead of OpenSLR.
"""

import gzip
import hashlib
import io
import json
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.egs.openslr import archive, serve
from tests.egs.recipes import LINE, ROOT, run, tiny_config
from tests.tiny import RATE, WORDS, tone

RUN = """#!/usr/bin/env bash
# Tones.
#
#   --corpus-dir DIR            Kaldi data folders train, dev and test
set -euo pipefail
CDPATH="" cd -- "$(dirname "$0")"
. ../../local/recipe.sh

corpus_dir="" data_options="corpus_dir jobs" path_options+=" corpus_dir"
data_files=conf/names.txt
conf=conf/tiny.yaml units=phone lexicon=local/lexicon.txt speeds=1.0 case=upper lm_order=2
run_recipe "$@"
"""
DATA = """
set -euo pipefail
corpus_dir="" jobs=""
options="corpus_dir jobs"
. "$ASRTOOL_ROOT/local/parse_options.sh"
for name in train dev test; do
    asrtool prepare kaldi "$corpus_dir/$name" data/$name.jsonl.gz --case upper
done
cat "$recipe/conf/names.txt" >data/scored_sets
"""
LEXICON = "!SIL 1.0 SIL\none 0.5 W AA N\none 0.9 W AH N\ntwo 1.0 T UW\nthree 1.0 TH R IY\nfour 1.0 F AO R\n"


def copy_recipe(root: Path, recipe: str) -> Path:
    """Does `cp -r egs/RECIPE egs/copied` in a checkout at `root`; returns the folder of the copy."""
    outputs = shutil.ignore_patterns("data", "exp", "download", ".done")
    shutil.copytree(ROOT / "egs" / recipe, root / "egs/copied", ignore=outputs)
    (root / "local").symlink_to(ROOT / "local")
    return root / "egs/copied"


def write_recipe(root: Path) -> Path:
    """Writes a recipe for Kaldi data folders, egs/copied, in a checkout at `root`; returns its folder."""
    recipe = root / "egs/copied"
    (recipe / "local").mkdir(parents=True)
    (root / "local").symlink_to(ROOT / "local")
    tiny_config(recipe / "conf", ROOT / "egs/librispeech/conf/transformer_small.yaml")
    for name, text in [("run.sh", RUN), ("local/data.sh", DATA), ("local/lexicon.txt", LEXICON)]:
        (recipe / name).write_text(text)
    (recipe / "conf/names.txt").write_text("dev test\n")
    return recipe


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


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A recipe of twenty lines after its stage 6; returns the checkout, its options and its output."""
    root = tmp_path_factory.mktemp("my checkout")
    write_recipe(root)
    for name, speakers, segmented in [("train", "abc", True), ("dev", "d", False), ("test", "e", True)]:
        make_kaldi_folder(root / "kaldi" / name, speakers, segmented)
    options = ["--corpus-dir", root / "kaldi", "--work", root / "my work", "--decode", "greedy graph", "--steps", 2]
    return root, options, run("copied", *options, root=root)


def list_stages(root: Path, *options: object) -> tuple[dict[str, str], dict[int, str]]:
    """Returns what `--list true` prints: the folders by name, and the states of the stages by number."""
    rows = [line.split("\t") for line in run("copied", *options, "--list", "true", root=root).splitlines()]
    stages = {int(row[1]): row[2] for row in rows if row[0] == "stage"}
    return {row[1]: row[2] for row in rows if row[0] == "folder"}, stages


@pytest.mark.slow
def test_a_recipe_of_twenty_lines_runs_to_a_word_error_rate(recipe):
    root, _, output = recipe
    assert [name for name, _ in LINE.findall(output)] == ["dev", "test"]  # graph search; greedy has phones
    exp = root / "my work/exp/tiny_seed1"
    assert json.loads((exp / "decode/test/graph/wer.json").read_text())["words"]["length"] == 12
    hyps = (json.loads(line) for line in (exp / "decode/test/graph/hyps.jsonl").read_text().splitlines())
    assert {hyp["id"]: hyp["ref"] for hyp in hyps}["e-3"] == "ONE TWO THREE FOUR"
    assert "max_steps: 2\n" in (exp / "config.yaml").read_text()


@pytest.mark.slow
def test_a_lexicon_with_probabilities_is_read_in_the_case_of_the_transcripts(recipe):
    lang = recipe[0] / "my work/data/lang"
    assert (lang / "lexicon.txt").read_text().splitlines()[1:3] == ["ONE 0.9 W AH N", "ONE 0.5 W AA N"]
    phones = json.loads((lang / "tokenizer.json").read_text())["symbols"]
    assert "UW" in phones and "SIL" not in phones


@pytest.mark.slow
def test_list_prints_folders_and_states_and_writes_nothing(recipe):
    root, options, _ = recipe
    work = root / "my work"
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*")}
    folders, states = list_stages(root, *options)
    assert folders["lang"] == "data/lang" and folders["exp"] == folders["start"] == "exp/tiny_seed1"
    assert folders["conf"] == str(root / "egs/copied/conf/tiny.yaml")
    assert states == dict.fromkeys([0, 1, 2, 4, 5, 6], "done") | {7: "missing", 8: "missing"}
    used = (work / ".done/options").read_text().splitlines()
    assert used == ["--corpus-dir", str(root / "kaldi"), "--steps", "2", "--decode", "greedy graph"]
    assert list_stages(root, *used, "--work", work)[1] == states
    for changes, state in [(["--lm-order", 3], "changed"), (["--units", "char"], "missing")]:
        assert list(list_stages(root, *options, *changes)[1].values())[:4] == ["done", "done", state, state]
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*")} == before
    assert "no such folder" in run("copied", "--work", root / "nowhere", "--list", "true", root=root, status=2)


@pytest.mark.slow
def test_without_a_language_model_there_is_no_graph(recipe):
    root, options, _ = recipe
    options = [*options[:4], "--units", "char", "--lm-order", 0, "--stop-stage", 2]
    output = run("copied", *options, "--decode", "greedy", root=root)
    lang = root / "my work/data/lang_char"
    assert "Stage 2: wrote data/lang_char/tokenizer.json (" in output
    assert [path.name for path in lang.iterdir()] == ["tokenizer.json"]
    output = run("copied", *options, root=root, status=2)
    assert len(output.splitlines()) == 1 and "needs a graph; with --lm-order 0 there is none" in output


@pytest.mark.slow
def test_a_changed_transcript_or_file_of_the_recipe_repeats_stage_0(recipe):
    root, options, _ = recipe
    options = [*options, "--stop-stage", 0]
    text = root / "kaldi/test/text"
    text.write_text(text.read_text().replace("four", "zero"))
    assert list_stages(root, *options)[1][0] == "changed"
    assert "Stage 0: wrote" in run("copied", *options, root=root)
    assert "ONE TWO THREE ZERO" in gzip.decompress((root / "my work/data/test.jsonl.gz").read_bytes()).decode()
    assert "already done" in run("copied", *options, "--jobs", 3, root=root)
    (root / "egs/copied/conf/names.txt").unlink()
    output = run("copied", *options, root=root, status=1)
    assert "in stage 0 (prepare data)" in output and list_stages(root, *options)[1][0] == "interrupted"


@pytest.mark.parametrize("name", ["digits", "yesno", "librispeech"])
def test_help_lists_all_options_with_the_defaults_of_the_recipe(name):
    output = run(name, "--help")
    listed = set(re.findall(r"(?:^|,) +(--[a-z-]+)(?= )", output, re.MULTILINE)) | {"--help"}
    listed |= set(re.findall(r"(--[a-z]+) N", output))  # several in a line
    accepted = run(name, "--nothing", "x", status=2).partition("the options are ")[2].split()
    assert listed == set(accepted)
    default = {"digits": "word", "yesno": "word", "librispeech": "bpe"}[name]
    assert f"triphone (default {default})" in output
    conf = re.search(r"^  --conf FILE .*\(default (.*)\)", output, re.MULTILINE)
    assert (ROOT / "egs" / name / conf[1]).is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "model.dim"], "--set takes"),
        (["--steps", "many"], "--steps is a number"),
        (["--tag", "a/b"], "--tag is part of a folder's name"),
        (["--units", "phone", "--lexicon", "cmudict,none.txt"], "--lexicon: no such file: {cwd}/none.txt"),
        (["--decode", "graph rescored"], "give --rescore-order"),
        (["--lm-order", "9"], "at most 5"),
        (["--set", "model.nothing=1"], "model.nothing"),
    ],
)
def test_a_wrong_value_prints_one_line_and_exits_with_status_2(tmp_path, options, message):
    output = run("digits", *options, "--work", tmp_path, status=2)
    assert len(output.splitlines()) == 1 and message.format(cwd=Path.cwd()) in output
    assert not list(tmp_path.iterdir())


@pytest.fixture
def downloading(tmp_path):
    """download(*options) runs stage 0 with a local OpenSLR in the work folder tmp_path, and returns the output."""
    recipe = copy_recipe(tmp_path, "librispeech")
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
    written = {path.name for path in (tmp_path / "data").iterdir()}
    assert written == {"train.jsonl.gz", "dev.jsonl.gz", "scored_sets", "parts"}
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
    text = tmp_path / "x.txt"
    text.write_text("A\n")
    output = run("librispeech", "--lm", "openslr", "--lm-text", text, "--work", tmp_path, status=2)
    assert len(output.splitlines()) == 1 and "choose one" in output
