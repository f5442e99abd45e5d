"""Corpora that lhotse's own recipes prepare."""

import os
import subprocess
from pathlib import Path

import pytest

from asrtool.errors import UserError
from asrtool.recipes import lhotse_corpora
from asrtool.recipes.lhotse_corpora import find_pairs, lhotse_corpus, sets_of_pairs
from tests.recipes.layouts import TinyCorpus, lhotse_parts


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> TinyCorpus:
    return TinyCorpus(tmp_path_factory.mktemp("audio") / "tones")


@pytest.fixture
def calls(tiny, tmp_path, monkeypatch) -> list[list[str]]:
    """Replaces the command lhotse: `download` makes a subfolder, `prepare` writes manifests if it is given that."""
    calls: list[list[str]] = []

    def run(arguments: list[str]) -> None:
        calls.append(arguments)
        if arguments[0] == "download":
            Path(arguments[2], "data_aishell").mkdir(parents=True)
        elif not arguments[2].endswith("data_aishell"):
            raise UserError("`lhotse prepare aishell` failed")
        else:
            Path(arguments[3]).mkdir()
            lhotse_parts(tiny, Path(arguments[3]))

    monkeypatch.setattr(lhotse_corpora, "_run", run)
    return calls


def test_a_new_folder_is_downloaded_and_its_subfolder_prepared(calls, tmp_path) -> None:
    corpus = lhotse_corpus("aishell", tmp_path / "c", tmp_path / "scratch")
    assert [call[0] for call in calls] == ["download", "prepare"]
    assert corpus.path == tmp_path / "c/data_aishell" and set(corpus.sets) == {"train", "test"}
    assert "lhotse download aishell" in corpus.before and 'lhotse prepare aishell "$corpus"' in corpus.before
    assert "data/lhotse/tones_recordings_train-a.jsonl.gz" in corpus.commands["train"][0]
    assert len(corpus.rows("train")) == 20


def test_the_recipe_prepares_a_corpus_again_and_stops_if_that_fails(calls, tmp_path) -> None:
    corpus = lhotse_corpus("aishell", tmp_path / "c", tmp_path / "scratch")
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin/lhotse"
    command.write_text('#!/bin/sh\nmkdir "$4"\necho "of $3" >"$4/x"\nexit ${STATUS:-0}\n')
    command.chmod(0o755)
    script = f'set -euo pipefail\ncorpus=$1\nmkdir -p data\n{corpus.before}\necho "$(cat data/lhotse/x), end"\n'

    def run(folder: str, **variables: str) -> tuple[int, str]:
        (tmp_path / folder).mkdir(exist_ok=True)
        environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", **variables}
        command = ["bash", "-c", script, "data.sh", tmp_path / folder]
        done = subprocess.run(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=False)
        return done.returncode, done.stdout

    assert run("one") == (0, f"of {tmp_path / 'one'}, end\n")
    assert run("two", STATUS="3") == (3, "")
    assert (tmp_path / "data/lhotse/x").read_text() == f"of {tmp_path / 'one'}\n"
    assert run("two") == (0, f"of {tmp_path / 'two'}, end\n")


def test_an_existing_folder_is_not_downloaded(calls, tmp_path) -> None:
    (tmp_path / "c/data_aishell").mkdir(parents=True)
    lhotse_corpus("aishell", tmp_path / "c", tmp_path / "scratch")
    assert [call[0] for call in calls] == ["prepare"]


@pytest.mark.parametrize("name, message", [
    ("aishel", "did you mean 'aishell'"),
    ("heroico", "speech_dir, transcript_dir"),
    ("aishell", "needs --download"),
])  # fmt: skip
def test_what_lhotse_cannot_prepare_is_one_line(tmp_path, name, message) -> None:
    with pytest.raises(UserError, match=message):
        lhotse_corpus(name, None, tmp_path)


def test_a_recipe_of_lhotse_that_fails_is_one_line(tmp_path) -> None:
    (tmp_path / "c/x").mkdir(parents=True)
    with pytest.raises(UserError, match="`lhotse prepare yesno .*` failed"):
        lhotse_corpus("yesno", tmp_path / "c", tmp_path / "scratch")


def test_parts_without_a_training_set_are_one_corpus(tmp_path) -> None:
    for kind in ("recordings", "supervisions"):
        for part in ("dev", "test"):
            (tmp_path / f"x_{kind}_{part}.jsonl.gz").touch()
    (tmp_path / "x_recordings_other.jsonl.gz").touch()  # without supervisions
    pairs = find_pairs(tmp_path)
    assert len(pairs) == 2 and set(sets_of_pairs(pairs)) == {"all"}
