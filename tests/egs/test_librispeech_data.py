"""The sets of the LibriSpeech recipe, with a stand-in for `asrtool` that prints its arguments."""

import os
import subprocess

import pytest

from tests.egs.recipes import ROOT


@pytest.fixture
def prepare(tmp_path):
    """prepare("1/4") -> exit status, stdout and stderr of stage 0 with --test-speakers, for 3 training speakers."""
    for folder in ("train-x/1", "train-x/2", "train-x/10", "dev-x/4"):
        (tmp_path / "corpus" / folder).mkdir(parents=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train.jsonl.gz").write_text("of an earlier run")

    def run(*options):
        script = 'asrtool() { echo "$*"; }\nexport -f asrtool\nbash "$0" "$@"'
        command = ["bash", "-c", script, ROOT / "egs/librispeech/local/data.sh", "--corpus-dir", tmp_path / "corpus"]
        environment = os.environ | {"ASRTOOL_ROOT": str(ROOT)}
        done = subprocess.run(
            [*command, *options], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.mark.parametrize("fold", ["0/4", "5/4", "4/9", "1/1", "1/0", "0/0", "99999999999999999999/4"])
def test_a_fold_without_speakers_is_one_line(prepare, tmp_path, fold):
    status, _, error = prepare("--test-speakers", fold)
    assert status == 2 and error.count("\n") == 1 and f"--test-speakers {fold}" in error
    assert (tmp_path / "data/train.jsonl.gz").exists()


def test_a_fold_of_speakers_that_are_all_in_dev_is_one_line(prepare):
    status, _, error = prepare("--test-speakers", "1/2", "--dev-speakers", "1,2,10")
    assert status == 2 and error.count("\n") == 1


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_speaker_of_dev_and_of_the_test_set_is_refused_and_the_earlier_sets_remain(prepare, tmp_path, ending):
    (tmp_path / "speakers.txt").write_text(ending.join(["2", "10", ""]), newline="")
    status, _, error = prepare("--test-speakers", "speakers.txt", "--dev-speakers", "1,10")
    assert status == 2 and error.count("\n") == 1 and "both have 10:" in error
    assert (tmp_path / "data/train.jsonl.gz").exists()
    status, output, _ = prepare("--test-speakers", "speakers.txt", "--dev-speakers", "1")
    assert status == 0 and "--exclude-speakers 1,2,10\n" in output


@pytest.mark.parametrize(("fold", "held_out"), [("1/2", "1,10"), ("2/2", "2"), ("3/3", "10"), ("1/3", "1")])
def test_a_fold_is_every_nth_speaker(prepare, fold, held_out):
    status, output, _ = prepare("--test-speakers", fold)
    assert status == 0 and f"data/held_out.jsonl.gz --part train-x --speakers {held_out}\n" in output
    assert f"data/train.jsonl.gz --part train-x --exclude-speakers {held_out}\n" in output
